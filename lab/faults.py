"""Hurt a chapter in the middle of its work; count what was lost and what came twice."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests
from redis import Redis

from lab.chapters import Chapter, LabError, start
from lab.load import ENDED, addresses, post
from lab.waiting import pause, wait_until

MAILS = 20
"""Recipients of each of the two newsletters."""


@dataclass(frozen=True)
class Outcome:
    """What became of two newsletters and two reports after a fault."""

    lost: int
    "Mails that nobody got, and that the job does not name as refused."
    twice: int
    "Recipients who got a newsletter twice."
    reports_lost: int
    "Reports that neither came nor failed with a word."
    seconds: float | None
    "From the fault until every job had ended; None if some never did."


Fault = Callable[[Chapter], list[str]]
"""Does the harm; returns the ids of jobs that it has sent itself."""


def kill(*names: str, children: bool = False) -> Fault:
    """`kill -9`, all at once."""

    def hurt(chapter: Chapter) -> list[str]:
        if "redis" in names:
            wait_until(lambda: is_written_down(chapter))
        for name in names:
            chapter.hurt(name, children=children)
        return []

    return hurt


def is_written_down(chapter: Chapter) -> bool:
    """Whether Redis has handed its last change to the system, where a `kill -9` leaves it.

    On a busy disk Redis holds back what it writes, for two seconds at the most.
    """
    with Redis.from_url(chapter.redis_url) as redis:
        return int(redis.info("persistence")["aof_buffer_length"]) == 0


def terminate(chapter: Chapter) -> list[str]:
    """SIGTERM to both workers, as a deployment sends it."""
    for name in ("mail", "report"):
        os.kill(chapter.pids[name], signal.SIGTERM)
    return []


def freeze_redis(chapter: Chapter) -> list[str]:
    """Redis says nothing for five seconds, but keeps its connections."""
    chapter.hurt("redis", "SIGSTOP")
    threading.Timer(5, chapter.hurt, ("redis", "SIGCONT")).start()
    return []


def mail_server(**faults: Any) -> Fault:
    """Faults of the mail server, as `mailserver.Faults` names them."""

    def hurt(chapter: Chapter) -> list[str]:
        chapter.mailbox.set(**faults)
        return []

    return hurt


def vanish(chapter: Chapter) -> list[str]:
    """An uploaded log is gone before a worker reads it."""
    chapter.hurt("report", "SIGSTOP")
    log = {"log": ("access.log", b"a line\n" * 1000)}
    answer = requests.post(f"{chapter.url}/reports", files=log, timeout=30)
    answer.raise_for_status()
    (chapter.data / "uploads" / f"{answer.json()['id']}.log").unlink()
    chapter.hurt("report", "SIGCONT")
    return [answer.json()["id"]]


FAULTS: dict[str, Fault] = {
    "kill -9 of a report's pool processes": kill("report", children=True),
    "kill -9 of the report worker": kill("report"),
    "kill -9 of the mail worker": kill("mail"),
    "kill -9 of the web process": kill("web"),
    "kill -9 of Redis, back after 3 s": kill("redis"),
    "kill -9 of everything, back after 3 s": kill("web", "mail", "report", "beat", "redis"),
    "SIGTERM to both workers": terminate,
    "Redis hangs for 5 s": freeze_redis,
    "mail server drops every 5th mail": mail_server(drop_every=5),
    "mail server refuses every 5th mail for now": mail_server(refuse_every=5),
    "mail server refuses two readers for good": mail_server(refuse_addresses=addresses(20)[-2:]),
    "mail server keeps every 5th mail, but does not say so": mail_server(cut_answer_every=5),
    "the file of a report vanishes": vanish,
}
"""Every fault by its name in the lesson's table."""


@contextmanager
def victim(number: str = "03", celery_defaults: bool = False, **settings: Any) -> Iterator[Chapter]:
    """A chapter whose processes come back when they are killed: Redis after 3 s."""
    with start(
        number,
        restart=True,
        restart_after={"redis": 3.0},
        celery_defaults=celery_defaults,
        MAIL_DELAY=0.1,
        **settings,
    ) as chapter:
        yield chapter


def hurt(chapter: Chapter, fault: str, wait: float = 40.0, lines: int = 60_000) -> Outcome:
    """Give the chapter two newsletters and two reports, hurt it in the middle, and count.

    Jobs that have not ended `wait` seconds after the fault are not waited for. `lines` is the
    length of the reports' logs.
    """
    letters = [send(chapter, "/newsletters", letter()) for _ in range(2)]
    wait_until(lambda: arrived(chapter, letters) >= 2 * MAILS // 3)
    chapter.mailbox.set(silent=True)  # or they are through before the reports have begun
    reports = [send(chapter, "/reports", {"lines": lines}) for _ in range(2)]
    wait_until(lambda: all(look_up(chapter, job)["state"] != "PENDING" for job in reports))
    before = arrived(chapter, letters)
    chapter.mailbox.set(silent=False)
    wait_until(lambda: arrived(chapter, letters) > before + 2)  # in the middle again
    begun = time.monotonic()
    reports += FAULTS[fault](chapter)
    jobs = wait_for_ends(chapter, letters + reports, begun + wait)
    seconds = time.monotonic() - begun
    over = all(job["state"] in ENDED for job in jobs.values())
    if not over:
        chapter.mailbox.wait_until_quiet(1)
    counts = [chapter.mailbox.count(addresses(MAILS), job) for job in letters]
    refused = sum((jobs[job]["result"] or {}).get("refused", 0) for job in letters)
    return Outcome(
        lost=max(0, sum(count.lost for count in counts) - refused),
        twice=sum(count.twice for count in counts),
        reports_lost=sum(jobs[job]["state"] not in ENDED for job in reports),
        seconds=round(seconds, 1) if over else None,
    )


def hurt_in_turn(
    faults: list[str],
    number: str = "03",
    celery_defaults: bool = False,
    deduplicate: bool = True,
    wait: float = 40.0,
    lines: int = 60_000,
    **settings: Any,
) -> dict[str, Outcome]:
    """One chapter, one fault after the other; between them it is mended.

    With `deduplicate` the mail server drops the second copy of a Message-ID. `lines` is the
    length of the reports' logs. `settings` are the chapter's, as in `lab.start`.
    """
    with victim(number, celery_defaults, **settings) as chapter:
        return in_turn(chapter, faults, deduplicate, wait, lines)


def in_turn(
    chapter: Chapter, faults: list[str], deduplicate: bool, wait: float, lines: int
) -> dict[str, Outcome]:
    """As `hurt_in_turn`, in a chapter that runs already."""
    outcomes = {}
    for fault in faults:
        chapter.mailbox.set(deduplicate=deduplicate)
        outcomes[fault] = hurt(chapter, fault, wait, lines)
        chapter.mailbox.mend()
        chapter.wait_until_ready()
    return outcomes


def letter() -> dict[str, Any]:
    return {"subject": "News", "body": "Hello", "recipients": addresses(MAILS)}


def send(chapter: Chapter, path: str, body: dict[str, Any]) -> str:
    """Hand a job in. Returns its id."""
    return str(served(lambda: post(chapter.url, path, body)).json()["id"])


def served(ask: Callable[[], requests.Response]) -> requests.Response:
    """The first answer that is not 503, which says "try again": nothing was accepted then.

    On a busy machine Redis may take longer than the web process waits for it.
    Raises a requests exception for any other error, and for a 503 after half a minute.
    """
    begun = time.monotonic()
    while (answer := ask()).status_code == 503 and (waited := time.monotonic() - begun) < 30:
        time.sleep(pause(waited))
    answer.raise_for_status()
    return answer


def arrived(chapter: Chapter, letters: list[str]) -> int:
    return sum(len(chapter.mailbox.messages(job)) for job in letters)


def look_up(chapter: Chapter, job: str) -> dict[str, Any]:
    """The job document. Raises a requests exception while the chapter cannot answer."""
    found: dict[str, Any] = served(
        lambda: requests.get(f"{chapter.url}/jobs/{job}", timeout=10)
    ).json()
    return found


def wait_for_ends(chapter: Chapter, ids: list[str], deadline: float) -> dict[str, dict[str, Any]]:
    """Each job's document by its id, once all have ended, or at the deadline."""
    while True:
        try:
            jobs = {job: look_up(chapter, job) for job in ids}
        except requests.RequestException:
            jobs = {}  # killed, and not yet back
        ended = jobs and all(job["state"] in ENDED for job in jobs.values())
        if ended or (jobs and time.monotonic() > deadline):
            return jobs
        if time.monotonic() > deadline + 60:
            raise LabError("The chapter did not come back within a minute.")
        time.sleep(0.1)
