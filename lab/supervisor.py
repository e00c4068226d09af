"""Keep one chapter's processes running until the caller is gone.

`lab.start` runs this as a child and holds its standard input. The first line says what
to run, as JSON; the end of the input, which comes when the caller closes it or is
killed, means stop. Events go to standard output, one JSON object a line.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

GRACE = 5.0  # seconds between SIGTERM and SIGKILL
NEEDED = ("redis", "mailserver")


class Supervisor:
    """Starts each process in a group of its own, so that it can be ended with all its children."""

    def __init__(
        self, commands: dict[str, str], logs: Path, restart_after: dict[str, float]
    ) -> None:
        self.commands = commands
        self.logs = logs
        self.restart_after = restart_after
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.stopping = threading.Event()

    def start(self, name: str) -> None:
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {self.commands[name]}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running[name] = process
        report(event="started", name=name, pid=process.pid)

    def watch(self) -> None:
        """Restart what ends, after a while, until told to stop."""
        due: dict[str, float] = {}
        while not self.stopping.wait(0.05):
            for name in [name for name, at in due.items() if time.monotonic() >= at]:
                del due[name]
                self.start(name)
            for name, process in list(self.running.items()):
                if process.poll() is not None:
                    report(event="ended", name=name, code=process.returncode)
                    del self.running[name]
                    signal_group(process.pid, signal.SIGKILL)
                    if name in self.restart_after:
                        due[name] = time.monotonic() + self.restart_after[name]

    def stop(self) -> None:
        """Stop all: first those that work, then what they need in order to stop."""
        for needed in (False, True):
            self.stop_those([p for name, p in self.running.items() if (name in NEEDED) == needed])

    def stop_those(self, processes: "list[subprocess.Popen[bytes]]") -> None:
        for process in processes:
            signal_group(process.pid, signal.SIGTERM)
            signal_group(process.pid, signal.SIGCONT)  # a frozen process cannot obey
        deadline = time.monotonic() + GRACE
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
            signal_group(process.pid, signal.SIGKILL)
            process.wait()


def signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):  # macOS says "permission" for a dead group
        pass


def report(**event: Any) -> None:
    try:
        print(json.dumps(event), flush=True)
    except BrokenPipeError:
        pass


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The caller decides when to stop. (Not SIG_IGN: the children would inherit that.)
        signal.signal(number, lambda *_: None)
    order = json.loads(sys.stdin.readline())
    supervisor = Supervisor(order["commands"], Path(order["logs"]), order["restart_after"])
    for name in order["commands"]:
        supervisor.start(name)
    watcher = threading.Thread(target=supervisor.watch)
    watcher.start()
    sys.stdin.read()
    supervisor.stopping.set()
    watcher.join()
    supervisor.stop()


if __name__ == "__main__":
    main()
