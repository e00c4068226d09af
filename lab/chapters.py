"""Start a chapter from its Procfile, wait until it answers, hurt it, stop it."""

import fcntl
import itertools
import json
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psutil
import requests
from celery import Celery
from honcho.environ import parse_procfile
from kombu.exceptions import KombuError
from redis import RedisError

from lab.errors import LabError as LabError  # for all who start a chapter
from lab.mailbox import Mailbox

ROOT = Path(__file__).resolve().parent.parent
PORTS = {
    "PORT": 8000,
    "SMTP_PORT": 8025,
    "MAILBOX_PORT": 8026,
    "REDIS_PORT": 6379,
    "FLOWER_PORT": 5555,
    "MAIL_METRICS_PORT": 9101,
    "REPORT_METRICS_PORT": 9102,
}
"""Every port a chapter may listen on: the environment variable and its default."""

NEEDS = {
    "REDIS_PORT": "redis",
    "FLOWER_PORT": "flower",
    "MAIL_METRICS_PORT": "flower",
    "REPORT_METRICS_PORT": "flower",
}
"""Ports that a chapter has only if this process is in its Procfile."""


def chapters() -> list[str]:
    """The numbers of the chapters that exist, in order: `["01", "02", …]`."""
    return sorted(path.name[:2] for path in ROOT.glob("0[1-5]_*") if (path / "Procfile").exists())


def folder(number: str) -> Path:
    """The folder of chapter `number`. Raises LabError for one that does not exist."""
    for path in ROOT.glob(f"{number}_*"):
        return path
    raise LabError(f"There is no chapter {number!r}. There are: {', '.join(chapters())}.")


def start(
    number: str,
    *,
    fixed_ports: bool = False,
    restart: bool = False,
    restart_after: dict[str, float] | None = None,
    celery_defaults: bool = False,
    shared_pool: bool = False,
    replace: dict[str, str] | None = None,
    **settings: Any,
) -> "Chapter":
    """Start a chapter and return it once it answers; use it as a context manager.

    `settings` become environment variables (`THREADS=4`). With `restart`, a process that
    ends is started again after half a second, or after the seconds that `restart_after` has by
    its name. With `fixed_ports` the chapter takes its usual ports (8000 …), Redis and data, else
    free ports and a data folder that is thrown away, so any number can run side by side. With
    `celery_defaults`, for chapter 03, the workers run without what keeps their tasks safe: see that
    module. With `shared_pool` one worker, whose processes serve both queues, takes the place of the
    two. `replace` changes the Procfile's commands: each text into the other.
    Raises LabError, with the last lines of the log, if a process ends before it is ready.
    """
    path = folder(number)
    if celery_defaults and number != "03":
        raise LabError("Celery's defaults are there for chapter 03 only.")
    commands = read_procfile(path)
    if celery_defaults:
        for name, command in commands.items():
            command = command.replace("--app tasks", "--app lab.celery_defaults")
            commands[name] = command.replace("REMAP_SIGTERM=SIGQUIT ", "")
    if shared_pool:
        share(commands)
    for old, new in (replace or {}).items():
        for name, command in commands.items():
            commands[name] = command.replace(old, new)
    environment = dict(os.environ)
    names = [name for name in PORTS if NEEDS.get(name, "web") in commands]
    if shared_pool:
        names.remove("REPORT_METRICS_PORT")
    if fixed_ports:
        environment.setdefault("DATA", str(path / "data"))
        if environment.get("REDIS_URL"):
            names.remove("REDIS_PORT")
        ports = {name: int(environment.get(name, PORTS[name])) for name in names}
        for name, port in ports.items():
            check_free(name, port)
    else:
        environment.pop("REDIS_URL", None)
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        environment["DATA"] = ""  # a folder beside the logs
    environment |= {name: str(value) for name, value in settings.items()}
    pauses = dict.fromkeys(commands, 0.5) | (restart_after or {})
    return Chapter(path, commands, ports, environment, pauses if restart else {})


def gunicorn(configuration: str) -> dict[str, Any]:
    """Settings for `start`: the web server reads this file of `lab/gunicorn/`, not its own."""
    path = ROOT / "lab" / "gunicorn" / configuration
    return {"GUNICORN_CMD_ARGS": shlex.join(["--config", str(path)])}


def share(commands: dict[str, str]) -> None:
    """Instead of a worker for each queue, one worker whose processes serve both."""
    del commands["report"]
    for one, both in (
        ("--queues mail", "--queues mail,reports"),
        ("--pool threads", "--pool prefork"),
    ):
        commands["mail"] = commands["mail"].replace(one, both)


def read_procfile(path: Path, name: str = "Procfile") -> dict[str, str]:
    """The commands in the Procfile of a folder, by name."""
    procfile = parse_procfile((path / name).read_text())
    return dict(procfile.processes)


class Supervised:
    """Running processes, which end when they are told to, or when this program is gone.

    Attributes: `commands` (by name), `logs` (a folder with one file for each process), `pids`
    (of those that run now), `ended` (the exit code with which a process last ended).
    """

    def __init__(
        self,
        commands: dict[str, str],
        folder: Path,
        environment: dict[str, str],
        logs: Path,
        restart_after: dict[str, float] | None = None,
    ) -> None:
        self.commands = commands
        self.logs = logs
        self.pids: dict[str, int] = {}
        self.ended: dict[str, int] = {}
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", str(ROOT / "lab" / "supervisor.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            env={
                **environment,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
            },
            text=True,
            start_new_session=True,
        )
        self.supervisor_pid = self._supervisor.pid
        order = {"commands": commands, "logs": str(logs), "restart_after": restart_after or {}}
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.write(json.dumps(order) + "\n")
        self._supervisor.stdin.flush()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._supervisor.stdout is not None
        for line in self._supervisor.stdout:
            event = json.loads(line)
            if event["event"] == "started":
                self.pids[event["name"]] = event["pid"]
            else:
                self.pids.pop(event["name"], None)
                self.ended[event["name"]] = event["code"]

    def log(self, name: str, lines: int = 15) -> str:
        """The last lines that process `name` printed."""
        path = self.logs / f"{name}.log"
        if not path.exists():
            return ""
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])

    def processes(self, name: str) -> list[psutil.Process]:
        """Process `name` of the Procfile, then its children. Raises LabError if it has ended."""
        if name not in self.commands:
            raise LabError(f"There is no process {name!r}. There are: {', '.join(self.commands)}.")
        try:
            process = psutil.Process(self.pids[name])
            return [process, *process.children(recursive=True)]
        except (KeyError, psutil.NoSuchProcess) as error:
            raise LabError(f"{name} is not running. Its last lines:\n\n{self.log(name)}") from error

    def memory(self, name: str) -> float:
        """Bytes of process `name` with its children; what they share counts once (macOS: never)."""
        parts = (process.memory_full_info() for process in self.processes(name))
        return float(sum(getattr(part, "pss", part.uss) for part in parts))

    def hurt(self, name: str, signal_name: str = "SIGKILL", children: bool = False) -> None:
        """Send a signal to process `name` and all its children, or only to its children.

        SIGKILL ends it without a word, SIGSTOP freezes it, SIGCONT thaws it, SIGTERM asks.
        """
        number = signal.Signals[signal_name]
        process, *offspring = self.processes(name)
        for victim in offspring if children else [process, *offspring]:
            try:
                victim.send_signal(number)
            except psutil.NoSuchProcess:
                pass

    def stop(self) -> None:
        """Stop every process; safe to call twice."""
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.close()
        self._supervisor.wait(30)
        self._listener.join(5)


class Chapter(Supervised):
    """A running chapter.

    Attributes: `number` ("01"), `url` (of its web process), `mailbox` (what its mail server
    received), `logs` (a folder with one file for each process), `data` (a folder with what the
    chapter keeps: Redis, uploads), `redis_url`.
    """

    def __init__(
        self,
        path: Path,
        commands: dict[str, str],
        ports: dict[str, int],
        environment: dict[str, str],
        restart_after: dict[str, float],
    ) -> None:
        self.number = path.name[:2]
        self.path = path
        self.commands = commands
        self.url = f"http://{self.address('PORT')}:{ports['PORT']}"
        self.mailbox = Mailbox(f"http://{self.address('MAILBOX_PORT')}:{ports['MAILBOX_PORT']}")
        self.ports = ports
        password = environment.get("REDIS_PASSWORD")  # from chapter 05 on
        login = f":{quote(password, safe='')}@" if password else ""
        redis = f"{self.address('REDIS_PORT')}:{ports.get('REDIS_PORT')}"
        self.redis_url = environment.get("REDIS_URL") or f"redis://{login}{redis}/0"
        self._logs = tempfile.TemporaryDirectory(prefix="unblocked-")
        self.logs = Path(self._logs.name)
        self.data = Path(environment.get("DATA") or self.logs / "data")
        self._start(environment, restart_after)

    def _start(self, environment: dict[str, str], restart_after: dict[str, float]) -> None:
        environment = environment | {name: str(port) for name, port in self.ports.items()}
        environment["DATA"] = str(self.data)
        super().__init__(self.commands, self.path, environment, self.logs, restart_after)
        try:
            self.wait_until_ready(ends_are_fatal=True)
        except BaseException:
            self.stop()
            raise

    def wait_until_ready(self, timeout: float = 60.0, ends_are_fatal: bool = False) -> None:
        """Wait until every port takes connections, `/ping` answers, and so does every worker.

        Raises LabError after `timeout` seconds, or at once, with `ends_are_fatal`, if a
        process ends.
        """
        deadline = time.monotonic() + timeout
        while not self.is_ready():
            for name, code in self.ended.items() if ends_are_fatal else ():
                raise LabError(
                    f"Chapter {self.number}: {name} ended with {describe(code)} before it was "
                    f"ready. Its last lines:\n\n{self.log(name)}"
                )
            if time.monotonic() > deadline:
                logs = "\n\n".join(f"{name}:\n{self.log(name)}" for name in self.commands)
                raise LabError(
                    f"Chapter {self.number} was not ready after {timeout:g} s.\n\n{logs}"
                )
            time.sleep(0.05)

    def address(self, port_name: str) -> str:
        """Where the process listens that has this port: a name of PORTS."""
        return "127.0.0.1"

    def is_ready(self) -> bool:
        ports_open = all(is_open(port, self.address(name)) for name, port in self.ports.items())
        return ports_open and self.answers() and self.workers_answer()

    def workers_answer(self) -> bool:
        """Whether every Celery worker of the Procfile answers within a second."""
        workers = sum(" worker " in command for command in self.commands.values())
        if workers == 0:
            return True
        try:
            with Celery(broker=self.redis_url) as celery:
                ping = {"reply": True, "timeout": 1.0, "limit": workers}
                return len(celery.control.broadcast("ping", **ping) or []) == workers
        except (KombuError, RedisError, OSError):
            return False

    def answers(self, timeout: float = 2.0) -> bool:
        """Whether `/ping` answers within `timeout` seconds."""
        try:
            return requests.get(f"{self.url}/ping", timeout=timeout).ok
        except requests.RequestException:
            return False

    def stop(self) -> None:
        """Stop every process; safe to call twice."""
        super().stop()
        self._logs.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, none of them twice in this process.

    Nor are they given to another program of ours that runs beside this one: a second notebook, a
    second process of the tests. Below 32768, for the system gives those above to outgoing
    connections: a port found free there may be taken a moment later.
    """
    free = (port for port in _ports if is_ours(port) and not is_open(port))
    return list(itertools.islice(free, count))


_ports = itertools.cycle(random.sample(range(20_000, 32_000), 12_000))
_reserved = (Path(tempfile.gettempdir()) / f"unblocked-ports-{os.getuid()}").open("a")


def is_ours(port: int) -> bool:
    """Reserve a port until this process ends: whoever does not listen at once would lose it.

    The lock is on one byte of a file, which stays empty.
    """
    try:
        fcntl.lockf(_reserved, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def is_open(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as attempt:
        attempt.settimeout(1)
        return attempt.connect_ex((address, port)) == 0


def check_free(name: str, port: int) -> None:
    if is_open(port):
        raise LabError(
            f"Port {port} is taken by another program. Stop that program, or choose another "
            f"port: {name}={port + 1000} make …"
        )


def describe(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
