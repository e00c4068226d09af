"""The figures of chapter 05: where each chapter's limit is, and what moves it."""

import http.client
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
from matplotlib.figure import Figure
from redis import Redis

from lab import experiments, figures_03, figures_hosts, knee, outages, plots
from lab.chapters import Chapter, gunicorn, start
from lab.load import ENDED, addresses, crowd, finish, locust_rows, percentile, post, visitor
from lab.results import spread
from lab.waiting import wait_until

SLOTS = 16
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "01, four slots": ("01", {"THREADS": 4}),
    "01, 16 slots": ("01", {"THREADS": SLOTS}),
    "02": ("02", {"JOB_SLOTS": SLOTS}),
    "03": ("03", {"MAIL_SLOTS": SLOTS}),
    "04": ("04", {"MAIL_SLOTS": SLOTS}),
    "05": ("05", {"MAIL_SLOTS": SLOTS, "LONGEST_WAIT": 0.75}),
}
"""The rows of the comparison: chapter and settings."""

FIRST = {"visit": 500.0, "newsletter": SLOTS / 2**0.5, "report": 8.0}
"""Arrivals a second with which the search for each knee begins; with fewer slots, with less."""


def comparison() -> dict[str, Any]:
    """Every chapter under the same load: its knees; for newsletters, also what is around them."""
    found: dict[str, Any] = {}
    for label, (number, settings) in ROWS.items():
        found[label] = {}
        for kind, promise in knee.PROMISES.items():
            with start(number, **settings) as chapter:
                warm_up(chapter)
                slots = settings.get("THREADS", SLOTS)
                first = FIRST[kind] * (slots / SLOTS if kind == "newsletter" else 1)
                edge = knee.find(chapter, promise, first, seconds=8)
                found[label][kind] = {"kept": round(edge.kept, 2), "broken": round(edge.broken, 2)}
                found[label][kind]["unsent"] = edge.unsent
                if kind == "newsletter":
                    found[label][kind] |= around(chapter, promise, edge.kept)
    return found


def draw_comparison(figures: dict[str, Any]) -> Figure:
    """The knee of each chapter: solid what was kept, pale up to what was not."""
    picture, grid = plots.figure(columns=len(FIRST), width=13, height=4)
    titles = {"visit": "visits", "newsletter": "newsletters", "report": "reports"}
    labels = list(figures)[::-1]
    for axes, kind in zip(grid[0], FIRST, strict=True):
        kept = [figures[label][kind]["kept"] for label in labels]
        broken = [figures[label][kind]["broken"] for label in labels]
        axes.barh(labels, broken, color=plots.SKY, alpha=0.5)
        axes.barh(labels, kept, color=plots.BLUE)
        axes.set_title(titles[kind])
        axes.set_xlabel("arrivals a second")
        if kind != "visit":
            axes.set_yticklabels([])
    return picture


def warm_up(chapter: Chapter) -> None:
    letter = {"subject": "News", "body": "Hello", "recipients": addresses(1)}
    for _ in range(3):
        finish(chapter.url, post(chapter.url, "/newsletters", letter))
        finish(chapter.url, post(chapter.url, "/reports", {"lines": 1000}))


def around(chapter: Chapter, promise: knee.Promise, rate: float, seconds: float = 15.0) -> Any:
    """Median wait at half the knee; the part kept in time at twice the knee; seconds to recover."""
    if rate == 0:
        return {"half_ms": None, "beyond": None, "recovery": None}
    half = crowd(chapter.url, promise.kind, rate / 2, max(seconds, 40 / rate))
    beyond = crowd(chapter.url, promise.kind, 2 * rate, seconds)
    return {
        "half_ms": round(knee.typical(promise, half), 1),
        "beyond": round(knee.goodput(promise, beyond, seconds) / rate, 3),
        "recovery": round(recovery(chapter, promise, rate), 1),
    }


def recovery(chapter: Chapter, promise: knee.Promise, rate: float) -> float:
    """Twice the knee for eight seconds, beside half of it: how long after that is all well again?

    Seconds from the spike's end until no later arrival waits longer than was promised.
    """
    spike, before, after = 8.0, 3.0, 20.0
    with ThreadPoolExecutor() as pool:
        steady = pool.submit(crowd, chapter.url, promise.kind, rate / 2, before + spike + after)
        time.sleep(before)
        crowd(chapter.url, promise.kind, 2 * rate, spike)
        rows = steady.result()
    arrivals = rows[rows.name == promise.row]
    late = arrivals[(arrivals.latency_ms > promise.ms) | arrivals.error.notna()]
    end = rows.start.min() + before + spike
    return max(0.0, float(late.start.max() - end)) if len(late) else 0.0


def open_and_closed() -> dict[str, Any]:
    """Both kinds of visitors on one server at the same time, which stands still for two seconds."""
    stall, rate = 2.0, 50
    found: dict[str, list[float]] = {"closed": [], "open": []}
    with start("05") as chapter:
        for _ in range(5):
            for name, rows in experiments.stall(
                chapter, "web", stall, seconds=14, rate=rate
            ).items():
                found[name].append(percentile(rows.latency_ms, 99))
    return {"stall": stall, "rate": rate} | {name: spread(values) for name, values in found.items()}


# --- The cures ------------------------------------------------------------------------


def fan_out() -> dict[str, Any]:
    """A newsletter of 2 000 mails of 0.2 s on 16 slots: in one task, and in batches.

    Over its limit, mails × delay / slots. While it goes out, short newsletters come: how long
    does one wait for its first mail, at the 95th percentile?
    """
    mails, delay = 2000, 0.2
    limit = mails * delay / SLOTS
    with start("05", MAIL_SLOTS=SLOTS, MAIL_DELAY=delay) as chapter:
        after = [one_long(chapter, mails) for _ in range(3)]
    with start("05", MAIL_SLOTS=SLOTS, MAIL_DELAY=delay, BATCH=mails) as chapter:
        before = one_long(chapter, mails)
    return {
        "mails": mails,
        "limit": limit,
        "before": {"seconds": round(before[0], 1), "short p95": round(before[1], 2)},
        "after": {
            "over limit": spread([seconds / limit for seconds, _ in after]),
            "short p95": spread([wait for _, wait in after]),
        },
    }


def one_long(chapter: Chapter, mails: int) -> tuple[float, float]:
    """Seconds until a long newsletter is sent; and the p95 of the waits of twenty short ones."""
    chapter.mailbox.empty()
    begun = time.monotonic()
    letter = {"subject": "News", "body": "Hello", "recipients": addresses(mails)}
    answer = post(chapter.url, "/newsletters", letter)
    short = {**letter, "recipients": addresses(1)}
    sent: dict[str, float] = {}
    for _ in range(20):
        time.sleep(1.0)
        at = time.time()
        sent[post(chapter.url, "/newsletters", short).json()["id"]] = at
    job = finish(chapter.url, answer, timeout=600, every=0.1)
    seconds = time.monotonic() - begun
    assert job["result"]["sent"] == mails
    wait_until(lambda: all(chapter.mailbox.messages(each) for each in sent))
    waits = [chapter.mailbox.messages(each)[0]["received"] - at for each, at in sent.items()]
    return seconds, percentile(pd.Series(waits), 95)


def overload() -> dict[str, Any]:
    """Twice the arrivals that 16 slots can serve, with and without a bound on the queue's age."""
    promise, seconds, rate = knee.PROMISES["newsletter"], 30.0, 2.0 * SLOTS
    bounds = {"without": 1e9, "with": 0.75}
    found: dict[str, dict[str, list[float]]] = {
        name: {"goodput": [], "p95": [], "turned away": []} for name in bounds
    }
    for _ in range(3):
        for name, bound in bounds.items():
            settings: dict[str, Any] = {
                "MAIL_SLOTS": SLOTS,
                "LONGEST_WAIT": bound,
                "MOST_WAITING": 10**6,
            }
            with start("05", **settings) as chapter:
                warm_up(chapter)
                rows = crowd(chapter.url, "newsletter", rate, seconds)
            served = rows[(rows.name == promise.row) & rows.error.isna()]
            refused = ((rows.name == "newsletter accepted") & (rows.status == 429)).sum()
            arrivals = (rows.name == "own delay").sum()
            found[name]["goodput"].append(knee.goodput(promise, rows, seconds) / SLOTS)
            found[name]["p95"].append(percentile(served.latency_ms, 95) / 1000)
            found[name]["turned away"].append(float(refused / arrivals))
    return {
        "rate": rate,
        "limit": SLOTS,
        "promise": promise.ms / 1000,
        "bound": bounds["with"],
    } | {
        name: {key: spread(values) for key, values in table.items()}
        for name, table in found.items()
    }


def web_processes() -> dict[str, Any]:
    """Two web processes over one: visits and submits a second, from eight clients.

    Only the web processes and Redis are at work.
    """
    found: dict[str, list[float]] = {"visits": [], "submits": []}
    with ExitStack() as stack:
        one, two = (stack.enter_context(start("05", **quiet, WORKERS=n)) for n in (1, 2))
        for chapter in (one, two):
            leave_alone(chapter)
        for _ in range(5):
            for name, method, path in (
                ("visits", "GET", "/ping"),
                ("submits", "POST", "/newsletters"),
            ):
                rates = [hammer(chapter, method, path) for chapter in (one, two)]
                found[name].append(rates[1] / rates[0])
                settle(one, two)
    return {name: spread(values) for name, values in found.items()}


def submits() -> dict[str, Any]:
    """`POST /newsletters` over a view with one Redis write, on the same server.

    Submits a second from eight clients; the median wait at half of that rate; and submits a second
    over those without hiredis, and over those with Celery's results. Only the web process and
    Redis are at work.
    """
    found: dict[str, list[float]] = {"rate": [], "half p50": [], "hiredis": [], "results kept": []}
    with ExitStack() as stack:
        chapter, plain, keeping = (
            stack.enter_context(start("05", **quiet, **gunicorn(name)))
            for name in ("bare_view.py", "without_hiredis.py", "keep_results.py")
        )
        for each in (chapter, plain, keeping):
            leave_alone(each)
        for _ in range(7):
            rates = {}
            for path in ("/newsletters", "/bare"):
                rates[path] = hammer(chapter, "POST", path)
                settle(chapter)
            found["rate"].append(rates["/newsletters"] / rates["/bare"])
            for name, other in (("hiredis", plain), ("results kept", keeping)):
                rate = hammer(other, "POST", "/newsletters")
                settle(other)
                found[name].append(rates["/newsletters"] / rate)
            half = rates["/newsletters"] / 2
            waits = {}
            for path in ("/newsletters", "/bare"):
                waits[path] = paced(chapter, path, half)
                settle(chapter)
            found["half p50"].append(waits["/newsletters"] / waits["/bare"])
    return {name: spread(values) for name, values in found.items()}


quiet: dict[str, Any] = {
    "MAIL_DELAY": 0,
    "MAIL_SLOTS": 1,
    "LONGEST_WAIT": 1e9,
    "MOST_WAITING": 10**6,
}
"""Settings for what the web process alone can do: no bound."""


def leave_alone(chapter: Chapter) -> None:
    """Freeze all but the web process and Redis: on these cores they would be its rivals."""
    hammer(chapter, "POST", "/newsletters", 2)
    for name in ("mail", "report", "beat", "flower"):
        chapter.hurt(name, "SIGSTOP")
    settle(chapter)


def settle(*chapters: Chapter) -> None:
    """Throw away what waits in the queue: it would be the next measurement's load."""
    for chapter in chapters:
        store = Redis.from_url(chapter.redis_url)
        for key in ("mail", "jobs:open", "bare"):
            store.delete(key)
    time.sleep(0.5)


LETTER = json.dumps({"subject": "News", "body": "Hello", "recipients": addresses(1)})


def client(url: str, method: str, path: str, seconds: float, every: float) -> list[float]:
    """One client on one connection: asks, waits for the answer, asks again. Returns its waits, ms.

    With `every` it asks at most once in so many seconds.
    """
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    body = LETTER if method == "POST" else None
    headers = {"Content-Type": "application/json"} if body else {}
    waits: list[float] = []
    begun = due = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        at = time.perf_counter()
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (200, 202), answer.status
        waits.append((time.perf_counter() - at) * 1000)
        due += every
        time.sleep(max(0.0, due - time.perf_counter()))
    return waits


def clients(url: str, method: str, path: str, seconds: float, count: int, every: float) -> Any:
    with ThreadPoolExecutor(count) as pool:
        runs = [pool.submit(client, url, method, path, seconds, every) for _ in range(count)]
        return [wait for run in runs for wait in run.result()]


def hammer(chapter: Chapter, method: str, path: str, seconds: float = 5.0) -> float:
    """Answers a second to eight clients in two processes."""
    with ProcessPoolExecutor(2) as pool:
        runs = [pool.submit(clients, chapter.url, method, path, seconds, 4, 0.0) for _ in range(2)]
        return sum(len(run.result()) for run in runs) / seconds


def paced(chapter: Chapter, path: str, rate: float, seconds: float = 5.0) -> float:
    """The median wait, in ms, of four clients that together ask `rate` times a second."""
    with ProcessPoolExecutor(1) as pool:
        run = pool.submit(clients, chapter.url, "POST", path, seconds, 4, 4 / rate)
        return float(statistics.median(run.result()))


SETTINGS: dict[str, dict[str, str]] = {
    "as it is": {},
    "prefetch 4, not 1": {" --task-events": " --task-events --prefetch-multiplier 4"},
    "no events": {" --task-events": ""},
    "processes, not threads": {"--pool threads": "--pool prefork"},
}
"""What is changed in the Procfile's commands, for each row."""


def settings() -> dict[str, Any]:
    """Newsletters a second on 16 slots over the limit, by setting; and the worker's memory."""
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(3):
        for name, replace in SETTINGS.items():
            with start("05", MAIL_SLOTS=SLOTS, LONGEST_WAIT=600, replace=replace) as chapter:
                warm_up(chapter)
                table = found.setdefault(name, {"of limit": [], "MiB": []})
                table["of limit"].append(experiments.throughput(chapter, SLOTS, rounds=5))
                table["MiB"].append(chapter.memory("mail") / 2**20)
    return {
        name: {key: spread(values) for key, values in table.items()}
        for name, table in found.items()
    }


# --- The final app --------------------------------------------------------------------


def mail_slots() -> dict[str, Any]:
    """Newsletters a second over slots / service time, mails of 0.2 s."""
    found: dict[str, list[float]] = {}
    for slots in (4, 16, 32, 64):
        with start("05", MAIL_SLOTS=slots, LONGEST_WAIT=600) as chapter:
            warm_up(chapter)
            rounds = 5 if slots > 4 else 8
            found[str(slots)] = [
                experiments.throughput(chapter, slots, rounds=rounds) for _ in range(5)
            ]
    return {slots: spread(values) for slots, values in found.items()}


def visitor_at_the_knee() -> dict[str, Any]:
    """A visitor's p99 while newsletters come as fast as 16 slots can serve them, over idle."""
    found: dict[str, list[float]] = {"idle": [], "at the knee": [], "over": []}
    with start("05", MAIL_SLOTS=SLOTS) as chapter:
        warm_up(chapter)
        for _ in range(5):
            p99 = []
            for rate in (0.0, 0.8 * SLOTS):
                with visitor(chapter.url, rate=50) as visit:
                    if rate:
                        crowd(chapter.url, "newsletter", rate, 10)
                    else:
                        time.sleep(10)
                p99.append(percentile(visit.rows.latency_ms, 99))
            found["idle"].append(p99[0])
            found["at the knee"].append(p99[1])
            found["over"].append(p99[1] / p99[0])
    return {name: spread(values) for name, values in found.items()}


def reports() -> dict[str, Any]:
    """Four reports by two workers over the same by two plain processes."""
    return figures_03.reports("05")


def soak() -> dict[str, Any]:
    """Six days with their nights in five minutes: what is not finished, and what has grown?"""
    seconds = 300
    with start("05", MAIL_SLOTS=SLOTS, MAIL_DELAY=0.05) as chapter:
        crowd(chapter.url, "newsletter", 8, 20)  # what every process needs once, it has then
        before = memory(chapter)
        rows = locust_rows(
            chapter.url,
            "OpenVisitor OpenPublisher",
            *("--shape", "Soak", "-u", "20", "-t", f"{seconds}s", "--lines", "5000"),
        )
        wait_until(lambda: all(job["state"] in ENDED for job in outages.recent(chapter)), 120)
        after = memory(chapter)
        accepted = rows[rows.name.str.endswith(" accepted") & rows.error.isna()]
        finished = rows[rows.name.str.endswith(" finished") & rows.error.isna()]
    return {
        "seconds": seconds,
        "accepted": len(accepted),
        "not finished": len(accepted) - len(finished),
        "requests": int((rows.name != "own delay").sum()),
        "memory": {name: round(after[name] / before[name], 3) for name in before},
        "MiB": {name: round(size / 2**20) for name, size in after.items()},
    }


def memory(chapter: Chapter) -> dict[str, float]:
    """Bytes of each service."""
    return {name: chapter.memory(name) for name in chapter.commands}


def per_job() -> dict[str, Any]:
    """What a newsletter of five mails costs: CPU by service, and what Redis does and keeps."""
    found: dict[str, list[float]] = {}
    with start("05", MAIL_SLOTS=SLOTS, MAIL_DELAY=0.01) as chapter:
        crowd(chapter.url, "newsletter", 10, 10)
        for _ in range(5):
            before = spent(chapter)
            rows = crowd(chapter.url, "newsletter", 10, 20)
            jobs = int((rows.name == "newsletter finished").sum())
            for name, value in spent(chapter).items():
                found.setdefault(name, []).append((value - before[name]) / jobs)
    return {name: spread(values) for name, values in found.items()}


def spent(chapter: Chapter) -> dict[str, float]:
    """Milliseconds of CPU so far, by service; Redis's commands, bytes in memory and on disk."""
    store: Any = Redis.from_url(chapter.redis_url)
    found = {}
    for name in ("web", "mail", "redis"):
        times = [process.cpu_times() for process in chapter.processes(name)]
        found[f"{name}, ms"] = sum(each.user + each.system for each in times) * 1000
    found["commands"] = float(store.info("stats")["total_commands_processed"])
    found["memory, kB"] = float(store.info("memory")["used_memory"]) / 1000
    found["disk, kB"] = float(store.info("persistence")["aof_current_size"]) / 1000
    return found


PICTURES = {"05_comparison": draw_comparison}
"""What is drawn of a figure, beside its file."""

FIGURES: dict[str, Callable[[], dict[str, Any]]] = {
    "05_comparison": comparison,
    "05_open_closed": open_and_closed,
    "05_fan_out": fan_out,
    "05_overload": overload,
    "05_web_processes": web_processes,
    "05_submits": submits,
    "05_settings": settings,
    "05_mail_slots": mail_slots,
    "05_visitor": visitor_at_the_knee,
    "05_reports": reports,
    "05_soak": soak,
    "05_per_job": per_job,
    "05_hosts": figures_hosts.cut_off_worker,
}
