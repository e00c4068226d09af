"""The figures of chapter 02: what pushing costs, and what a thread cannot cure."""

import shlex
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pandas as pd
import requests

from lab import experiments, scene
from lab.chapters import Chapter, folder, free_ports, gunicorn, is_open, start
from lab.load import ENDED, addresses, finish, percentile, post, visitor
from lab.results import spread
from lab.waiting import wait_until
from lab.watch import Watcher


def newsletter(chapter: Chapter, recipients: int) -> str:
    """Send a newsletter and return the id of its job."""
    letter = {"subject": "News", "body": "Hello", "recipients": addresses(recipients)}
    return str(post(chapter.url, "/newsletters", letter).json()["id"])


def push_latency(number: str = "02") -> dict[str, Any]:
    """From a step done to its receipt by a client, p50 and p99 of 200 steps, by transport."""
    found: dict[str, dict[str, list[float]]] = {}
    with start(number, MAIL_DELAY=0.12) as chapter:
        for _ in range(5):
            for transport in ("websocket", "polling"):
                with Watcher(chapter.url, transport) as watcher:
                    jobs = [newsletter(chapter, 40) for _ in range(5)]
                    for job in jobs:
                        watcher.watch(job)
                    for job in jobs:
                        watcher.wait_for_end(job)
                waits = pd.Series([receipt.latency * 1000 for receipt in watcher.receipts])
                times = found.setdefault(transport, {"p50": [], "p99": [], "events": []})
                times["p50"].append(percentile(waits, 50))
                times["p99"].append(percentile(waits, 99))
                times["events"].append(len(waits))
    return {t: {name: spread(v) for name, v in times.items()} for t, times in found.items()}


WAYS = {"asking": None, "polling": "polling", "upgrade": "", "websocket": "websocket"}


def requests_per_job() -> dict[str, Any]:
    """HTTP requests that the server gets for one job of 20 mails of 0.2 s, by way of following."""
    return {way: spread([float(count_requests(way)) for _ in range(3)]) for way in WAYS}


def count_requests(way: str) -> int:
    """How many requests following one job takes; `asking` asks for it twice a second."""
    with start("02", **gunicorn("count_requests.py")) as chapter:
        job = newsletter(chapter, 20)
        transport = WAYS[way]
        if transport is None:
            url = f"{chapter.url}/jobs/{job}"
            while requests.get(url, timeout=30).json()["state"] not in ENDED:
                time.sleep(0.5)
        else:
            with Watcher(chapter.url, transport) as watcher:
                watcher.watch(job)
                watcher.wait_for_end(job)
        lines = chapter.log("web", lines=10_000).splitlines()
    return sum("REQUEST /socket.io/" in line or f"REQUEST /jobs/{job}" in line for line in lines)


def fan_out() -> dict[str, Any]:
    """200 clients watch one job: how long until all have an event, and memory per client."""
    clients = 200
    waits, memory = [], []
    for _ in range(3):
        with start("02", THREADS=clients + 20, MAIL_DELAY=0.5) as chapter, ExitStack() as stack:
            before = web_memory(chapter)
            job = newsletter(chapter, 8)
            watchers = [stack.enter_context(Watcher(chapter.url)) for _ in range(clients)]
            memory.append((web_memory(chapter) - before) / clients / 1024)
            for watcher in watchers:
                watcher.watch(job)
            for watcher in watchers:
                watcher.wait_for_end(job)
            last = [watcher.receipts[-1] for watcher in watchers]
            waits.append(max(receipt.latency for receipt in last) * 1000)
    return {"clients": clients, "all_have_it_ms": spread(waits), "kib_a_client": spread(memory)}


def web_memory(chapter: Chapter) -> int:
    """Resident memory of the web process and its workers, in bytes."""
    return sum(process.memory_info().rss for process in chapter.processes("web"))


def visitors_during_reports() -> dict[str, Any]:
    """A visitor's p50 and p99 while 0, 1 and 3 reports run in threads of the web process."""
    found: dict[int, dict[str, list[float]]] = {0: {}, 1: {}, 3: {}}
    for _ in range(5):
        for reports, times in found.items():
            with start("02") as chapter, visitor(chapter.url, rate=20) as visit:
                begin = time.time()
                jobs = [post(chapter.url, "/reports", {"lines": 400_000}) for _ in range(reports)]
                if jobs:
                    for job in jobs:
                        finish(chapter.url, job)
                else:
                    time.sleep(4)
                span = (begin, time.time())
            waits = visit.during(span).latency_ms
            for percent in (50, 99):
                times.setdefault(f"p{percent}", []).append(percentile(waits, percent))
    return {
        str(reports): {name: spread(values) for name, values in times.items()}
        for reports, times in found.items()
    }


SERVERS = {
    "flask run --without-threads": "flask --app async_views run --without-threads --port {port}",
    "flask run": "flask --app async_views run --port {port}",
    "gunicorn, 1 slot": "gunicorn --no-control-socket --bind 127.0.0.1:{port} async_views:app",
    "gunicorn, 10 threads": (
        "gunicorn --no-control-socket --threads 10 --bind 127.0.0.1:{port} async_views:app"
    ),
}


def async_views() -> dict[str, Any]:
    """Ten requests of 0.2 s at once, `def` against `async def`, by server; and `gather` in one."""
    figures: dict[str, Any] = {}
    for label, command in SERVERS.items():
        with serve(command) as url:
            figures[label] = {
                name: spread([ten_at_once(f"{url}/wait/{name}") for _ in range(5)])
                for name in ("sync", "async")
            }
            for name in ("one-by-one", "together"):
                answers = [requests.get(f"{url}/greetings/{name}", timeout=30) for _ in range(5)]
                figures.setdefault("one request", {})[name] = spread(
                    [answer.json()["seconds"] for answer in answers]
                )
    return figures


def ten_at_once(url: str) -> float:
    """Seconds until ten requests that are sent together have all been answered."""
    with ThreadPoolExecutor(10) as pool:
        begun = time.perf_counter()
        for answer in pool.map(lambda _: requests.get(url, timeout=60), range(10)):
            answer.raise_for_status()
        return time.perf_counter() - begun


@contextmanager
def serve(command: str) -> Iterator[str]:
    """Run a server of chapter 02's folder on a free port; gives its URL."""
    (port,) = free_ports(1)
    words = [sys.executable, "-m", *command.format(port=port).split()]
    with scene.running(folder("02"), {"server": shlex.join(words)}):
        wait_until(lambda: is_open(port))
        yield f"http://127.0.0.1:{port}"


def two_workers() -> dict[str, Any]:
    """Of ten clients by each transport, how many hear of a job at two web processes, and at one."""
    figures: dict[str, Any] = {}
    for workers in (1, 2):
        for transport in ("polling", "websocket"):
            with start("02", WORKERS=workers) as chapter:
                heard = sum(connects(chapter, transport) for _ in range(10))
            figures[f"{workers} {transport}"] = heard
    return figures


def connects(chapter: Chapter, transport: str) -> bool:
    """Whether a client can connect, and emit and be answered ten times."""
    try:
        with Watcher(chapter.url, transport) as watcher:
            return all("error" in watcher.watch("nobody") for _ in range(10))
    except Exception:
        return False  # the point: `Invalid session`, or no answer at all


def crash() -> dict[str, Any]:
    """`kill -9` of the web process in the middle of a newsletter, five times."""
    counts = []
    for _ in range(5):
        with start("02", restart=True) as chapter:
            counts.append(experiments.crash(chapter, "web"))
    return {
        "mails": counts[0].due,
        "lost": spread([float(count.lost) for count in counts]),
        "twice": spread([float(count.twice) for count in counts]),
    }
