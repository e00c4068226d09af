"""The fault table, row by row: nothing is lost, and nobody gets a mail twice.

The rows run once for each chapter, in copies of it side by side; each test looks at its row.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from celery import Celery

import lab
from lab import faults
from lab.faults import FAULTS, Outcome

from .conftest import silent

# The second look at jobs, which also saves those whose messages are lost, is put off here:
# Celery's own redelivery has to bring every job to its end.
ALONE: dict[str, Any] = {"RESEND_AFTER": 3600, "wait": 100.0}
POOL = "kill -9 of a report's pool processes"
MAIL = "kill -9 of the mail worker"
KEPT = "mail server keeps every 5th mail, but does not say so"


def run(runs: list[tuple[list[str], dict[str, Any]]]) -> list[dict[str, Outcome]]:
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(lambda run: faults.hurt_in_turn(run[0], **run[1]), runs))


@pytest.fixture(scope="module")
def tables() -> list[dict[str, Outcome]]:
    """Chapter 03: the table in two halves; without deduplication; under Celery's defaults."""
    rows = list(FAULTS)
    return run(
        [
            (rows[::2], ALONE),
            (rows[1::2], ALONE),
            ([MAIL, KEPT], ALONE | {"deduplicate": False}),
            ([POOL, MAIL], {"celery_defaults": True, "wait": 5}),
        ]
    )


@pytest.fixture(scope="module", params=[number for number in lab.chapters() if number > "03"])
def later_table(request: pytest.FixtureRequest) -> dict[str, Outcome]:
    """The same table, on each chapter that is built on 03; in 05 every newsletter is spread."""
    more: dict[str, Any] = {"number": request.param}
    if request.param >= "05":  # the end of a chord may be lost: a second look begins it anew
        more |= {"BATCH": 5, "RESEND_AFTER": 10}
    thirds = [(list(FAULTS)[n::3], ALONE | more) for n in range(3)]
    found: dict[str, Outcome] = {}
    for part in run(thirds):
        found |= part
    return found


@pytest.mark.timeout(500)  # the first test waits for all rows
@pytest.mark.parametrize("fault", FAULTS)
def test_later_chapters_lose_nothing_either(later_table: dict[str, Outcome], fault: str) -> None:
    outcome = later_table[fault]
    assert (outcome.lost, outcome.twice, outcome.reports_lost) == (0, 0, 0)
    assert outcome.seconds is not None


@pytest.mark.timeout(500)
@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost_and_nothing_comes_twice(
    tables: list[dict[str, Outcome]], fault: str
) -> None:
    outcome = (tables[0] | tables[1])[fault]
    assert (outcome.lost, outcome.twice, outcome.reports_lost) == (0, 0, 0)
    assert outcome.seconds is not None


def test_a_kill_sends_at_most_the_mails_twice_that_were_under_way(
    tables: list[dict[str, Outcome]],
) -> None:
    """The mail server takes every copy here: the ledger alone must hold them back."""
    outcome = tables[2][MAIL]
    assert outcome.lost == 0
    assert outcome.twice <= 2  # one for each of two newsletters, and hardly ever


def test_the_window_that_remains_is_closed_by_the_receiving_side(
    tables: list[dict[str, Outcome]],
) -> None:
    """Kept by the mail server, but not noted: a second copy is sent, and known by its id."""
    assert tables[2][KEPT].twice > 0
    assert (tables[0] | tables[1])[KEPT].twice == 0


def test_under_celerys_defaults_mails_and_reports_are_lost(
    tables: list[dict[str, Outcome]],
) -> None:
    """What the settings are for. Without this test, the table could be zeros of a blunt lab."""
    assert tables[3][POOL].reports_lost == 2
    assert tables[3][POOL].seconds is None
    assert tables[3][MAIL].lost > 10


def test_a_second_copy_beside_the_first_waits_for_its_end() -> None:
    """What Redis does with every message that takes longer than the visibility timeout.

    One mail takes longer here than a lease lasts: the first worker renews it all the while.
    """
    with lab.start("03", MAIL_DELAY=0.1) as chapter:
        letter = LETTER | {"recipients": lab.addresses(30)}
        job = ask(chapter, "POST", "/newsletters", letter).json()["id"]
        chapter.mailbox.wait_for(3, timeout=20)
        with silent(chapter), Celery(broker=chapter.redis_url) as celery:
            time.sleep(6)
            celery.send_task("newsletter", [job], queue="mail")
        document = lab.finish(chapter.url, ask(chapter, "GET", f"/jobs/{job}"))
        assert document["state"] == "SUCCESS"
        assert chapter.mailbox.count(lab.addresses(30), job).twice == 0
        assert "retry: Retry in 5.0s" in chapter.log("mail", 1000)


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
    path = ask(chapter, "POST", "/add", {"x": 1, "y": 2}).headers["Location"]
    deadline = time.monotonic() + 20
    while (answer := ask(chapter, "GET", path).json())["state"] != "SUCCESS":
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)
    assert answer["result"] == 3


@pytest.mark.parametrize("how", ["refuses", "hangs"])
@pytest.mark.parametrize("number", [number for number in lab.chapters() if number >= "03"])
def test_without_a_broker_every_route_says_so_at_once_and_recovers(number: str, how: str) -> None:
    settings: dict[str, Any] = {"MAIL_DELAY": 0, "RESEND_AFTER": 1}
    with lab.start(number, restart=True, restart_after={"redis": 8.0}, **settings) as chapter:
        before = lab.finish(chapter.url, ask(chapter, "POST", "/newsletters", LETTER))["id"]
        # Celery's own result is lost if Redis hangs while it is stored: so wait for it.
        check_that_sums_work(chapter)
        away = chapter.processes("redis")[0]
        chapter.hurt("redis", "SIGSTOP" if how == "hangs" else "SIGKILL")
        routes = ROUTES + (ROUTES_OF_04 if number >= "04" else [])
        for method, path, body in routes * 2:
            answer = ask(chapter, method, path, body)
            assert answer.status_code == 503, (path, answer.text)
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.elapsed.total_seconds() < 1, path
        for path in ("/", "/ping"):
            answer = ask(chapter, "GET", path)
            assert answer.ok
            assert answer.elapsed.total_seconds() < 1
        if how == "hangs":
            away.resume()
        chapter.wait_until_ready()
        after = lab.finish(chapter.url, ask(chapter, "POST", "/newsletters", LETTER))
        assert after["state"] == "SUCCESS"
        assert lab.finish(chapter.url, ask(chapter, "GET", f"/jobs/{before}"))["state"] == "SUCCESS"
        check_that_sums_work(chapter)
        # Who was told 503 may ask again without harm: nothing was accepted behind the answer.
        jobs = [job["id"] for job in ask(chapter, "GET", "/jobs").json()]
        assert jobs == [after["id"], before]
        assert len(chapter.mailbox.messages()) == 2
