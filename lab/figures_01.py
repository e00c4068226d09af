"""The figures of chapter 01: slots, waiting and computing."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lab import experiments
from lab.chapters import LabError, folder, start
from lab.load import percentile, send_newsletter, visitor
from lab.results import spread


def slots() -> dict[str, Any]:
    """Throughput over slots / service time at 1, 4 and 16 threads, five times in turn."""
    found: dict[int, list[float]] = {1: [], 4: [], 16: []}
    for _ in range(5):
        for count, ratios in found.items():
            with start("01", THREADS=count) as chapter:
                ratios.append(experiments.throughput(chapter, count))
    return {str(count): spread(ratios) for count, ratios in found.items()}


def one_connection() -> dict[str, Any]:
    """Mails per second on one connection, over 1 / delay, at 50 and 200 ms a mail."""
    found: dict[float, list[float]] = {0.05: [], 0.2: []}
    mails = 40
    with start("01") as chapter:
        for _ in range(5):
            for delay, ratios in found.items():
                chapter.mailbox.set(delay=delay)
                begun = time.perf_counter()
                send_newsletter(chapter.url, mails)
                ratios.append(mails * delay / (time.perf_counter() - begun))
    return {f"{delay * 1000:.0f}": spread(ratios) for delay, ratios in found.items()}


SERVERS: dict[str, dict[str, Any]] = {
    "one slot": {"THREADS": 1},
    "four threads": {"THREADS": 4},
    "two processes": {"WORKERS": 2},
}


def visitors() -> dict[str, Any]:
    """A visitor's p50 and p99 idle, during a newsletter and during a report, by server."""
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(5):
        for label, settings in SERVERS.items():
            times = found.setdefault(label, {})
            with start("01", MAIL_DELAY=0.1, **settings) as chapter:
                with visitor(chapter.url, rate=20) as visit:
                    time.sleep(4)
                beat = experiments.heartbeat(chapter, lines=400_000)
            for name, waits in (
                ("idle", visit.rows),
                ("newsletter", beat.visit.during(beat.newsletter)),
                ("report", beat.visit.during(beat.report)),
            ):
                for percent in (50, 99):
                    wait = percentile(waits.latency_ms, percent)
                    times.setdefault(f"{name} p{percent}", []).append(wait)
    return {
        label: {name: spread(values) for name, values in times.items()}
        for label, times in found.items()
    }


# On Linux ru_maxrss also counts what the parent had before the exec; VmHWM does not.
ANALYSE = """
import json, resource, sys, time
from work import analyse_log, count_lines, read_lines
begun = time.perf_counter()
with open(sys.argv[1], "rb") as log:
    for step in analyse_log(read_lines(log), count_lines(log)):
        pass
seconds = time.perf_counter() - begun
try:
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    memory = int(status["VmHWM"].split()[0]) / 2**10
except FileNotFoundError:  # macOS
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"lines": step.done, "seconds": seconds, "memory": memory}))
"""

WRITE = """
import sys
from samples import sample_log
with open(sys.argv[1], "w") as log:
    log.writelines(sample_log(int(sys.argv[2])))
"""


def log_growth() -> dict[str, Any]:
    """Lines per second and peak memory (MiB) of `analyse_log`, from 10⁴ to 10⁶ lines."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for lines in (10_000, 100_000, 1_000_000):
            log = Path(place) / "access.log"
            python_in_01(WRITE, str(log), str(lines))
            runs = [json.loads(python_in_01(ANALYSE, str(log))) for _ in range(5)]
            if {run["lines"] for run in runs} != {lines}:
                raise LabError(f"The runs did not read the same {lines} lines: {runs}")
            figures[str(lines)] = {
                "lines_per_second": spread([lines / run["seconds"] for run in runs]),
                "memory_mib": spread([run["memory"] for run in runs]),
            }
    return figures


def python_in_01(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, cwd=folder("01"), check=True, capture_output=True, text=True
    ).stdout
