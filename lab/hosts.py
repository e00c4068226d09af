"""Run chapter 05 on hosts of its own, and pull the plug of one of them.

Each host is a network namespace: it has an address, a name, a folder of data, and no way to the
others but its link to a bridge, as machines on one switch. It is a host for everything but its
kernel and its clock. Needs root on Linux.

    from lab import hosts

    with hosts.start(MAIL_DELAY=0.1) as network:
        network.cut_off("worker1")  # its processes live on, and nobody hears them
        network.reconnect("worker1")
"""

import ipaddress
import itertools
import json
import os
import random
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from lab.chapters import PORTS, Chapter, LabError, Supervised, folder, read_procfile

HOSTS = {
    "redis": ("redis",),
    "mailserver": ("mailserver",),
    "web": ("web", "beat"),
    "worker1": ("mail", "report"),
    "worker2": ("mail", "report"),
}
"""What runs where: the names of the Procfile's processes."""

LISTENS = {
    "PORT": "web",
    "REDIS_PORT": "redis",
    "SMTP_PORT": "mailserver",
    "MAILBOX_PORT": "mailserver",
}
"""The ports that others reach, and the host that has them."""

PROGRAMS = ("ip", "unshare", "mount", "hostname")
OURS = re.compile(r"unb(\d+)-")  # the process that made it; an interface's name has 15 characters
_count = itertools.count(1)


def allowed() -> tuple[bool, str]:
    """Whether hosts can be made here, and if not: why."""
    if sys.platform != "linux":
        return False, "Network namespaces are a part of Linux."
    if os.geteuid() != 0:
        return False, "Only root may make network namespaces."
    for program in PROGRAMS:
        if shutil.which(program) is None:
            return False, f"There is no {program} on PATH. On Debian: apt-get install iproute2"
    probe = f"unb{os.getpid()}-{next(_count)}"
    try:
        ip("netns", "add", probe)
        ip("-n", probe, "link", "add", "bridge", "type", "bridge")
        ip("-n", probe, "link", "add", "one", "type", "veth", "peer", "name", "two")
        ip("netns", "exec", probe, "unshare", "--uts", "hostname", "probe")
    except LabError as error:
        return False, f"This machine does not let us make hosts: {error}"
    finally:
        ip("netns", "delete", probe, check=False)
    return True, ""


def start(**settings: Any) -> "Network":
    """Start chapter 05 on hosts and return it once it answers; use it as a context manager.

    `settings` become environment variables. Raises LabError where `allowed()` says no, where
    no subnet is free, or, with the last lines of a log, if a process ends before all are ready.
    """
    possible, reason = allowed()
    if not possible:
        raise LabError(reason)
    return Network(folder("05"), {name: str(value) for name, value in settings.items()})


class Network(Chapter):
    """A chapter on hosts of its own. A process is named as the worker in it: `mail@worker1`.

    Attributes, beyond those of a chapter: `addresses` (of each host, by its name).
    """

    def __init__(self, path: Path, settings: dict[str, str]) -> None:
        remove_leftovers()
        self.prefix = f"unb{os.getpid()}-{next(_count)}"  # also the bridge's name
        self.addresses: dict[str, str] = {}
        self._beside: list[Supervised] = []
        self._place = tempfile.TemporaryDirectory(prefix="unblocked-")
        self.place = Path(self._place.name)
        try:
            self._subnet = make_bridge(self.prefix)
            for name in HOSTS:
                self._add_host(name)
            self.environment = self._environment(settings)
            super().__init__(
                path,
                self._commands(read_procfile(path)),
                {name: PORTS[name] for name in LISTENS},
                self.environment,
                restart_after={},
            )
        except BaseException:
            self._remove()
            raise

    def _environment(self, settings: dict[str, str]) -> dict[str, str]:
        """The same on every host. Each has its own `LISTEN`, and Redis no `REDIS_URL`."""
        password = secrets.token_urlsafe(24)
        inherited = {name: value for name, value in os.environ.items() if name not in PORTS}
        return {
            **inherited,
            "REDIS_PASSWORD": password,
            "REDIS_URL": f"redis://:{password}@{self.addresses['redis']}:6379/0",
            "SMTP_HOST": "mailserver",
            "DATA": str(self.place / "data"),
            **settings,
        }

    def _commands(self, procfile: dict[str, str]) -> dict[str, str]:
        placed = [(host, name) for host, names in HOSTS.items() for name in names]
        several = {name for _, name in placed if sum(name == other for _, other in placed) > 1}
        return {
            f"{name}@{host}" if name in several else name: self._on(host, procfile[name])
            for host, name in placed
        }

    def _add_host(self, name: str) -> None:
        """Make a host with the next address, a link to the bridge, and folders.

        `data` has the same path on every host, and is another folder on each. In it `uploads` is
        one for all, as on a network disk.
        """
        number = len(self.addresses) + 2
        space, link = f"{self.prefix}-{name}", f"{self.prefix}-{number}"
        self.addresses[name] = str(self._subnet[number])
        ip("netns", "add", space)
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("link", "set", link, "master", self.prefix, "up")
        ip("-n", space, "address", "add", f"{self.addresses[name]}/24", "dev", "eth0")
        ip("-n", space, "link", "set", "lo", "up")
        ip("-n", space, "link", "set", "eth0", "up")
        for shared in ("data", "uploads"):
            (self.place / shared).mkdir(exist_ok=True)
        (self.place / name).mkdir()
        (self.place / name / "uploads").symlink_to(self.place / "uploads")
        known = {"localhost": "127.0.0.1", **self.addresses}
        (self.place / "hosts").write_text("".join(f"{at} {name}\n" for name, at in known.items()))

    def _on(self, host: str, command: str) -> str:
        """The command that runs `command` on a host. Mounts made there are seen only there."""
        script = [
            f"hostname {host}",
            f"mount --bind {shlex.quote(str(self.place / host))} {shlex.quote(self._data)}",
            f"mount --bind {shlex.quote(str(self.place / 'hosts'))} /etc/hosts",
            f"export LISTEN={self.addresses[host]}",
            *(["unset REDIS_URL"] if host == "redis" else []),  # it is the server
            f"exec {command}",
        ]
        inner = shlex.quote(" && ".join(script))
        return f"ip netns exec {self.prefix}-{host} unshare --uts sh -c {inner}"

    @property
    def _data(self) -> str:
        return str(self.place / "data")

    def address(self, port_name: str) -> str:
        return self.addresses[LISTENS[port_name]]

    def run(self, commands: dict[str, str]) -> Supervised:
        """Run each command on a new host of its own, by the host's name, beside the chapter.

        Hosts know each other by name. Returns the processes; they end with the chapter, or by
        `.stop()`.
        """
        for name in commands:
            self._add_host(name)
        placed = {name: self._on(name, command) for name, command in commands.items()}
        beside = Supervised(placed, self.path, self.environment, self.logs)
        self._beside.append(beside)
        return beside

    def cut_off(self, host: str) -> None:
        """Take a host's link down: nothing leaves it and nothing reaches it, nor any error."""
        self._link(host, "down")

    def reconnect(self, host: str) -> None:
        """Take a host's link up again."""
        self._link(host, "up")

    def _link(self, host: str, state: str) -> None:
        if host not in self.addresses:
            raise LabError(f"There is no host {host!r}. There are: {', '.join(self.addresses)}.")
        number = list(self.addresses).index(host) + 2
        ip("link", "set", f"{self.prefix}-{number}", state)

    def stop(self) -> None:
        """Stop every process and remove every host; safe to call twice."""
        for beside in self._beside:
            beside.stop()
        super().stop()
        self._remove()

    def _remove(self) -> None:
        remove(self.prefix)
        self._place.cleanup()


# --- Namespaces and links -------------------------------------------------------------


def ip(*arguments: str, check: bool = True) -> str:
    """Run `ip` and return what it printed. Raises LabError, with its words, if it fails."""
    command = ["ip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if check and done.returncode:
        raise LabError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def make_bridge(name: str) -> ipaddress.IPv4Network:
    """Make a bridge on which this machine has the first address of a free subnet: 10.77.x.0/24.

    Raises LabError if none is free.
    """
    ip("link", "add", name, "type", "bridge")
    ip("link", "set", name, "up")
    routes = [
        route["dst"] for route in json.loads(ip("-json", "-4", "route", "show", "table", "all"))
    ]
    taken = [ipaddress.ip_network(to, strict=False) for to in routes if to[0].isdigit()]
    for number in random.sample(range(256), 256):
        subnet = ipaddress.ip_network(f"10.77.{number}.0/24")
        assert isinstance(subnet, ipaddress.IPv4Network)
        if any(subnet.overlaps(other) for other in taken):
            continue
        ip("address", "add", f"{subnet[1]}/32", "dev", name)
        try:  # the kernel takes a route once: of two who choose the same subnet, one fails
            ip("route", "add", str(subnet), "dev", name, "src", str(subnet[1]))
        except LabError:
            ip("address", "delete", f"{subnet[1]}/32", "dev", name)
            continue
        return subnet
    raise LabError("No subnet of 10.77.0.0/16 is free: this machine has routes into all of them.")


def remove_leftovers() -> None:
    """Remove what runs have left that were killed: their processes are gone by themselves."""
    for name in made():
        found = OURS.match(name)
        if found and not psutil.pid_exists(int(found[1])):
            remove(name)


def remove(prefix: str) -> None:
    """Remove every namespace, link and bridge whose name begins so. (Another may be quicker.)"""
    for name in made():
        if name == prefix or name.startswith(f"{prefix}-"):
            ip("link", "delete", name, check=False)
            ip("netns", "delete", name, check=False)


def made() -> list[str]:
    """The names of all namespaces and links that look like ours."""
    spaces = [space["name"] for space in json.loads(ip("-json", "netns", "list") or "[]")]
    links = [link["ifname"] for link in json.loads(ip("-json", "link", "show"))]
    return [name for name in spaces + links if OURS.match(name)]
