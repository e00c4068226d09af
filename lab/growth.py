"""From one machine to many, simulated: newsletters pass stations, and wait where all are busy.

The simulation is simpy's: processes that wait for each other on a clock of its own. Times are in
seconds, rates in newsletters a second. Everything at random comes from a seed, so the same call
gives the same numbers. What a newsletter costs each station is measured: `results/05_per_job.json`.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from lab.queueing import erlang_c
from lab.results import recorded

Floats = NDArray[np.float64]
Process = Generator[simpy.Event, Any, None]
"""What simpy runs: a function that yields whatever it waits for."""

MAILS, MAIL = 5, 0.2
"""A newsletter: so many mails, and the seconds that the mail server takes for each."""

DAY, PEAK = 86_400, 3
"""Seconds of a day; and how much more comes at its peak than on average."""


@dataclass(frozen=True)
class Station:
    """Where newsletters wait for their turn: `servers` serve, each for `service` seconds.

    `random`: the service times are exponential with that mean, else all the same.
    """

    name: str
    servers: int
    service: float
    random: bool = False

    @property
    def limit(self) -> float:
        """Newsletters a second, at most."""
        return self.servers / self.service


@dataclass(frozen=True)
class Run:
    """What became of N newsletters at K stations.

    `waits` (N × K, seconds): for a turn at each station. `took` (N, seconds): from arrival to end.
    `busy` (K): the share of its time that a server was at work, while newsletters arrived.
    """

    waits: Floats
    took: Floats
    busy: Floats


def newsletter(
    env: simpy.Environment, desks: list[simpy.Resource], services: Floats, begun: Floats
) -> Process:
    """One newsletter goes from desk to desk: waits for a turn, begins, holds it, goes on."""
    for number, desk in enumerate(desks):
        with desk.request() as turn:
            yield turn
            begun[number] = env.now
            yield env.timeout(services[number])


def simulate(
    stations: Sequence[Station],
    arrivals: Sequence[float] | Floats,
    services: Floats | None = None,
    seed: int = 1,
) -> Run:
    """Send newsletters, which come at `arrivals` (N times, in order), through all stations.

    `services` (N × K, seconds): how long each holds each station, if not as the stations say.
    """
    times = np.asarray(arrivals, dtype=float) - arrivals[0]
    held = draw(stations, len(times), seed) if services is None else services
    begun = np.zeros_like(held)
    env = simpy.Environment()
    desks = [simpy.Resource(env, station.servers) for station in stations]

    def come() -> Process:
        for time, services, row in zip(times.tolist(), held, begun, strict=True):
            yield env.timeout(max(0.0, time - env.now))
            env.process(newsletter(env, desks, services, row))

    env.process(come())
    env.run()
    ends = begun + held
    asked = np.column_stack([times, ends[:, :-1]])
    at_work = np.clip(times[-1] - begun, 0, held).sum(axis=0)
    servers = np.array([station.servers for station in stations])
    return Run(begun - asked, ends[:, -1] - times, at_work / (servers * times[-1]))


def draw(stations: Sequence[Station], count: int, seed: int) -> Floats:
    """Service times for `count` newsletters (count × K, seconds)."""
    chance = np.random.default_rng([seed, 1])
    return np.column_stack(
        [
            chance.exponential(each.service, count) if each.random else [each.service] * count
            for each in stations
        ]
    )


def at_random(rate: float, count: int, seed: int = 1) -> Floats:
    """`count` arrivals at random, `rate` a second (seconds; the gaps are exponential)."""
    return np.random.default_rng([seed, 2]).exponential(1 / rate, count).cumsum()


def one_station(load: float, slots: int, count: int, random: bool, seed: int = 1) -> Floats:
    """Waits at one station whose service takes 1 s, `load` a second coming (count, seconds).

    The first who come find it empty: those of the first five seconds are left out.
    """
    early = round(5 * load)
    run = simulate(
        [Station("slots", slots, 1.0, random)], at_random(load, early + count, seed), seed=seed
    )
    return run.waits[early:, 0]


# --- The Postroom as stations -----------------------------------------------------------


def postroom(
    slots: int = 16,
    web_processes: int = 1,
    mail_cores: int = 1,
    mails_a_second: float = 1000,
    redis_cores: int = 1,
) -> list[Station]:
    """Chapter 05 as stations in a row, with its settings as defaults.

    The costs of web, Redis and mail worker are measured (CPU). A slot is held for MAILS × MAIL.
    What the mail server takes a second is an assumption: ask yours.
    """
    costs: dict[str, Any] = recorded("05_per_job")["figures"]

    def cpu(service: str) -> float:
        return float(costs[f"{service}, ms"]["median"]) / 1000

    return [
        Station("web process", web_processes, cpu("web")),
        Station("Redis", redis_cores, cpu("redis")),
        Station("slots", slots, MAILS * MAIL),
        Station("mail cores", mail_cores, cpu("mail")),
        Station("mail server", 1, MAILS / mails_a_second),
    ]


def at_peak(a_day: float) -> float:
    """Newsletters a second at the peak of a day that brings `a_day`."""
    return a_day / DAY * PEAK


def a_day(rate: float) -> float:
    """Newsletters of a day whose peak brings `rate` a second: the reverse of `at_peak`."""
    return rate * DAY / PEAK


def limit(stations: Sequence[Station]) -> float:
    """Newsletters a second that all stations in a row can bear."""
    return min(station.limit for station in stations)


def fullest(stations: Sequence[Station]) -> Station:
    """The station that gives out first."""
    return min(stations, key=lambda station: station.limit)


def peak(stations: Sequence[Station], rate: float, seconds: float) -> Run:
    """A peak of so many seconds, or of 500 newsletters if those are more."""
    return simulate(stations, at_random(rate, max(500, round(rate * seconds))))


def enough(stations: Sequence[Station], rate: float, busy: float = 0.7) -> list[Station]:
    """The same stations with as many servers as keep each at most so busy; at least one.

    The mail server is one: it gets faster instead.
    """
    return [
        replace(each, service=min(each.service, busy / rate))
        if each.name == "mail server"
        else replace(each, servers=max(1, math.ceil(rate * each.service / busy)))
        for each in stations
    ]


# --- Headroom ---------------------------------------------------------------------------


def waiting_longer(slots: int, load: float, seconds: float) -> float:
    """The share of those who wait longer than `seconds` in M/M/c, if service takes 1 s.

    Erlang C × exp(-(slots - load) × seconds); see `lab.queueing`.
    """
    return erlang_c(slots, load, 1.0) * math.exp(-(slots - load) * seconds)


def slots_needed(load: float, seconds: float = 0.0, share: float = 0.05) -> int:
    """The fewest slots with which at most `share` wait longer than `seconds` (service: 1 s)."""
    low, high = math.floor(load), 2 * math.ceil(load) + 10
    while high - low > 1:
        middle = (low + high) // 2
        enough = middle > load and waiting_longer(middle, load, seconds) <= share
        low, high = (low, middle) if enough else (middle, high)
    return high
