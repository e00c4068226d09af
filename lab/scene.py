"""Small stages for a trouble: a Redis of its own, a process or two, a few lines of Python."""

import os
import shlex
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from lab.chapters import LabError, Supervised, folder, free_ports, is_open

PATIENCE = 30.0  # seconds
TROUBLED = Path(__file__).parent / "troubled"
"""A folder of small programs with a mistake each."""


def python(place: Path, code: str, **settings: str) -> str:
    """Run these lines in a folder, with `settings` as environment; returns all that they print."""
    code = textwrap.dedent(code).strip()
    print(textwrap.indent(code, "    ") + "\n")
    return command(place, sys.executable, "-c", code, **settings)


def command(place: Path, *arguments: str, **settings: str) -> str:
    """Run a program in a folder to its end, without a terminal; returns all that it prints."""
    done = subprocess.run(
        arguments,
        cwd=place,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2 * PATIENCE,
    )
    return done.stdout


def error_of(call: Callable[[], object]) -> str:
    """The last line of the traceback that a call ends with. Raises LabError if it succeeds."""
    try:
        call()
    except Exception as error:
        return "".join(traceback.format_exception_only(error)).strip()
    raise LabError("This time it went well.")


def until(look: Callable[[], str], seconds: float = PATIENCE) -> str:
    """What `look` returns, once it is not empty. Raises LabError if that does not come."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise LabError(f"The trouble did not come within {seconds:g} s. Try again.")
        time.sleep(0.05)
    return found


@contextmanager
def running(place: Path, commands: dict[str, str], **settings: str) -> Iterator[Supervised]:
    """Run commands in a folder, with `settings` as environment. They are killed with the block."""
    with tempfile.TemporaryDirectory(prefix="unblocked-") as data:
        environment = {**os.environ, "DATA": data, **settings}
        processes = Supervised(commands, place, environment, Path(data))
        try:
            yield processes
        finally:
            for name in list(processes.pids):
                try:
                    processes.hurt(name)
                except LabError:  # it has ended by itself
                    pass
            processes.stop()


@contextmanager
def redis() -> Iterator[str]:
    """A Redis on a free port until the block ends; gives its URL."""
    (port,) = free_ports(1)
    url = f"redis://127.0.0.1:{port}/0"
    server = {"redis": f"{shlex.quote(sys.executable)} redis_server.py"}
    with running(folder("03"), server, REDIS_PORT=str(port), REDIS_URL=url):
        until(lambda: url if is_open(port) else "")
        yield url


def lines(processes: Supervised, name: str, text: str, count: int = 1) -> str:
    """Wait until a process has printed `count` lines with this text, and return those lines.

    Raises LabError, with the log, if they do not come.
    """

    def look() -> str:
        found = [line for line in log(processes, name).splitlines() if text in line]
        return "\n".join(found) if len(found) >= count else ""

    try:
        return until(look)
    except LabError as error:
        raise LabError(f"{error}\n\n{log(processes, name)}") from error


def log(processes: Supervised, name: str) -> str:
    """All that a process has printed."""
    return processes.log(name, lines=10_000)


def get(url: str) -> requests.Response:
    """GET, as soon as somebody answers there. Raises LabError if nobody does."""

    def look() -> str:
        try:
            requests.get(url, timeout=5)
            return url
        except requests.ConnectionError:
            return ""

    return requests.get(until(look), timeout=5)
