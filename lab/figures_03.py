"""The figures of chapter 03: what a queue costs, and what it saves when something dies."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import pandas as pd
import requests

from lab import experiments, faults
from lab.chapters import Chapter, folder, gunicorn, start
from lab.load import addresses, finish, percentile, post, visitor
from lab.results import spread

LETTER = {"subject": "News", "body": "Hello", "recipients": addresses(1)}


def fault_table() -> dict[str, Any]:
    """Every fault, five times under Celery's defaults and five times under the chapter's care."""
    rows = list(faults.FAULTS)
    runs: list[dict[str, Any]] = [{"celery_defaults": True, "wait": 20.0}, {}] * 5
    with ThreadPoolExecutor(3) as pool:  # it counts; the seconds come from timeouts, not from load
        tables = list(pool.map(lambda options: faults.hurt_in_turn(rows, **options), runs))
    return {
        row: {
            "defaults": [asdict(table[row]) for table in tables[::2]],
            "chapter": [asdict(table[row]) for table in tables[1::2]],
        }
        for row in rows
    }


def window() -> dict[str, Any]:
    """Mails that are kept but not noted: received twice, without and with deduplication."""
    fault = "mail server keeps every 5th mail, but does not say so"
    found: dict[str, list[float]] = {"without": [], "with": []}
    with faults.victim() as chapter:
        for _ in range(5):
            for name, twice in found.items():
                chapter.mailbox.mend()
                chapter.mailbox.set(deduplicate=name == "with")
                twice.append(float(faults.hurt(chapter, fault).twice))
    return {"mails": 2 * faults.MAILS} | {name: spread(twice) for name, twice in found.items()}


def accepted() -> dict[str, Any]:
    """POST to 202 in ms, and the same for a view that does one Redis write on this server.

    One client asks for the one and the other in turn, 300 times each, in five runs.
    """
    found: dict[str, dict[str, list[float]]] = {"newsletter": {}, "bare": {}}
    with start("03", MAIL_DELAY=0, **gunicorn("bare_view.py")) as chapter:
        for _ in range(5):
            waits: dict[str, list[float]] = {"newsletter": [], "bare": []}
            with requests.Session() as session:
                for _ in range(300):
                    for name, path in (("newsletter", "/newsletters"), ("bare", "/bare")):
                        begun = time.perf_counter()
                        session.post(chapter.url + path, json=LETTER).raise_for_status()
                        waits[name].append((time.perf_counter() - begun) * 1000)
            for name, values in waits.items():
                for percent in (50, 99):
                    times = found[name].setdefault(f"p{percent}", [])
                    times.append(percentile(pd.Series(values), percent))
    figures: dict[str, Any] = {
        name: {part: spread(values) for part, values in times.items()}
        for name, times in found.items()
    }
    for part in ("p50", "p99"):
        pairs = zip(found["newsletter"][part], found["bare"][part], strict=True)
        figures[f"{part} over bare"] = spread([ours / bare for ours, bare in pairs])
    return figures


def throughput() -> dict[str, Any]:
    """Newsletters finished per second over slots / service time, by slots and mail delay."""
    figures = {}
    for delay, slots in ((0.2, 1), (0.2, 4), (0.2, 16), (0.05, 16)):
        with start("03", MAIL_SLOTS=slots) as chapter:
            shares = [
                experiments.throughput(chapter, slots, rounds=8, mail_delay=delay) for _ in range(5)
            ]
        figures[f"{slots} slots, {delay * 1000:.0f} ms"] = spread(shares)
    return figures


def reports(number: str = "03") -> dict[str, Any]:
    """Four reports by two workers over the same by two plain processes, in turn, five times."""
    shares = []
    lines = 400_000
    with start(number) as chapter:
        for _ in range(5):
            plain = plain_processes(lines)
            begun = time.perf_counter()
            answers = [post(chapter.url, "/reports", {"lines": lines}) for _ in range(4)]
            for answer in answers:
                job = finish(chapter.url, answer, every=0.2)
                assert job["result"]["lines"] == lines
            shares.append(plain / (time.perf_counter() - begun))
    return {"of_plain": spread(shares)}


PLAIN = """
import samples, sys, work
for _ in range(2):
    lines = int(sys.argv[1])
    *_, last = work.analyse_log(samples.sample_log(lines), lines)
    assert last.done == lines
"""


def plain_processes(lines: int) -> float:
    """Seconds in which two plain Python processes make four reports."""
    command = [sys.executable, "-c", PLAIN, str(lines)]
    begun = time.perf_counter()
    processes = [subprocess.Popen(command, cwd=folder("03")) for _ in range(2)]
    for process in processes:
        assert process.wait(300) == 0
    return time.perf_counter() - begun


def visitors() -> dict[str, Any]:
    """A visitor's p50 and p99: idle, while newsletters go out, while two reports are made, both."""
    works = {"idle": (0, 0), "16 newsletters": (16, 0), "2 reports": (0, 2), "both": (16, 2)}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in works}
    with start("03") as chapter:
        for _ in range(5):
            for name, (letters, logs) in works.items():
                waits = visit_during(chapter, letters, logs)
                for percent in (50, 99):
                    times = found[name].setdefault(f"p{percent}", [])
                    times.append(percentile(waits, percent))
    return {
        name: {part: spread(values) for part, values in times.items()}
        for name, times in found.items()
    }


def visit_during(chapter: Chapter, letters: int, logs: int) -> "pd.Series[float]":
    letter = LETTER | {"recipients": addresses(15)}
    with visitor(chapter.url, rate=20) as visit:
        begin = time.time()
        answers = [post(chapter.url, "/newsletters", letter) for _ in range(letters)]
        answers += [post(chapter.url, "/reports", {"lines": 150_000}) for _ in range(logs)]
        for answer in answers:
            finish(chapter.url, answer, every=0.2)
        if not answers:
            time.sleep(3)
        span = (begin, time.time())
    return visit.during(span).latency_ms


def memory() -> dict[str, Any]:
    """MiB for each further slot of a worker that is at work, by pool; shared pages count once."""
    return {
        "threads": spread([per_slot("mail", "MAIL_SLOTS", "/newsletters") for _ in range(3)]),
        "prefork": spread([per_slot("report", "REPORT_SLOTS", "/reports") for _ in range(3)]),
    }


def per_slot(worker: str, setting: str, path: str) -> float:
    few, many = 2, 18
    used = []
    for slots in (few, many):
        settings: dict[str, Any] = {setting: slots}
        with start("03", **settings) as chapter:
            body = {"lines": 200_000} if path == "/reports" else LETTER
            chapter.mailbox.set(silent=True)
            jobs = [post(chapter.url, path, body).json()["id"] for _ in range(slots)]
            while any(faults.look_up(chapter, job)["state"] == "PENDING" for job in jobs):
                time.sleep(0.05)
            used.append(chapter.memory(worker))
    return (used[1] - used[0]) / (many - few) / 2**20
