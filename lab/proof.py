"""`make test`: every test, in two parts, and one summary of both that a person can act on.

Most tests run beside each other, several at a time. Those that time something (`alone`) come
after them, one by one. A failure in the first part does not keep the second from running.
"""

import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.chapters import ROOT

FOLDER = ROOT / ".lab" / "tests"
PROCESSES = 4  # most tests wait for something: on two cores, more than two are under way
PARTS = {
    "together": ("not alone", "--numprocesses", str(PROCESSES), "--dist", "loadgroup"),
    "alone": ("alone",),
}
"""Each part by its name: which tests it has, as pytest's `-m` takes it, and how they run."""

MARK = "mark.alone"  # no other file is read for the second part: that takes seconds

CHAPTERS_OWN = "tests/test_chapters.py"
"""Its tests run a chapter's own tests, which are counted instead of them."""


@dataclass(frozen=True)
class Case:
    """One test that was run: `outcome` is "passed", "failed" or "skipped", `words` says why."""

    file: str
    name: str
    seconds: float
    outcome: str
    words: str


def run(everything: bool) -> int:
    """Run both parts and print the summary. Returns 1 if a test failed, or a part ran none."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "chapters").mkdir(parents=True)
    begun = time.monotonic()
    codes = [run_part(name, everything) for name in PARTS]
    cases = read_all()
    print(summary(cases, time.monotonic() - begun))
    failed = any(case.outcome == "failed" for case in cases)
    return 1 if failed or any(codes) else 0


def run_part(name: str, everything: bool) -> int:
    """Run one part: what pytest prints goes to the terminal and to a log. Returns its exit code."""
    marked, *options = PARTS[name]
    if not everything:
        marked += " and not long"
    command = [sys.executable, "-m", "pytest", "-m", marked, *options]
    command += [f"--junitxml={FOLDER / name}.xml"]
    if name == "alone":
        command += [str(path) for path in tests() if MARK in path.read_text()]
    # Several hundred processes are started: with this variable each compiles its files anew.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with (
        (FOLDER / f"{name}.log").open("wb") as log,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):
        assert process.stdout is not None
        while block := os.read(process.stdout.fileno(), 1 << 16):
            sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
            log.write(block)
    return process.returncode


def tests() -> list[Path]:
    """The files in which pytest looks for tests."""
    return sorted((ROOT / "tests").glob("test_*.py"))


def read_all() -> list[Case]:
    """Every test of the last run. A chapter's own tests stand for the one that ran them."""
    cases = [case for path in sorted(FOLDER.rglob("*.xml")) for case in read(path)]
    return [case for case in cases if case.file != CHAPTERS_OWN or case.outcome == "failed"]


def read(path: Path) -> Iterator[Case]:
    """The tests in a file of JUnit's form."""
    for case in ElementTree.parse(path).iter("testcase"):  # noqa: S314  (pytest has written it)
        found = {child.tag: child.get("message") or "" for child in case}
        words = next((found[tag] for tag in ("failure", "error", "skipped") if tag in found), "")
        outcome = "skipped" if "skipped" in found else "failed" if words else "passed"
        if {"failure", "error"} & set(found):
            outcome = "failed"
        file = case.get("classname", "").replace(".", "/") + ".py"
        seconds = float(case.get("time", "0"))
        name = case.get("name", "").partition("@")[0]  # behind it stands with whom it shares
        yield Case(file, name, seconds, outcome, words)


def summary(cases: Iterable[Case], seconds: float) -> str:
    """What failed, what was skipped and why, how long it took, where to read on."""
    cases = list(cases)
    counts = Counter(case.outcome for case in cases)
    parts = [""]
    if counts["failed"]:
        parts += ["Failed:", *(describe(case) for case in cases if case.outcome == "failed"), ""]
    if counts["skipped"]:
        reasons = Counter(case.words for case in cases if case.outcome == "skipped")
        parts += ["Skipped:", *(f"  {count} × {why}" for why, count in reasons.items()), ""]
    parts += [
        f"{int(seconds) // 60}:{int(seconds) % 60:02} minutes. All that was printed: "
        f"{FOLDER.relative_to(ROOT)}/. Where the time went: make test-times",
        f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped",
    ]
    return "\n".join(parts)


def describe(case: Case) -> str:
    first = case.words.strip().partition("\n")[0]
    return f"  {case.file}::{case.name}\n      {first[:200]}"


def times() -> str:
    """Where the time of the last run went: by file, then the slowest tests."""
    cases = read_all()
    if not cases:
        return "No test has been run here yet: make test"
    seconds: dict[str, list[float]] = {}
    for case in cases:
        seconds.setdefault(case.file, []).append(case.seconds)
    by_sum = sorted(seconds.items(), key=lambda item: sum(item[1]), reverse=True)
    lines = ["seconds  tests  file"]
    lines += [f"{sum(each):7.1f}  {len(each):5}  {file}" for file, each in by_sum]
    slowest = sorted(cases, key=lambda case: case.seconds, reverse=True)[:30]
    lines += ["", "seconds  test"]
    lines += [f"{case.seconds:7.1f}  {case.file}::{case.name}" for case in slowest]
    return "\n".join(lines)
