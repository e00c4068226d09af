"""A day of a worker pool that grows and shrinks by a rule, simulated with simpy.

One line of newsletters, workers of SLOTS slots each; every EVERY seconds a rule looks at them.
Times are in seconds, rates in newsletters a second. The same seed gives the same day.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache

import numpy as np
import pandas as pd
import simpy

from lab.growth import Floats, Process
from lab.results import recorded

SLOTS = 4
"""Slots of a worker."""

SERVICE = 4.0
"""Seconds that a newsletter of 20 mails holds a slot."""

COMES = 60.0
"""Seconds from the decision until a new worker takes its first newsletter."""

EVERY = 10.0
"""Seconds between two looks of the rule."""

BOUND = 4.0
"""Seconds: chapter 05 lets nobody in while the first in the queue has waited for so long (429)."""

CALM = 300.0
"""Seconds for which the queue must have been empty before a worker is taken away."""

LEAST = 2
"""Workers that always stay."""

LOW, HIGH = 1.0, 6.0
"""Newsletters a second: at the begin and the end of a day, and in its middle."""

SPIKE_AT, SPIKE = 0.75, 180.0
"""Where in the day its spike begins (a share of its length), and for how many seconds it lasts."""


@cache
def cpu_share() -> float:
    """The share of a core that one slot at work uses: measured, `results/05_per_job.json`."""
    five_mails = float(recorded("05_per_job")["figures"]["mail, ms"]["median"]) / 1000
    return five_mails * 4 / SERVICE


@dataclass(frozen=True)
class View:
    """What a rule may look at.

    `age`: seconds that the first in the line has waited. `calm`: seconds since somebody was in
    line. `cpu`: the share of the workers' cores (one each) that is used. `workers` at work, and
    `coming`: those that have been asked for.
    """

    age: float
    calm: float
    cpu: float
    workers: int
    coming: int


Rule = Callable[[View], int]
"""How many workers to add (negative: to take away)."""


def by_age(view: View) -> int:
    """One more when the first has waited for half the bound; one less when nobody waits."""
    if view.age > BOUND / 2:
        return 1
    return -1 if view.calm > CALM and view.workers > LEAST else 0


def by_cpu(view: View) -> int:
    """One more above 70 % of the cores, one less below 30 %: what is set where nobody thinks."""
    if view.cpu > 0.7:
        return 1
    return -1 if view.cpu < 0.3 and view.workers > LEAST else 0


def fixed(view: View) -> int:
    """As many as there are."""
    return 0


@dataclass
class Day:
    """What a day brought.

    `looks`: what the rule saw, one row every EVERY seconds (`second`, and the fields of View).
    `waits`: seconds, of those who were let in. `turned_away`: how many were not. `worker_hours`:
    what is paid for, from the decision on.
    """

    looks: pd.DataFrame
    waits: Floats
    turned_away: int
    worker_hours: float

    def wait(self, percent: float) -> float:
        """The seconds that `percent` per cent of those let in waited at most."""
        return float(np.percentile(self.waits, percent))


@dataclass
class Pool:
    """The line, and the workers' slots in front of it."""

    env: simpy.Environment
    workers: int
    coming: int = 0
    busy: int = 0
    calm_since: float = 0.0
    line: deque[float] = field(default_factory=deque)
    waits: list[float] = field(default_factory=list)

    @property
    def age(self) -> float:
        return self.env.now - self.line[0] if self.line else 0.0

    def serve(self) -> None:
        """As long as a slot is free, begin with the first in the line."""
        while self.line and self.busy < SLOTS * self.workers:
            self.busy += 1
            self.waits.append(self.age)
            self.line.popleft()
            self.env.process(self.hold_a_slot())

    def hold_a_slot(self) -> Process:
        yield self.env.timeout(SERVICE)
        self.busy -= 1
        self.serve()

    def start_worker(self) -> Process:
        self.coming += 1
        yield self.env.timeout(COMES)
        self.coming -= 1
        self.workers += 1
        self.serve()

    def stop_worker(self) -> None:
        """Its slots end what they hold, and take nothing new."""
        self.workers -= 1
        self.calm_since = self.env.now

    def seen(self) -> View:
        if self.line:
            self.calm_since = self.env.now
        cpu = self.busy * cpu_share() / self.workers
        calm = self.env.now - self.calm_since
        return View(self.age, calm, cpu, self.workers, self.coming)


def live(arrivals: Floats, rule: Rule, workers: int, bound: float = math.inf) -> Day:
    """Let a pool that begins with so many workers live through a day's arrivals (seconds).

    Who comes while the first has waited for `bound` seconds is turned away, for good.
    """
    env = simpy.Environment()
    pool = Pool(env, workers)
    looks: list[dict[str, float]] = []
    turned_away = 0

    def come() -> Process:
        nonlocal turned_away
        for arrival in arrivals.tolist():
            yield env.timeout(max(0.0, arrival - env.now))
            if pool.age >= bound:
                turned_away += 1
            else:
                pool.line.append(env.now)
                pool.serve()

    def look() -> Process:
        while env.now < arrivals[-1]:
            view = pool.seen()
            looks.append({"second": env.now, **asdict(view)})
            change = rule(view)
            for _ in range(change):
                env.process(pool.start_worker())
            if change < 0:
                pool.stop_worker()
            yield env.timeout(EVERY)

    env.process(come())
    env.process(look())
    env.run()
    table = pd.DataFrame(looks)
    hours = float((table.workers + table.coming).sum() * EVERY / 3600)
    return Day(table, np.array(pool.waits), turned_away, hours)


# --- The day ----------------------------------------------------------------------------


def rate(second: Floats, length: float) -> Floats:
    """A wave from LOW to HIGH and back. Three quarters on, a spike: thrice that for SPIKE s."""
    wave = LOW + (HIGH - LOW) * np.sin(np.pi * second / length) ** 2
    begin = SPIKE_AT * length
    return np.where((second >= begin) & (second < begin + SPIKE), 3 * wave, wave)


def a_day(hours: float, seed: int = 1) -> Floats:
    """Arrivals at random (seconds) of a day that is `hours` long: see `rate`.

    A Poisson process whose rate changes, by thinning (Lewis and Shedler 1979).
    """
    chance, length = np.random.default_rng(seed), hours * 3600
    most = 3 * HIGH  # a second: no moment has more
    candidates = np.sort(chance.uniform(0, length, chance.poisson(most * length)))
    kept = chance.uniform(0, most, len(candidates)) < rate(candidates, length)
    return candidates[kept]
