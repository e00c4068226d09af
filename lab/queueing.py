"""A queue in front of slots: what the formulas say, and an ideal queue to replay arrivals in.

`slots` serve, `rate` come in a second, `service` is the seconds that one holds a slot. The
utilisation is rate × service / slots; from 1 on the queue has no end. Times are in seconds.
Formulas: Erlang 1917; see for instance Gross et al., "Fundamentals of Queueing Theory", chapter 3.
"""

import heapq
import math
import random
from collections.abc import Iterable

import numpy as np


def utilisation(slots: int, rate: float, service: float) -> float:
    """The share of its time in which a slot is at work, from 0 to 1 (more: it cannot keep up)."""
    return rate * service / slots


def erlang_c(slots: int, rate: float, service: float) -> float:
    """The probability that somebody who comes must wait, if arrivals are at random."""
    load = rate * service
    if load >= slots:
        return 1.0
    blocked = 1.0  # Erlang B, by its recursion: no factorials of large numbers
    for count in range(1, slots + 1):
        blocked = load * blocked / (count + load * blocked)
    return blocked / (1 - utilisation(slots, rate, service) * (1 - blocked))


def mean_wait(slots: int, rate: float, service: float) -> float:
    """The mean wait for a slot in M/M/c: arrivals and service times both at random."""
    if rate * service >= slots:
        return math.inf
    return erlang_c(slots, rate, service) * service / (slots - rate * service)


def mean_wait_constant(slots: int, rate: float, service: float) -> float:
    """The mean wait in M/D/c, where all take equally long: half of M/M/c near the limit.

    Cosmetatos' approximation (1975); exact for one slot.
    """
    if rate * service >= slots:
        return math.inf
    busy = utilisation(slots, rate, service)
    more = (1 - busy) * (slots - 1) * (math.sqrt(4 + 5 * slots) - 2) / (16 * busy * slots)
    return mean_wait(slots, rate, service) / 2 * (1 + more)


def replay(arrivals: Iterable[float], service: float, slots: int) -> list[float]:
    """What each would have waited for a slot in an ideal queue: first come, first served.

    `arrivals` are times in seconds, in order. Nothing is at random here: the same arrivals
    give the same waits.
    """
    free = [-math.inf] * slots
    waits = []
    for arrival in arrivals:
        begin = max(arrival, heapq.heappop(free))
        heapq.heappush(free, begin + service)
        waits.append(begin - arrival)
    return waits


def scatter(
    slots: int, rate: float, service: float, seconds: float, runs: int = 300
) -> tuple[float, float]:
    """Between which mean waits nine of ten runs of so many seconds lie, with no noise at all.

    Only chance differs between the runs: the arrivals.
    """
    chance = random.Random(1)  # noqa: S311  (no secret)
    means = []
    for _ in range(runs):
        gaps = (chance.expovariate(rate) for _ in range(max(1, round(rate * seconds))))
        means.append(float(np.mean(replay(np.cumsum(list(gaps)), service, slots))))
    low, high = np.percentile(means, [5, 95])
    return float(low), float(high)
