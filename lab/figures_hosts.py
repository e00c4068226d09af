"""A figure of chapter 05: what becomes of the work when a host is cut off."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery import Celery
from redis import Redis

from lab import hosts
from lab.faults import arrived, look_up, wait_for_ends
from lab.hosts import Network
from lab.load import ENDED, addresses, post
from lab.results import spread
from lab.waiting import wait_until

MAILS = 40
"""Recipients of each of the two newsletters."""


@dataclass(frozen=True)
class CutOff:
    """What became of newsletters when a host that was at work on them was cut off."""

    host: str
    lost: int
    "Mails that nobody got."
    twice: int
    "Recipients who got a newsletter twice."
    seconds: float
    "From the cut until every newsletter had ended."
    away: float | None
    "Seconds after which the host was reconnected; None if that was when all had ended."
    back: float
    "From then until it asked for work again: TCP waits the longer, the longer it has waited."


def cut_off_worker() -> dict[str, Any]:
    """Cut a worker's host off in the middle of two newsletters, and count. Needs root on Linux."""
    rows: dict[str, Callable[[Network], CutOff]] = {
        "for good": cut_off,
        "until the other goes on with its work": lambda network: cut_off(network, come_back=True),
        "for good, and the mail server takes every copy": lambda network: cut_off(
            network, deduplicate=False
        ),
    }
    last = "idle, while ten newsletters come"
    found: dict[str, list[CutOff]] = {name: [] for name in [*rows, last]}
    with hosts.start(MAIL_DELAY=0.1) as network:
        for _ in range(3):
            for name, row in rows.items():
                found[name].append(row(network))
    # What Redis hands to a host that is not there may come to it late: that would disturb the rest.
    with hosts.start(MAIL_DELAY=0.1) as network:
        for _ in range(3):
            found[last].append(cut_off_while_they_come(network))
    return {"mails": 2 * MAILS} | {name: summary(runs) for name, runs in found.items()}


def summary(runs: list[CutOff]) -> dict[str, Any]:
    away = [run.away for run in runs if run.away is not None]
    return {
        "lost": spread([run.lost for run in runs]),
        "twice": spread([run.twice for run in runs]),
        "seconds": spread([run.seconds for run in runs]),
        "away": spread(away) if away else None,
        "back": spread([run.back for run in runs]),
    }


def cut_off(
    network: Network, mails: int = MAILS, come_back: bool = False, deduplicate: bool = True
) -> CutOff:
    """Cut off the host that has most to do with two newsletters, when a third is sent.

    With `come_back` it is reconnected in the worst moment: another host goes on with what it had
    in its hands. Else it is cut off until all have ended; then it is reconnected, to see whether
    it does harm. Raises LabError if the newsletters have not ended after two minutes.
    """
    for worker in ("worker1", "worker2"):
        wait_until(lambda: waits_for_work(network, worker), 120)  # noqa: B023
    network.mailbox.set(deduplicate=deduplicate)
    letters = [send(network, mails) for _ in range(2)]
    wait_until(lambda: sum(at_work(network).values()) >= 2)
    wait_until(lambda: arrived(network, letters) >= 2 * mails // 3)
    ((host, _),) = at_work(network).most_common(1)
    network.cut_off(host)
    begun = time.monotonic()
    away = None
    if come_back:
        network.mailbox.wait_until_quiet(2)  # the others have done what they had
        before = arrived(network, letters)
        wait_until(lambda: arrived(network, letters) > before)
        network.reconnect(host)
        away = time.monotonic() - begun
    return end(network, host, letters, mails, begun, away)


def cut_off_while_they_come(network: Network, letters: int = 10) -> CutOff:
    """Cut off a host that waits for work, and send newsletters at once.

    Redis takes the host for there for a second more, and hands it one of them.
    """
    network.mailbox.set(deduplicate=True)
    wait_until(lambda: waits_for_work(network, "worker1"))
    network.cut_off("worker1")
    begun = time.monotonic()
    sent = [send(network, 1) for _ in range(letters)]
    return end(network, "worker1", sent, 1, begun, None)


def waits_for_work(network: Network, host: str) -> bool:
    """Whether Redis has the requests of both workers of a host for their next task."""
    with Redis.from_url(network.redis_url) as redis:
        clients = redis.client_list()
    # "b": it is blocked, so the answer is still to come.
    waiting: list[str] = [client["addr"] for client in clients if "b" in client["flags"]]
    return sum(address.startswith(f"{network.addresses[host]}:") for address in waiting) == 2


def end(
    network: Network, host: str, letters: list[str], mails: int, begun: float, away: float | None
) -> CutOff:
    """Wait for the end of all newsletters, have the host back, and count."""
    wait_for_ends(network, letters, begun + 120)
    seconds = time.monotonic() - begun
    network.reconnect(host)
    connected = time.monotonic()
    wait_until(lambda: waits_for_work(network, host), 120)
    back = time.monotonic() - connected
    network.wait_until_ready()
    wait_until(lambda: not at_work(network))  # it has noticed what it missed
    assert all(look_up(network, job)["state"] in ENDED for job in letters)
    counts = [network.mailbox.count(addresses(mails), job) for job in letters]
    return CutOff(
        host=host,
        lost=sum(count.lost for count in counts),
        twice=sum(count.twice for count in counts),
        seconds=round(seconds, 1),
        away=away and round(away, 1),
        back=round(back, 1),
    )


def send(network: Network, mails: int) -> str:
    letter = {"subject": "News", "body": "Hello", "recipients": addresses(mails)}
    answer = post(network.url, "/newsletters", letter)
    answer.raise_for_status()
    return str(answer.json()["id"])


def at_work(network: Network) -> Counter[str]:
    """How many newsletters, or batches of them, each host has in its hands."""
    with Celery(broker=network.redis_url) as celery:
        found = celery.control.inspect(timeout=2, limit=4).active() or {}
    return Counter(
        worker.partition("@")[2]
        for worker, tasks in found.items()
        for task in tasks
        if task["name"] in ("newsletter", "batch")
    )
