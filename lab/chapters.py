"""Start a chapter from its Procfile, wait until it answers, hurt it, stop it."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import requests
from honcho.environ import parse_procfile

from lab.mailbox import Mailbox

ROOT = Path(__file__).resolve().parent.parent
PORTS = {"PORT": 8000, "SMTP_PORT": 8025, "MAILBOX_PORT": 8026}
"""Every port a chapter listens on: the environment variable and its default."""


class LabError(Exception):
    """Something is not as the lab needs it; the message says what to do."""


def chapters() -> list[str]:
    """The numbers of the chapters that exist, in order: `["01", "02", …]`."""
    return sorted(path.name[:2] for path in ROOT.glob("0[1-5]_*") if (path / "Procfile").exists())


def folder(number: str) -> Path:
    """The folder of chapter `number`. Raises LabError for one that does not exist."""
    for path in ROOT.glob(f"{number}_*"):
        return path
    raise LabError(f"There is no chapter {number!r}. There are: {', '.join(chapters())}.")


def start(
    number: str, *, fixed_ports: bool = False, restart: bool = False, **settings: Any
) -> "Chapter":
    """Start a chapter and return it once it answers; use it as a context manager.

    `settings` become environment variables (`THREADS=4`). With `restart`, a process that
    ends is started again after half a second. With `fixed_ports` the chapter takes its
    usual ports (8000 …), else free ones, so any number can run side by side.
    Raises LabError, with the last lines of the log, if a process ends before it is ready.
    """
    ports = {name: int(os.environ.get(name, port)) for name, port in PORTS.items()}
    if fixed_ports:
        for name, port in ports.items():
            check_free(name, port)
    else:
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    return Chapter(folder(number), ports, restart, {k: str(v) for k, v in settings.items()})


class Chapter:
    """A running chapter.

    Attributes: `number` ("01"), `url` (of its web process), `mailbox` (what its mail server
    received), `logs` (a folder with one file for each process).
    """

    def __init__(
        self, path: Path, ports: dict[str, int], restart: bool, settings: dict[str, str]
    ) -> None:
        self.number = path.name[:2]
        self.path = path
        self.url = f"http://127.0.0.1:{ports['PORT']}"
        self.mailbox = Mailbox(f"http://127.0.0.1:{ports['MAILBOX_PORT']}")
        self.ports = ports
        self.ended: dict[str, int] = {}
        self.pids: dict[str, int] = {}
        self._logs = tempfile.TemporaryDirectory(prefix="unblocked-")
        self.logs = Path(self._logs.name)
        self.commands = dict(
            parse_procfile((path / "Procfile").read_text()).processes  # type: ignore[no-untyped-call]
        )
        self._start(restart, settings)

    def _start(self, restart: bool, settings: dict[str, str]) -> None:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            **{name: str(port) for name, port in self.ports.items()},
            **settings,
        }
        self._supervisor = subprocess.Popen(
            [sys.executable, "-m", "lab.supervisor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self.path,
            env=environment,
            text=True,
            start_new_session=True,
        )
        self.supervisor_pid = self._supervisor.pid
        order = {"commands": self.commands, "logs": str(self.logs), "restart": restart}
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.write(json.dumps(order) + "\n")
        self._supervisor.stdin.flush()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            self.wait_until_ready(ends_are_fatal=True)
        except BaseException:
            self.stop()
            raise

    def _listen(self) -> None:
        assert self._supervisor.stdout is not None
        for line in self._supervisor.stdout:
            event = json.loads(line)
            if event["event"] == "started":
                self.pids[event["name"]] = event["pid"]
            else:
                self.pids.pop(event["name"], None)
                self.ended[event["name"]] = event["code"]

    def wait_until_ready(self, timeout: float = 30.0, ends_are_fatal: bool = False) -> None:
        """Wait until every port takes connections and `/ping` answers.

        Raises LabError after `timeout` seconds, or at once, with `ends_are_fatal`, if a
        process ends.
        """
        deadline = time.monotonic() + timeout
        while not (all(is_open(port) for port in self.ports.values()) and self.answers()):
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

    def answers(self, timeout: float = 2.0) -> bool:
        """Whether `/ping` answers within `timeout` seconds."""
        try:
            return requests.get(f"{self.url}/ping", timeout=timeout).ok
        except requests.RequestException:
            return False

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
        self._logs.cleanup()

    def __enter__(self) -> "Chapter":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def is_open(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.settimeout(1)
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def check_free(name: str, port: int) -> None:
    if is_open(port):
        raise LabError(
            f"Port {port} is taken by another program. Stop that program, or choose another "
            f"port: {name}={port + 1000} make …"
        )


def describe(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
