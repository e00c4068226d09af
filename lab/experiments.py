"""The measurements that are the same in every chapter."""

import re
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import requests

from lab.chapters import Chapter, LabError
from lab.load import (
    Visit,
    addresses,
    finish,
    finished,
    locust,
    make_report,
    post,
    publish,
    send_newsletter,
    visitor,
    wait_for_rows,
)
from lab.mailbox import Count

MAIL_DELAY = 0.1


@dataclass(frozen=True)
class Heartbeat:
    """A visitor's requests, and when the newsletter and the report were under way."""

    visit: Visit
    newsletter: tuple[float, float]
    report: tuple[float, float]
    accepted: float
    "Seconds until the POST of a newsletter was answered; from chapter 02 on the median of three."


def heartbeat(chapter: Chapter, recipients: int = 20, lines: int = 200_000) -> Heartbeat:
    """What a visitor feels while a newsletter goes out, then while a report is made.

    A first small newsletter, not counted, opens the connections that later ones find open.
    """
    send_newsletter(chapter.url, recipients=1)
    with visitor(chapter.url, rate=20) as visit:
        time.sleep(0.5)
        begun = time.time()
        accepted = [newsletter(chapter, recipients)]
        sent = time.time()
        time.sleep(0.5)
        asked = time.time()
        make_report(chapter.url, lines)
        made = time.time()
        time.sleep(0.5)
    while chapter.number > "01" and len(accepted) < 3:  # a single one may meet anything
        accepted.append(newsletter(chapter, 1))
    return Heartbeat(visit, (begun, sent), (asked, made), statistics.median(accepted))


def newsletter(chapter: Chapter, recipients: int) -> float:
    """Send a newsletter, and wait for its end. Seconds until the POST was answered."""
    letter = {"subject": "News", "body": "Hello", "recipients": addresses(recipients)}
    begun = time.monotonic()
    answer = post(chapter.url, "/newsletters", letter)
    accepted = time.monotonic() - begun
    finish(chapter.url, answer)
    return accepted


def throughput(chapter: Chapter, slots: int, rounds: int = 4, mail_delay: float = 0.2) -> float:
    """Newsletters finished per second, over the limit `slots / service time`.

    The service time is arithmetic: 5 mails of `mail_delay` seconds each. Twice as many
    clients as slots keep every slot busy for `rounds` rounds. The first round is the start-up,
    when all clients come at once: counted are the newsletters after it, from its end to the last.
    A newsletter ends when its last mail arrives: the mail server writes down when.
    """
    recipients = 5
    chapter.mailbox.empty()
    chapter.mailbox.set(delay=mail_delay)
    rows = publish(
        chapter.url, clients=2 * slots, newsletters=rounds * slots, recipients=recipients
    )
    failed = rows[rows.name.str.startswith("newsletter")].error.dropna()
    if len(failed):
        raise LabError(f"Newsletters failed: {failed.unique()}")
    last_mails: dict[str, float] = {}
    for message in chapter.mailbox.messages():
        job = message["message_id"].partition(".")[0]
        last_mails[job] = message["received"]
    ends = sorted(last_mails.values())
    begin, end = ends[slots - 1], ends[-1]
    return (len(ends) - slots) / (end - begin) / (slots / (recipients * mail_delay))


def crash(chapter: Chapter, process: str, recovers_within: float = 0.0) -> Count:
    """`kill -9` of `process` in the middle of a newsletter: who got mail, who got it twice?

    The process is started again (the chapter runs with `restart`), and has `recovers_within`
    seconds to finish the work by itself; nobody sends the newsletter a second time.
    """
    recipients = 20
    chapter.mailbox.empty()
    chapter.mailbox.set(delay=MAIL_DELAY)
    letter = {"subject": "News", "body": "Hello", "recipients": addresses(recipients)}
    sender = threading.Thread(target=send_and_forget, args=(chapter.url, letter))
    sender.start()
    chapter.mailbox.wait_for(recipients // 3, timeout=30)
    chapter.hurt(process)
    sender.join()
    chapter.wait_until_ready()
    chapter.mailbox.wait_for(recipients, timeout=recovers_within)
    chapter.mailbox.wait_until_quiet(10 * MAIL_DELAY)
    return chapter.mailbox.count(addresses(recipients))


@contextmanager
def deepest_queue(chapter: Chapter, asked: bool = True) -> Iterator[list[int]]:
    """How many tasks wait in the mail queue, ten times a second; nothing if not `asked`."""
    depths: list[int] = []
    over = threading.Event()

    def look() -> None:
        while asked and not over.wait(0.1):
            text = requests.get(f"{chapter.url}/metrics", timeout=10).text
            found = re.search(r'^postroom_queue_messages{queue="mail"} (\S+)', text, re.MULTILINE)
            depths.append(int(float(found[1])) if found else 0)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield depths
    finally:
        over.set()
        looking.join()


def noticed(chapter: Chapter, process: str, timeout: float = 60.0) -> float:
    """Freeze `process`: seconds until `/health/workers` is not 200. Raises LabError if never."""
    chapter.hurt(process, "SIGSTOP")
    begun = time.monotonic()
    try:
        while requests.get(f"{chapter.url}/health/workers", timeout=10).ok:
            if time.monotonic() - begun > timeout:
                raise LabError(f"Nobody noticed a frozen {process} within {timeout:g} s.")
            time.sleep(0.1)
        return round(time.monotonic() - begun, 1)
    finally:
        chapter.hurt(process, "SIGCONT")


def stall(
    chapter: Chapter, process: str, stall: float, seconds: int, rate: int = 50
) -> dict[str, pd.DataFrame]:
    """A closed and an open crowd visit at the same time, and halfway `process` stands still.

    Each crowd is one user who asks for `/ping` `rate` times a second, for `seconds`; the
    standstill lasts `stall` seconds. Returns their rows, under "closed" and "open".
    """
    users = {"closed": "Visitor", "open": "OpenVisitor"}
    options = ("--rate", str(rate), "-t", f"{seconds}s", "--arrivals", "constant")
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unblocked-")))
        crowds = {}
        for name, user in users.items():
            (place / name).mkdir()
            path = place / name / "rows.csv"
            crowds[path] = stack.enter_context(locust(chapter.url, user, path, *options))
        for path, crowd in crowds.items():
            wait_for_rows(crowd, path, wanted=3)
        time.sleep(seconds / 2)
        chapter.hurt(process, "SIGSTOP")
        time.sleep(stall)
        chapter.hurt(process, "SIGCONT")
        for crowd in crowds.values():
            finished(crowd, timeout=seconds + 60)
        rows = {path.parent.name: pd.read_csv(path) for path in crowds}
    return {name: each[each.name == "ping"] for name, each in rows.items()}


def send_and_forget(url: str, letter: dict[str, object]) -> None:
    try:
        post(url, "/newsletters", letter)
    except requests.RequestException:
        pass  # the server was killed before it answered: that is the experiment
