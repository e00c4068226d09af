"""Ten ways in which chapter 04 goes wrong, each by one command, and how to mend it."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import requests
from celery import Celery

from lab.load import ENDED, addresses
from lab.mailbox import Mailbox


class Running(Protocol):
    """A chapter that runs: `lab.Chapter`, or the one that `make 04` has started."""

    url: str
    redis_url: str
    mailbox: Mailbox
    data: Path
    pids: dict[str, int]


Outage = Callable[[Running], None]


def freeze(name: str) -> Outage:
    """The process exists and does nothing (SIGSTOP)."""

    def outage(chapter: Running) -> None:
        os.killpg(chapter.pids[name], signal.SIGSTOP)

    return outage


def take_nothing(chapter: Running) -> None:
    """The report worker is connected, answers, and takes nothing from its queue."""
    tell_report_worker(chapter, "cancel_consumer")


def tell_report_worker(chapter: Running, command: str) -> None:
    with Celery(broker=chapter.redis_url) as celery:
        worker = f"report@{socket.gethostname()}"
        celery.control.broadcast(command, arguments={"queue": "reports"}, destination=[worker])


def drop_mails(chapter: Running) -> None:
    """The mail server drops the connection at every mail; three newsletters are sent."""
    chapter.mailbox.set(drop_every=1)
    send_newsletters(chapter, 3)


def say_nothing(chapter: Running) -> None:
    """The mail server takes mails and does not answer; forty newsletters are sent."""
    chapter.mailbox.set(silent=True)
    send_newsletters(chapter, 40)


def send_newsletters(chapter: Running, count: int) -> None:
    letter = {"subject": "News", "body": "Hello", "recipients": addresses(5)}
    for _ in range(count):
        requests.post(f"{chapter.url}/newsletters", json=letter, timeout=10).raise_for_status()


def flood(chapter: Running) -> None:
    """Fifty long reports at once."""
    for _ in range(50):
        requests.post(f"{chapter.url}/reports", json={"lines": 500_000}, timeout=10)


def lose_upload(chapter: Running) -> None:
    """The file of a report is gone before a worker reads it: no retry can help."""
    log = {"log": ("access.log", b"a line\n" * 10)}
    answer = requests.post(f"{chapter.url}/reports?countdown=1", files=log, timeout=10)
    (chapter.data / "uploads" / f"{answer.json()['id']}.log").unlink()


OUTAGES: dict[str, tuple[str, Outage]] = {
    "mail-frozen": ("the mail worker is frozen", freeze("mail")),
    "takes-nothing": ("the report worker answers, and takes nothing", take_nothing),
    "web-frozen": ("the web process is frozen", freeze("web")),
    "redis-frozen": ("Redis hangs", freeze("redis")),
    "beat-frozen": ("beat is frozen", freeze("beat")),
    "flower-frozen": ("Flower is frozen", freeze("flower")),
    "drops": ("the mail server drops every mail", drop_mails),
    "silent": ("the mail server takes mails and says nothing", say_nothing),
    "flood": ("fifty long reports come at once", flood),
    "lost-upload": ("the file of a report is gone", lose_upload),
}
"""Each outage by the name that `make fault` takes: what it is, and what does it."""


def mend(chapter: Running) -> None:
    """Take every outage away, and the jobs that it has left."""
    for pid in chapter.pids.values():
        os.killpg(pid, signal.SIGCONT)
    chapter.mailbox.mend()
    tell_report_worker(chapter, "add_consumer")
    deadline = time.monotonic() + 60
    while open_jobs := [job for job in recent(chapter) if job["state"] not in ENDED]:
        for job in open_jobs:
            requests.delete(f"{chapter.url}/jobs/{job['id']}", timeout=10)
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    requests.delete(f"{chapter.url}/dead-letters", timeout=10)


def recent(chapter: Running) -> list[dict[str, str]]:
    found: list[dict[str, str]] = requests.get(f"{chapter.url}/jobs", timeout=10).json()
    return found
