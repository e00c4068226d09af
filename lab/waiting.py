"""One way to wait: for a condition, bounded, and the more patient the longer it takes."""

import time
from collections.abc import Callable
from typing import Any

from lab.errors import LabError


def wait_until(condition: Callable[[], Any], timeout: float = 60.0) -> None:
    """Wait until `condition()` is true. Raises LabError if it is not within `timeout` seconds.

    It is asked 50 times a second at first, then less often: late by a twentieth of the wait at
    the most, and by 0.2 s. Questions cost, and what is waited for runs on the same machine.
    """
    begun = time.monotonic()
    while not condition():
        waited = time.monotonic() - begun
        if waited > timeout:
            raise LabError(f"What was waited for did not come within {timeout:g} s.")
        time.sleep(pause(waited))


def pause(waited: float) -> float:
    """Seconds until the next question of one who has waited so long."""
    return min(max(0.02, waited / 20), 0.2)
