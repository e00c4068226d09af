"""How soon an outage of chapter 04 is noticed: what arithmetic says, and what was recorded."""

from typing import Any

import pandas as pd

from lab.outages import OUTAGES

ASKING = 0.7
"""Seconds from one question to the next: half a second is for the workers to answer."""


def expected(look_every: float) -> dict[str, tuple[float, float]]:
    """Between which seconds each outage is noticed, if a canary goes out each `look_every` s.

    A queue is stalled if nothing was taken for three canaries (`STALE` in `monitoring.py`); when
    the worker froze, the last one was up to a canary old. Redis has 0.4 s to answer
    (`jobs.py`). A lost upload is noticed when its report starts: it is put off by one second, beat
    looks for what is due as often as it sends canaries, and to start takes a moment.
    """
    stalled = (2 * look_every, 3 * look_every + ASKING)
    return {
        "mail-frozen": stalled,
        "takes-nothing": stalled,
        "redis-frozen": (0.4, 0.4 + ASKING),
        "lost-upload": (1.0, 1.2 + look_every),
    }


def table(figures: dict[str, Any]) -> pd.DataFrame:
    """The recorded outages, one a row: seconds (median) until each sign told; NaN: it did not."""
    rows = [
        {
            "what is broken": OUTAGES[name][0],
            **{sign: told["seconds"]["median"] if told else None for sign, told in signs.items()},
        }
        for name, signs in figures.items()
    ]
    return pd.DataFrame(rows).convert_dtypes()
