"""What a chapter's mail server received, and the faults it is told to have."""

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import requests

from lab.waiting import pause


@dataclass(frozen=True)
class Count:
    """Mails of one newsletter: how many were due, and what became of them."""

    due: int
    received: int
    lost: int
    twice: int


class Mailbox:
    """The HTTP door of `mailserver.py`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def messages(self, job: str = "") -> list[dict[str, Any]]:
        """The messages kept so far, in order of arrival; of one job if `job` is its id.

        Each has `message_id`, `recipient`, `subject` and `received` (seconds since the epoch).
        """
        answer = requests.get(f"{self.url}/messages", params={"job": job}, timeout=30)
        answer.raise_for_status()
        messages: list[dict[str, Any]] = answer.json()
        return messages

    def count(self, recipients: list[str], job: str = "") -> Count:
        """Count how many of `recipients` got no mail, and how many got more than one."""
        mails = Counter(message["recipient"] for message in self.messages(job))
        return Count(
            due=len(recipients),
            received=sum(mails.values()),
            lost=sum(mails[recipient] == 0 for recipient in recipients),
            twice=sum(mails[recipient] > 1 for recipient in recipients),
        )

    def wait_for(self, mails: int, timeout: float) -> bool:
        """Wait until at least `mails` have arrived; False if they have not after `timeout` s."""
        begun = time.monotonic()
        while len(self.messages()) < mails:
            if (waited := time.monotonic() - begun) > timeout:
                return False
            time.sleep(pause(waited))
        return True

    def wait_until_quiet(self, seconds: float) -> None:
        """Wait until no mail has arrived for `seconds`, or a minute has passed."""
        deadline = time.monotonic() + 60
        arrived = -1
        while arrived != (arrived := len(self.messages())) and time.monotonic() < deadline:
            time.sleep(seconds)

    def empty(self) -> None:
        """Throw all messages away."""
        requests.delete(f"{self.url}/messages", timeout=30).raise_for_status()

    def set(self, **faults: Any) -> None:
        """Set faults while the server runs, by the names in `mailserver.Faults`.

        Raises ValueError for a fault that does not exist or a value that does not fit.
        """
        answer = requests.patch(f"{self.url}/faults", json=faults, timeout=30)
        if answer.status_code == 400:
            raise ValueError(f"The mail server does not know this fault: {answer.json()}")
        answer.raise_for_status()

    def mend(self) -> None:
        """Take all faults away."""
        requests.delete(f"{self.url}/faults", timeout=30).raise_for_status()
