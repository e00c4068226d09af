"""The commands of the lessons print what the lessons show.

A block that begins with ```console is run as a reader runs it, from the top folder. What stands
behind `$ ` is typed, and the lines below it must come back:

- `…` stands for anything in its line, and alone in a line for any number of lines.
- `…` as the last line says that the program goes on: it is left running, in a terminal of its own.
- `<id>` in a command is the id that came back last.

A command that changes nothing is given again until the answer is there: a job takes its time.
Other blocks are for the eye, and not run.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.chapters import PORTS, Supervised, chapters, folder, free_ports, is_open
from lab.waiting import wait_until

from .conftest import ROOT

USUAL = {**PORTS, "LOCUST_PORT": 8089, "ASYNC_VIEWS_PORT": 8001}
"""Every port that a lesson names. (The last one is only an argument, and no variable.)"""

PATIENCE = 60.0  # seconds until a command must have printed what the lesson shows
BIN = Path(sys.executable).parent
# With this environment, and without setting one up: it is there, for these tests run in it.
MAKE = f"make --no-print-directory --old-file .venv/.tour NODE= BIN={BIN} "
BLOCK = re.compile(r"^( *)```console\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
CHANGES = re.compile(r"make (\d\d|load|kill|fault)\b| -X | --json | -F ")
ID = re.compile(r'"id":"([^"]+)"')

each = pytest.mark.parametrize("number", chapters())


@dataclass(frozen=True)
class Command:
    """What a lesson has its reader type, and the lines that it shows below."""

    text: str
    shows: tuple[str, ...]

    @property
    def goes_on(self) -> bool:
        return self.shows[-1:] == ("…",)

    @property
    def asks(self) -> bool:
        """Whether it changes nothing, so that it may be given again."""
        return CHANGES.search(self.text) is None


def commands(lesson: str) -> list[Command]:
    """The commands of all blocks that are run, in order."""
    found: list[Command] = []
    for _, block in BLOCK.findall(lesson):
        before, *parts = re.split(r"^\$ ", textwrap.dedent(block), flags=re.MULTILINE)
        assert before == "", f"A block must begin with a command:\n{block}"
        for part in parts:
            text, *shows = part.splitlines()
            found.append(Command(text, tuple(shows)))
    return found


def commands_of(number: str) -> list[Command]:
    return commands((folder(number) / "README.md").read_text())


def pattern(shows: Iterable[str]) -> re.Pattern[str]:
    """What `tidy` output must look like, as a whole."""
    lines = [
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"\n"
        for line in shows
    ]
    return re.compile("".join(lines))


def tidy(printed: str) -> str:
    """Each line with an end, and no spaces before it."""
    return "".join(f"{line.rstrip()}\n" for line in printed.splitlines())


def look(at: Callable[[], str], wanted: re.Pattern[str]) -> str:
    """What is printed, as soon as it is as wanted, or when our patience is at an end."""
    deadline = time.monotonic() + PATIENCE
    while not wanted.fullmatch(printed := at()) and time.monotonic() < deadline:
        time.sleep(0.4)
    return printed


class Terminals:
    """As many terminals as a reader opens, on ports and in folders that nobody else uses."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.ports = dict(zip(USUAL.values(), free_ports(len(USUAL)), strict=True))
        self.left_running: list[Supervised] = []
        self.last_id = ""
        # In a terminal curl shows no progress.
        (place / ".curlrc").write_text("silent\nshow-error\nmax-time = 30\n")
        not_ours = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "REDIS_URL")
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in not_ours},
            **{name: str(self.ports[usual]) for name, usual in USUAL.items()},
            "CURL_HOME": str(place),
            "DATA": str(place / "data"),
            "LAB_RUNNING": str(place / "running.json"),
            "COLUMNS": "200",  # so that no line is broken
            "RETRY_AFTER": "0.1",  # nobody here has half a minute
            "LOOK_EVERY": "1",
        }

    def enter(self, command: Command) -> None:
        """Type a command; AssertionError if it does not print what the lesson shows."""
        text = self.to_type(command.text)
        wanted = pattern(self.on_our_ports(line) for line in command.shows)
        if command.goes_on:
            program = self.leave_running(text)
            printed = look(lambda: tidy(program.log("it", 100_000)), wanted)
        elif command.asks:
            printed = look(lambda: self.run(text), wanted)
        else:
            printed = self.run(text)
        assert wanted.fullmatch(printed), f"$ {command.text}\n{printed}"
        self.last_id = (ID.findall(printed) or [self.last_id])[-1]

    def to_type(self, text: str) -> str:
        text = self.on_our_ports(text).replace("<id>", self.last_id)
        return text.replace(".venv/bin/", f"{BIN}/").replace("make ", MAKE)

    def on_our_ports(self, text: str) -> str:
        """Its ports are those of a lesson; KeyError if it names one that `USUAL` has not."""
        return re.sub(
            r"(127\.0\.0\.1:|--port )(\d+)", lambda m: f"{m[1]}{self.ports[int(m[2])]}", text
        )

    def run(self, text: str) -> str:
        """What a command prints until it ends."""
        done = subprocess.run(
            ["/bin/sh", "-c", text],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return tidy(done.stdout) + (f"exit code {done.returncode}\n" if done.returncode else "")

    def leave_running(self, text: str) -> Supervised:
        """Start a program that goes on; it ends at the latest when these tests do."""
        logs = self.place / f"terminal_{len(self.left_running)}"
        logs.mkdir()
        program = Supervised({"it": f"env {text}"}, ROOT, self.environment, logs)
        self.left_running.append(program)
        return program

    def close(self) -> None:
        """Ctrl-C in each. It "stops everything"."""
        for program in reversed(self.left_running):
            try:
                interrupt(program)
            finally:
                program.stop()
        wait_until(lambda: not any(is_open(port) for port in self.ports.values()), 30)


def interrupt(program: Supervised) -> None:
    """Ctrl-C, unless the program has ended by itself."""
    try:
        os.killpg(program.pids["it"], signal.SIGINT)
    except (KeyError, ProcessLookupError):
        return
    wait_until(lambda: "it" in program.ended, 30)


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    terminals = Terminals(tmp_path)
    yield terminals
    terminals.close()


@pytest.mark.timeout(300)
@each
def test_the_commands_of_a_lesson_print_what_it_shows(number: str, terminals: Terminals) -> None:
    if shutil.which("curl") is None:
        pytest.skip("No curl on PATH. On Debian or Ubuntu: apt-get install curl")
    for command in commands_of(number):
        terminals.enter(command)


@each
def test_a_lesson_begins_by_starting_its_chapter(number: str) -> None:
    first, *others = commands_of(number)
    assert first.text in (f"make {number}", f"make load CHAPTER={number}")
    assert first.goes_on
    assert others


# --- The walk itself ------------------------------------------------------------------

LESSON = """
A block for the eye:

```
make never
```

One that is run:

```console
$ make 01
Starting …

…
```

1. And two commands in a list:

   ```console
   $ curl 127.0.0.1:8000/ping
   pong
   $ make kill NAME=web
   ```
"""


def test_only_blocks_of_the_right_kind_are_run() -> None:
    start, ask, kill = commands(LESSON)
    assert start == Command("make 01", ("Starting …", "", "…"))
    assert ask == Command("curl 127.0.0.1:8000/ping", ("pong",))
    assert kill == Command("make kill NAME=web", ())
    assert [command.goes_on for command in (start, ask, kill)] == [True, False, False]
    assert [command.asks for command in (start, ask, kill)] == [False, True, False]


@pytest.mark.parametrize(
    ("printed", "is_right"),
    [
        ("{x}\nlast: 2 of 3\n", True),
        ("{x}\nmore\nand more\nlast: 2 of 3\n", True),
        ("{x}\nlast: 1 of 3\n", False),
        ("{x}\nlast: 2 of 3\nand more\n", False),
        ("last: 2 of 3\n", False),
        ("", False),
    ],
)
def test_only_dots_stand_for_something_else(printed: str, is_right: bool) -> None:
    wanted = pattern(["{…}", "…", "last: 2 of …"])
    assert (wanted.fullmatch(printed) is not None) == is_right


def test_a_lesson_that_is_wrong_is_noticed(
    terminals: Terminals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PATIENCE", 0.0)
    terminals.enter(Command("echo one", ("one",)))
    wrong_ones: list[tuple[str, ...]] = [(), ("two",), ("one", "two"), ("two", "…")]
    for wrong in wrong_ones:
        with pytest.raises(AssertionError, match="echo one"):
            terminals.enter(Command("echo one", wrong))
    with pytest.raises(AssertionError, match="exit code 3"):
        terminals.enter(Command("echo one; exit 3", ("one",)))


def test_ids_and_ports_are_put_into_a_command(terminals: Terminals) -> None:
    terminals.enter(Command("""echo '{"id":"a-1"} {"id":"b-2"}'""", ("{…}",)))
    port = terminals.ports[8000]
    assert terminals.to_type("curl 127.0.0.1:8000/jobs/<id>") == f"curl 127.0.0.1:{port}/jobs/b-2"
    with pytest.raises(KeyError):
        terminals.to_type("curl 127.0.0.1:9999/ping")
