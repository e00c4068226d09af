"""Chapter 03's mail worker with one pool or another: what its slots cost, and what they do."""

from dataclasses import dataclass

from lab import faults
from lab.chapters import Chapter
from lab.load import addresses
from lab.waiting import wait_until

MAILS = 5  # a newsletter


@dataclass(frozen=True)
class Pool:
    """What a mail worker costs and does with all its slots at work."""

    mib: float
    "Memory of the worker with its processes. What they share counts once (macOS: not at all)."
    share: float
    "Newsletters finished per second, over the limit slots / service time."


def measure(chapter: Chapter, slots: int, rounds: int = 4, mail_delay: float = 0.2) -> Pool:
    """Fill the slots, read the memory, then count newsletters for `rounds` rounds.

    The mail server is silent at first, so each slot holds a newsletter. That first round is
    the start-up and is not counted.
    """
    chapter.mailbox.empty()
    chapter.mailbox.set(delay=mail_delay, silent=True)
    jobs = send(chapter, slots)
    wait_until(lambda: all(is_taken(chapter, job) for job in jobs))
    mib = chapter.memory("mail") / 2**20
    jobs += send(chapter, slots * rounds)
    chapter.mailbox.set(silent=False)
    wait_until(lambda: len(chapter.mailbox.messages()) >= MAILS * len(jobs), 180)
    ends: dict[str, float] = {}
    for message in chapter.mailbox.messages():
        ends[message["message_id"].partition(".")[0]] = message["received"]
    first, *_, last = sorted(ends.values())[slots - 1 :]
    chapter.mailbox.mend()
    return Pool(mib, rounds * MAILS * mail_delay / (last - first))


def send(chapter: Chapter, letters: int) -> list[str]:
    letter = {"subject": "News", "body": "Hello", "recipients": addresses(MAILS)}
    return [faults.send(chapter, "/newsletters", letter) for _ in range(letters)]


def is_taken(chapter: Chapter, job: str) -> bool:
    return bool(faults.look_up(chapter, job)["state"] != "PENDING")
