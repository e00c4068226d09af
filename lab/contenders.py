"""What people pick instead of Celery, started and measured like a chapter.

Each contender is a small program in `notebooks/contenders/` with a Procfile: the same newsletter
and report, the same mail server. Five measurements compare them, each in one run, in turn:
`accepted`, `newsletters`, `reports`, `per_slot` and `crash`. `measure` makes them all, for
`results/`.
"""

import importlib.util
import math
import os
import random
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from statistics import median
from typing import Any

import pandas as pd
import requests

from lab.chapters import ROOT, Chapter, LabError, folder, free_ports, gunicorn, read_procfile
from lab.chapters import start as start_chapter
from lab.figures_03 import LETTER, plain_processes
from lab.load import addresses, percentile, post
from lab.results import recorded, spread

FOLDER = ROOT / "notebooks" / "contenders"
QUEUES = ("Celery", "RQ", "Dramatiq", "Huey")
NO_QUEUE = ("FastAPI", "Quart")
ALL = (*QUEUES, *NO_QUEUE)
CHAPTER = "chapter 03"
"""Celery with the chapter's record, ledger and lease: it takes part in the crash."""
PACKAGES = ("rq", "dramatiq", "huey", "fastapi", "uvicorn", "quart", "hypercorn")

SLOTS = 16
ONE_MAIL = 0.2  # seconds that the mail server takes
MAILS = 5  # of a newsletter whose throughput is measured: it holds a slot for one second


def installed() -> bool:
    """Whether the contenders can run here; `CONTENDERS=recorded` says no, to try that."""
    there = all(importlib.util.find_spec(package) for package in PACKAGES)
    return there and os.environ.get("CONTENDERS") != "recorded"


# --- Start ----------------------------------------------------------------------------


class Contender(Chapter):
    """A running contender."""

    def workers_answer(self) -> bool:
        """Each library has a way of its own to ask; `start` sends a first newsletter instead."""
        return True


def commands_of(name: str) -> dict[str, str]:
    """The processes of a contender, by name; each finds chapter 01's `work.py`."""
    processes = read_procfile(FOLDER, f"with_{name.lower()}.Procfile")
    path = os.pathsep.join([".", str(folder("01"))])
    return {part: f"env PYTHONPATH={path} {command}" for part, command in processes.items()}


def start(name: str, restart: bool = False, **settings: Any) -> Chapter:
    """Start a contender of ALL, or CHAPTER, and return it once it has sent a first newsletter.

    `settings` become environment variables: `SLOTS=4`, `MAIL_DELAY=0.1`. With `restart`, a
    process that ends is started again after half a second, Redis after three.
    Raises LabError if it does not start.
    """
    if name == CHAPTER:
        return start_chapter("03", restart=restart, restart_after={"redis": 3.0}, **settings)
    commands = commands_of(name)
    names = ["PORT", "SMTP_PORT", "MAILBOX_PORT", *(["REDIS_PORT"] if "redis" in commands else [])]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    environment = {key: value for key, value in os.environ.items() if key != "REDIS_URL"}
    environment |= {"DATA": "", **gunicorn("bare_view.py")}
    environment |= {key: str(value) for key, value in settings.items()}
    pauses = dict.fromkeys(commands, 0.5) | {"redis": 3.0}
    contender = Contender(FOLDER, commands, ports, environment, pauses if restart else {})
    try:
        try_out(contender)
    except BaseException:
        contender.stop()
        raise
    return contender


def try_out(contender: Contender) -> None:
    """Send a first newsletter and make a first report, so that every part is known to work."""
    submit(contender, "/newsletters", LETTER)
    submit(contender, "/reports", {"lines": 1000})
    if not contender.mailbox.wait_for(2, timeout=60):
        logs = "\n\n".join(f"{part}:\n{contender.log(part)}" for part in contender.commands)
        raise LabError(f"A first newsletter and report did not come within a minute.\n\n{logs}")
    contender.mailbox.empty()


def start_all(names: Iterable[str], **settings: Any) -> dict[str, Chapter]:
    """Start several, three at a time."""
    with ThreadPoolExecutor(3) as pool:
        started = {name: pool.submit(start, name, **settings) for name in names}
    return {name: each.result() for name, each in started.items()}


def stop_all(running: dict[str, Chapter]) -> None:
    """Stop several, all at the same time."""
    with ThreadPoolExecutor(len(running) or 1) as pool:
        list(pool.map(Chapter.stop, running.values()))


def submit(chapter: Chapter, path: str, body: dict[str, Any]) -> str:
    """POST a job; returns its id."""
    answer = post(chapter.url, path, body)
    answer.raise_for_status()
    return str(answer.json()["id"])


def arrived(
    chapter: Chapter, jobs: Iterable[str], mails: int, timeout: float = 60.0
) -> list[dict[str, Any]]:
    """The mails of these jobs, once there are so many. Raises LabError if they do not come.

    Asks four times a second: a mailbox that is read all the time takes a core.
    """
    deadline, ids = time.monotonic() + timeout, set(jobs)
    while True:
        found = [mail for mail in chapter.mailbox.messages() if job_of(mail) in ids]
        if len(found) >= mails:
            return found
        if time.monotonic() > deadline:
            raise LabError(f"{len(found)} of {mails} mails came within {timeout:g} s.")
        time.sleep(0.25)


def job_of(mail: dict[str, Any]) -> str:
    """The id of the job that sent a mail: its Message-ID begins with it."""
    return str(mail["message_id"])[1:].partition(".")[0]


# --- Measure --------------------------------------------------------------------------


def accepted(running: dict[str, Chapter], posts: int) -> dict[str, dict[str, float]]:
    """How long until a newsletter is accepted, and until it is begun: `posts` of them, in turn.

    In ms: "p50" and "p99" from POST to 202; "begun" (p50) from POST to its first mail, without
    the time that the mail takes. "over bare" is the p50 over that of a view which writes to
    Redis once and does nothing else, on the web server of each queue, asked in turn with them.
    """
    sent: dict[str, dict[str, float]] = {name: {} for name in running}
    waits: dict[str, list[float]] = {name: [] for name in running}
    bare: list[float] = []
    asked = [(name, "/newsletters") for name in running]
    asked += [(name, "/bare") for name in running if name in QUEUES]
    dice = random.Random(1)  # noqa: S311  (no secret)
    with ExitStack() as stack:
        sessions = {name: stack.enter_context(requests.Session()) for name in running}
        for chapter in running.values():
            chapter.mailbox.set(delay=ONE_MAIL)
        for _ in range(posts):
            for name, path in dice.sample(asked, len(asked)):
                begun = time.time()
                job, wait = time_post(sessions[name], running[name].url + path, LETTER)
                if path == "/bare":
                    bare.append(wait)
                else:
                    waits[name].append(wait)
                    sent[name][job["id"]] = begun
                time.sleep(0.01)  # a worker has begun before the next one is asked
    yardstick = median(bare) if bare else math.nan
    found = {}
    for name, chapter in running.items():
        mails = arrived(chapter, sent[name], posts)
        chapter.mailbox.empty()
        begun_after = [mail["received"] - sent[name][job_of(mail)] - ONE_MAIL for mail in mails]
        found[name] = {
            "p50": median(waits[name]),
            "p99": percentile(pd.Series(waits[name]), 99),
            "over bare": median(waits[name]) / yardstick,
            "begun": 1000 * median(begun_after),
        }
    return found


def time_post(
    session: requests.Session, url: str, body: dict[str, Any]
) -> tuple[dict[str, Any], float]:
    """The answer to a POST, and the milliseconds until it came."""
    begun = time.perf_counter()
    answer = session.post(url, json=body)
    answer.raise_for_status()
    return answer.json(), (time.perf_counter() - begun) * 1000


def newsletters(chapter: Chapter, slots: int, rounds: int) -> float:
    """Newsletters finished per second, over the limit `slots / service time`, as in a chapter.

    All are handed in at once: five mails of 0.2 s each, `rounds` for each slot. Counted are
    those after the first round, from its end to the last. Raises LabError for a mailbox in which
    not each newsletter has its five mails, once.
    """
    service, count = MAILS * ONE_MAIL, rounds * slots
    chapter.mailbox.set(delay=ONE_MAIL)
    letter = LETTER | {"recipients": addresses(MAILS)}
    jobs = [submit(chapter, "/newsletters", letter) for _ in range(count)]
    mails = arrived(chapter, jobs, MAILS * count)
    chapter.mailbox.empty()
    work = Counter((job_of(mail), mail["recipient"]) for mail in mails)
    wanted = Counter((job, reader) for job in jobs for reader in addresses(MAILS))
    if work != wanted:
        raise LabError(
            f"This is not the same work: {(work - wanted).total()} mails came too often, "
            f"{(wanted - work).total()} did not come."
        )
    last_mails: dict[str, float] = {}
    for mail in mails:
        last_mails[job_of(mail)] = mail["received"]
    ends = sorted(last_mails.values())
    return (count - slots) / float(ends[-1] - ends[slots - 1]) / (slots / service)


def reports(chapter: Chapter, lines: int) -> float:
    """The time of two plain processes for four reports, over the contender's time for them.

    The start of the plain processes does not count: workers have started, too. A report has
    ended when its mail arrives. Raises LabError if a report lacks lines.
    """
    chapter.mailbox.set(delay=0)
    plain = plain_processes(lines) - plain_processes(1)
    begun = time.time()
    jobs = [submit(chapter, "/reports", {"lines": lines}) for _ in range(4)]
    mails = arrived(chapter, jobs, len(jobs))
    chapter.mailbox.empty()
    if {(job_of(mail), mail["subject"]) for mail in mails} != {
        (job, f"Report: {lines} lines") for job in jobs
    }:
        raise LabError("This is not the same work: a report lacks lines, or came twice.")
    took: float = mails[-1]["received"] - begun
    return plain / took


def per_slot(name: str) -> float:
    """MiB for each further slot of what sends the mails, all of them at work; shared pages once."""
    few, many = 2, 18
    with ThreadPoolExecutor(2) as pool:
        less, more = pool.map(lambda slots: memory(name, slots), (few, many))
    return (more - less) / (many - few) / 2**20


def memory(name: str, slots: int) -> float:
    """Bytes of what sends the mails, with so many slots at work; shared pages count once."""
    with start(name, SLOTS=slots) as chapter:
        chapter.mailbox.set(delay=2)
        letter = LETTER | {"recipients": addresses(3)}
        jobs = [submit(chapter, "/newsletters", letter) for _ in range(slots)]
        arrived(chapter, jobs, slots)  # each has sent one mail, and is at the second
        used = chapter.memory(sender(chapter))
        chapter.mailbox.set(delay=0)  # so that they end soon
    return used


# --- Hurt -----------------------------------------------------------------------------

LETTERS, READERS, FAULT_SLOTS = 4, 20, 2
"""Two newsletters are going out and two wait when the fault comes."""
FAULTS = ("worker", "web", "Redis")
"""`kill -9` of the process that sends; of the web process; of Redis, which is back after 3 s."""
AT_LEAST_ONCE = ("Celery", "Dramatiq", CHAPTER)
"""Those who go on by themselves within half a minute. RQ does too, but after more than one."""
MINUTE_AND_A_HALF = 90.0


@dataclass(frozen=True)
class Outcome:
    """What became of the mails of four newsletters."""

    due: int
    missing: int
    "Mails that had not come when we stopped waiting."
    twice: int
    "Recipients who got a newsletter twice; the mail server takes every copy."
    seconds: float | None
    "From the fault until the last mail came for the first time; None if some never did."


def sender(chapter: Chapter) -> str:
    """The process that sends the mails."""
    return next(name for name in ("mail", "worker", "web") if name in chapter.commands)


def faults_of(name: str) -> tuple[str, ...]:
    """The faults that there are: without a queue the web process is the worker, and all."""
    return FAULTS if name in (*QUEUES, CHAPTER) else FAULTS[:1]


def crash(name: str, faults: Iterable[str], window: float) -> dict[str, Outcome]:
    """Start a contender with two slots, and hurt it in the middle of its work: fault by fault.

    We look for `window` seconds after each, and for those of AT_LEAST_ONCE, on a slow machine,
    until nothing is missing or a minute and a half have passed.
    """
    settings = {"MAIL_SLOTS" if name == CHAPTER else "SLOTS": FAULT_SLOTS}
    patience = MINUTE_AND_A_HALF if name in AT_LEAST_ONCE else window
    outcomes = {}
    with start(name, restart=True, **settings) as chapter:
        chapter.mailbox.set(delay=0.1)
        for fault in faults:
            outcomes[fault] = hurt(chapter, fault, window, patience)
            chapter.wait_until_ready()
            chapter.mailbox.empty()
    return outcomes


def hurt(chapter: Chapter, fault: str, window: float, patience: float) -> Outcome:
    """Hand in four newsletters; when the first two are half sent, the fault; then count."""
    due = LETTERS * READERS
    letter = LETTER | {"recipients": addresses(READERS)}
    jobs = [submit(chapter, "/newsletters", letter) for _ in range(LETTERS)]
    arrived(chapter, jobs, READERS // 2)
    begun = time.time()
    chapter.hurt({"worker": sender(chapter), "web": "web", "Redis": "redis"}[fault])
    time.sleep(window)
    while len(first_copies(chapter, jobs)) < due and time.time() < begun + patience:
        time.sleep(0.5)
    chapter.mailbox.wait_until_quiet(1)
    first = first_copies(chapter, jobs)
    copies = Counter((job_of(mail), mail["recipient"]) for mail in chapter.mailbox.messages())
    return Outcome(
        due=due,
        missing=due - len(first),
        twice=sum(copies[key] > 1 for key in first),
        seconds=round(max(first.values()) - begun, 1) if len(first) == due else None,
    )


def first_copies(chapter: Chapter, jobs: list[str]) -> dict[tuple[str, str], float]:
    """When each mail of these jobs came for the first time, by job and recipient."""
    first: dict[tuple[str, str], float] = {}
    for mail in chapter.mailbox.messages():
        if job_of(mail) in jobs:
            first.setdefault((job_of(mail), mail["recipient"]), mail["received"])
    return first


# --- In the notebook: live or recorded ------------------------------------------------


class Bench:
    """The measurements that a notebook makes live, or their recorded medians.

    Recorded where the contenders are not installed. `origin` says which, in one sentence.
    """

    def __init__(self, names: Iterable[str] = ALL, **settings: Any) -> None:
        document = recorded("06_contenders")
        self.names = tuple(names)
        self.figures: dict[str, Any] = document["figures"]["contenders"]
        packages = document["versions"] | document["figures"]["versions"]
        which = ", ".join(f"{package} {number}" for package, number in packages.items())
        self.recorded = f"Recorded on {document['date']}: {document['machine']}; {which}."
        self.live = installed()
        self.running = start_all(self.names, **settings) if self.live else {}
        self.origin = "The contenders are installed: what says no other is measured now."
        if not self.live:
            self.origin = (
                "Not all contenders are installed: `make contenders` does that; until then, all "
                f"figures here are recorded ones of {document['date']}."
            )

    def accepted(self, posts: int) -> dict[str, dict[str, float]]:
        """See `accepted`."""
        if self.live:
            return accepted(self.running, posts)
        return {name: medians(self.figures[name]["accepted"]) for name in self.names}

    def newsletters(self, name: str, slots: int, rounds: int) -> float:
        """See `newsletters`."""
        if self.live:
            return newsletters(self.running[name], slots, rounds)
        return float(self.figures[name]["newsletters"]["median"])

    def crash(self, names: Iterable[str], window: float) -> dict[str, Outcome]:
        """Kill what sends the mails, of all at once: see `crash`. Ends those that ran so far."""
        if not self.live:
            return {name: Outcome(**self.figures[name]["faults"]["worker"][0]) for name in names}
        stop_all(self.running)
        with ThreadPoolExecutor() as pool:
            tasks = {name: pool.submit(crash, name, ("worker",), window) for name in names}
        return {name: task.result()["worker"] for name, task in tasks.items()}


def medians(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    return {key: value["median"] for key, value in figures.items()}


# --- All of it, for results/ ----------------------------------------------------------


def measure(runs: int = 3) -> dict[str, Any]:
    """Every figure of every contender, in turn, `runs` times: three take about eight minutes."""
    found: dict[str, Any] = speeds(runs) | {CHAPTER: {}}
    for name in ALL:
        found[name]["MiB a slot"] = spread([per_slot(name) for _ in range(min(runs, 2))])
        found[name]["processes"] = len(commands_of(name)) - 1  # the mail server is not theirs
    for name, faults in fault_table(runs).items():
        found[name]["faults"] = faults
    return {"versions": {package: version(package) for package in PACKAGES}, "contenders": found}


def speeds(runs: int, posts: int = 100) -> dict[str, dict[str, Any]]:
    """What is accepted and done in which time, with all contenders running all the time."""
    answers: dict[str, dict[str, list[float]]] = {name: {} for name in ALL}
    letters: dict[str, list[float]] = {name: [] for name in ALL}
    computed: dict[str, list[float]] = {name: [] for name in ALL}
    running = start_all(ALL)
    try:
        for _ in range(runs):
            for name, figures in accepted(running, posts).items():
                for key, value in figures.items():
                    answers[name].setdefault(key, []).append(value)
            for name, chapter in running.items():
                letters[name].append(newsletters(chapter, SLOTS, rounds=3))
                computed[name].append(reports(chapter, lines=120_000))
    finally:
        stop_all(running)
    return {
        name: {
            "accepted": {key: spread(values) for key, values in answers[name].items()},
            "newsletters": spread(letters[name]),
            "reports": spread(computed[name]),
        }
        for name in ALL
    }


def fault_table(runs: int) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Each fault, several times. It counts, and seconds come from time-outs: so all at once."""
    everybody = (*ALL, CHAPTER)
    slowest = [("RQ", (fault,), MINUTE_AND_A_HALF) for fault in FAULTS] * runs
    others = [(name, faults_of(name), 25.0) for name in everybody if name != "RQ"] * runs
    table: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in everybody}
    with ThreadPoolExecutor(20) as pool:
        tasks = [(each[0], pool.submit(crash, *each)) for each in slowest + others]
        for name, task in tasks:
            for fault, outcome in task.result().items():
                table[name].setdefault(fault, []).append(asdict(outcome))
    return table
