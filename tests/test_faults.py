"""The fault table, row by row: nothing is lost, and nobody gets a mail twice.

The rows run once for each chapter, in copies of it side by side; each test looks at its row. They
run with shorter waits than those that the chapters come with, but for one row of each chapter.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import Any

import pytest
import requests
from celery import Celery

import lab
from lab import faults
from lab.faults import FAULTS, Outcome, is_written_down
from lab.waiting import wait_until

from .conftest import QUICK, silent

CHAPTERS = [number for number in lab.chapters() if number >= "03"]
# The second look at jobs, which also saves those whose messages are lost, is put off here:
# Celery's own redelivery has to bring every job to its end. And whoever looks a job up gets an
# answer, however long Redis takes for it on a busy machine.
ALONE: dict[str, Any] = {"RESEND_AFTER": 3600, "REDIS_TIMEOUT": 10}
PATIENCE: dict[str, Any] = {
    "wait": 100.0,
    "lines": 30_000,  # under way for a second: the fault comes sooner
}
LATER = [number for number in CHAPTERS if number > "03"]
POOL = "kill -9 of a report's pool processes"
MAIL = "kill -9 of the mail worker"
KEPT = "mail server keeps every 5th mail, but does not say so"


Table = dict[str, Outcome]


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    """Chapter 03, in three copies of it: "ours" is the whole table, with a mail server that drops
    second copies; it takes them in "copies taken"; "defaults" is under Celery's settings."""
    first, second = list(FAULTS)[::2], list(FAULTS)[1::2]
    with ThreadPoolExecutor(3) as pool:
        half = pool.submit(faults.hurt_in_turn, first, **PATIENCE, **ALONE, **QUICK)
        both = pool.submit(with_and_without_copies, second)
        defaults = pool.submit(faults.hurt_in_turn, [POOL, MAIL], celery_defaults=True, wait=5)
    dropped, taken = both.result()
    return {
        "ours": half.result() | dropped,
        "copies taken": taken,
        "defaults": defaults.result(),
    }


def with_and_without_copies(rows: list[str]) -> tuple[Table, Table]:
    """These rows, and in the same chapter two whose mail server takes every copy."""
    with faults.victim(**ALONE, **QUICK) as chapter:
        return (
            faults.in_turn(chapter, rows, deduplicate=True, **PATIENCE),
            faults.in_turn(chapter, [MAIL, KEPT], deduplicate=False, **PATIENCE),
        )


def spread(number: str) -> dict[str, Any]:
    """Settings with which every newsletter is spread, where a chapter spreads them."""
    # The end of a chord may be lost: a second look begins it anew.
    return {"BATCH": 5, "RESEND_AFTER": 10} if number >= "05" else {}


@pytest.fixture(scope="module", params=LATER)
def later_table(request: pytest.FixtureRequest) -> Table:
    """The same table, on each chapter that is built on 03; in 05 every newsletter is spread."""
    more = PATIENCE | ALONE | QUICK | spread(request.param)
    with ThreadPoolExecutor(3) as pool:
        thirds = [
            pool.submit(faults.hurt_in_turn, list(FAULTS)[n::3], request.param, **more)
            for n in range(3)
        ]
    return {fault: outcome for third in thirds for fault, outcome in third.result().items()}


@pytest.fixture(scope="module", params=CHAPTERS)
def shipped(request: pytest.FixtureRequest) -> Iterator[lab.Chapter]:
    """A chapter with the waits and the patience that it comes with."""
    more: dict[str, Any] = {"MAIL_DELAY": 0.1, **spread(request.param)}
    pauses = {"redis": 4.0}
    with lab.start(request.param, restart=True, restart_after=pauses, **more) as running:
        yield running


def test_the_waits_that_a_chapter_comes_with_lose_nothing(shipped: lab.Chapter) -> None:
    shipped.mailbox.set(deduplicate=True)
    try:
        outcome = faults.hurt(shipped, MAIL, wait=100.0, lines=30_000)
    finally:
        shipped.mailbox.mend()
        shipped.wait_until_ready()
    assert (outcome.lost, outcome.twice, outcome.reports_lost) == (0, 0, 0)
    assert outcome.seconds is not None


@pytest.mark.long
@pytest.mark.timeout(500)  # the first test waits for all rows
@pytest.mark.parametrize("fault", FAULTS)
def test_later_chapters_lose_nothing_either(later_table: Table, fault: str) -> None:
    outcome = later_table[fault]
    assert (outcome.lost, outcome.twice, outcome.reports_lost) == (0, 0, 0)
    assert outcome.seconds is not None


@pytest.mark.timeout(500)
@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost_and_nothing_comes_twice(tables: dict[str, Table], fault: str) -> None:
    outcome = tables["ours"][fault]
    assert (outcome.lost, outcome.twice, outcome.reports_lost) == (0, 0, 0)
    assert outcome.seconds is not None


def test_a_kill_sends_at_most_the_mails_twice_that_were_under_way(
    tables: dict[str, Table],
) -> None:
    """The mail server takes every copy here: the ledger alone must hold them back."""
    outcome = tables["copies taken"][MAIL]
    assert outcome.lost == 0
    assert outcome.twice <= 2  # one for each of two newsletters, and hardly ever


def test_the_window_that_remains_is_closed_by_the_receiving_side(
    tables: dict[str, Table],
) -> None:
    """Kept by the mail server, but not noted: a second copy is sent, and known by its id."""
    assert tables["copies taken"][KEPT].twice > 0
    assert tables["ours"][KEPT].twice == 0


def test_under_celerys_defaults_mails_and_reports_are_lost(
    tables: dict[str, Table],
) -> None:
    """What the settings are for. Without this test, the table could be zeros of a blunt lab."""
    assert tables["defaults"][POOL].reports_lost == 2
    assert tables["defaults"][POOL].seconds is None
    assert tables["defaults"][MAIL].lost > 10


def test_a_second_copy_beside_the_first_waits_for_its_end(chapter: lab.Chapter) -> None:
    """What Redis does with every message that takes longer than the visibility timeout.

    One mail takes longer here than a lease lasts: the first worker renews it all the while.
    """
    later = f"Retry in {QUICK['LEASE']:.1f}s"
    before = chapter.log("mail", 10**6).count(later)
    chapter.mailbox.set(delay=0.1)
    letter = LETTER | {"recipients": lab.addresses(30)}
    job = ask(chapter, "POST", "/newsletters", letter).json()["id"]
    chapter.mailbox.wait_for(3, timeout=20)
    with silent(chapter), Celery(broker=chapter.redis_url) as celery:
        celery.send_task("newsletter", [job], queue="mail")
        time.sleep(QUICK["LEASE"] + 1)
        wait_until(lambda: chapter.log("mail", 10**6).count(later) > before)
    document = lab.finish(chapter.url, ask(chapter, "GET", f"/jobs/{job}"))
    assert document["state"] == "SUCCESS"
    assert chapter.mailbox.count(lab.addresses(30), job).twice == 0


# --- The broker is away ---------------------------------------------------------------


def ask(chapter: lab.Chapter, method: str, path: str, body: object = None) -> requests.Response:
    return requests.request(method, chapter.url + path, json=body, timeout=10)


LETTER = {"subject": "News", "body": "Hello", "recipients": ["ann@example.com"]}
ROUTES: list[tuple[str, str, object]] = [
    ("POST", "/newsletters", LETTER),
    ("POST", "/reports", {"lines": 10}),
    ("GET", "/jobs", None),
    ("GET", "/jobs/any", None),
    ("DELETE", "/jobs/any", None),
    ("POST", "/add", {"x": 1, "y": 2}),
    ("GET", "/add/any", None),
]
ROUTES_OF_04: list[tuple[str, str, object]] = [
    ("GET", "/dead-letters", None),
    ("POST", "/dead-letters/any/replay", None),
    ("DELETE", "/dead-letters/any", None),
    ("GET", "/health/ready", None),
    ("GET", "/health/workers", None),
]


def check_that_sums_work(chapter: lab.Chapter) -> None:
    path = served(chapter, "POST", "/add", {"x": 1, "y": 2}).headers["Location"]
    deadline = time.monotonic() + 20
    while (answer := served(chapter, "GET", path).json())["state"] != "SUCCESS":
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)
    assert answer["result"] == 3


def check_that_all_say_so(chapter: lab.Chapter, routes: list[tuple[str, str, object]]) -> None:
    """All are asked at the same time. So is a page, again and again: it says how busy the machine
    is, for each of the two waits behind an answer may be late by as much as a page is."""
    over = Event()
    with ThreadPoolExecutor(len(routes) + 1) as pool:
        page = pool.submit(latest_page, chapter, over)
        answers = list(pool.map(lambda route: ask(chapter, *route), routes))
        over.set()
    for route, answer in zip(routes, answers, strict=True):
        assert answer.status_code == 503, (route, answer.text)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.elapsed.total_seconds() < 1 + 2 * page.result(), route


def latest_page(chapter: lab.Chapter, over: Event) -> float:
    """Seconds that the slowest of many pages took; each of them came."""
    slowest = 0.0
    while not over.wait(0.05):
        for path in ("/", "/ping"):
            answer = ask(chapter, "GET", path)
            assert answer.ok
            slowest = max(slowest, answer.elapsed.total_seconds())
    return slowest


def test_without_a_broker_every_route_says_so_at_once_and_recovers(shipped: lab.Chapter) -> None:
    """First Redis hangs, then it refuses."""
    shipped.mailbox.set(delay=0)
    # Celery's own result is lost if Redis hangs while it is stored: so wait for it.
    check_that_sums_work(shipped)
    known = [finished_letter(shipped), *ids_of_others(shipped)]
    received = len(shipped.mailbox.messages())
    routes = ROUTES + (ROUTES_OF_04 if shipped.number >= "04" else [])
    for how in ("SIGSTOP", "SIGKILL"):
        wait_until(partial(is_written_down, shipped))
        redis = shipped.processes("redis")[0]
        shipped.hurt("redis", how)
        check_that_all_say_so(shipped, routes)
        if how == "SIGSTOP":  # for as long as we like; killed, it comes back
            check_that_all_say_so(shipped, routes)
            redis.resume()
        shipped.wait_until_ready()
        known.insert(0, finished_letter(shipped))
        check_that_sums_work(shipped)
    # Who was told 503 may ask again without harm: nothing was accepted behind the answer.
    assert [job["id"] for job in served(shipped, "GET", "/jobs").json()] == known
    assert len(shipped.mailbox.messages()) == received + 2


def ids_of_others(chapter: lab.Chapter) -> list[str]:
    """The jobs but for the newest, newest first."""
    return [job["id"] for job in served(chapter, "GET", "/jobs").json()][1:]


def finished_letter(chapter: lab.Chapter) -> str:
    job = lab.finish(chapter.url, served(chapter, "POST", "/newsletters", LETTER))
    assert job["state"] == "SUCCESS"
    return str(job["id"])


def served(chapter: lab.Chapter, method: str, path: str, body: object = None) -> requests.Response:
    """An answer other than 503, which says "try again": Redis may be slow on a busy machine."""
    deadline = time.monotonic() + 30
    while (answer := ask(chapter, method, path, body)).status_code == 503:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)
    return answer
