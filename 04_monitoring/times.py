"""How long a worker waits for what, in seconds, and which wait must be shorter than which."""

import os

VISIBILITY_TIMEOUT = float(os.environ.get("VISIBILITY_TIMEOUT", "10"))
"""Redis delivers a message again when it has not been acknowledged for this long."""
LEASE = float(os.environ.get("LEASE", "5"))
"""The job of a dead worker is free after this, and a second copy of its message waits so long."""
RETRY_AFTER = float(os.environ.get("RETRY_AFTER", "2"))
"""A job that could not be finished is tried again after this, then after twice as long."""
LONGEST_RETRY = float(os.environ.get("LONGEST_RETRY", "8"))
"""No retry waits longer than this."""
SOFT_SHUTDOWN = float(os.environ.get("SOFT_SHUTDOWN", "3"))
"""A worker that is told to stop ends its tasks within this, or gives them back."""


def check(**waits: float) -> None:
    """Raise ValueError for a wait that is not shorter than the visibility timeout.

    A worker holds a message that waits. If Redis lost patience first, it would deliver a copy
    each time, although the worker is alive.
    """
    for name, seconds in waits.items():
        if not 0 < seconds < VISIBILITY_TIMEOUT:
            raise ValueError(
                f"{name} is {seconds:g} s. It must be more than 0, and less than "
                f"VISIBILITY_TIMEOUT, which is {VISIBILITY_TIMEOUT:g} s."
            )


check(LEASE=LEASE, LONGEST_RETRY=LONGEST_RETRY)
