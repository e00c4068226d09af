"""The service level as code: was it kept, was it broken, or can this run not tell?

A percentile of a few hundred answers is an estimate. Its 95 % confidence interval comes from the
ranks of the sorted answers alone, so it holds for every distribution (see for instance Hahn and
Meeker, "Statistical Intervals", 1991, section 5.2). A promise is kept if the whole interval is
within it, broken if the whole interval is beyond, and else the run was too short to tell.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

KEPT, BROKEN, NOISY = "kept", "BROKEN", "too noisy, run again"
Z = 1.96  # 95 % of a normal distribution lie within so many standard deviations

Times = Mapping[int, int]
"""How many answers took so many milliseconds, as Locust counts them."""


@dataclass(frozen=True)
class Promise:
    """`percentile` per cent of the rows of this name take at most `ms` milliseconds."""

    row: str
    percentile: float
    ms: float


@dataclass(frozen=True)
class Judgement:
    """What was promised, what was found, and the verdict."""

    promise: str
    found: str
    verdict: str


@dataclass(frozen=True)
class ServiceLevel:
    """All promises. `errors` is the largest share of failed requests."""

    promises: tuple[Promise, ...]
    errors: float
    own_delay_ms: float

    def judge(self, rows: Mapping[str, tuple[Times, int]]) -> list[Judgement]:
        """Judge a run by the times and the number of failures of each of its rows."""
        found = [
            judge(promise, rows[promise.row][0]) for promise in self.promises if promise.row in rows
        ]
        delay = rows.get("own delay", ({}, 0))[0]
        asked = {name: row for name, row in rows.items() if name != "own delay"}
        total = sum(sum(times.values()) for times, _ in asked.values())
        found.append(judge_errors(self.errors, sum(failed for _, failed in asked.values()), total))
        if delay:
            late = percentile_interval(delay, 99)[0]
            noisy = late > self.own_delay_ms
            promise = f"Locust itself: p99 late by at most {self.own_delay_ms:g} ms"
            found.append(Judgement(promise, f"{late:g} ms or more", NOISY if noisy else KEPT))
            if noisy:  # then nothing else that it says is worth anything
                found = [Judgement(each.promise, each.found, NOISY) for each in found]
        return found


def read(path: Path) -> ServiceLevel:
    """Read `slo.toml`. Raises KeyError or TypeError if something is missing or misspelt."""
    text = tomllib.loads(path.read_text())
    promises = tuple(Promise(**entry) for entry in text["promise"])
    return ServiceLevel(promises, text["errors"]["share"], text["noise"]["own_delay_ms"])


def judge(promise: Promise, times: Times) -> Judgement:
    low, high = percentile_interval(times, promise.percentile)
    verdict = KEPT if high <= promise.ms else BROKEN if low > promise.ms else NOISY
    count = sum(times.values())
    return Judgement(
        f"{promise.row}: p{promise.percentile:g} at most {promise.ms:g} ms",
        f"{low:g}–{high:g} ms, of {count} answers",
        verdict,
    )


def percentile_interval(times: Times, percentile: float) -> tuple[float, float]:
    """The smallest and the largest value that the percentile may have, with 95 % confidence.

    The largest is infinite if there are too few answers to tell.
    """
    count, share = sum(times.values()), percentile / 100
    middle = count * share
    deviation = Z * math.sqrt(count * share * (1 - share))
    return ranked(times, math.floor(middle - deviation)), ranked(
        times, math.ceil(middle + deviation) + 1
    )


def ranked(times: Times, rank: int) -> float:
    """The answer of this rank, from 1; 0 before the first, infinity after the last."""
    if rank < 1:
        return 0.0
    for value in sorted(times):
        rank -= times[value]
        if rank <= 0:
            return float(value)
    return math.inf


def judge_errors(share: float, failed: int, total: int) -> Judgement:
    low, high = share_interval(failed, total)
    verdict = KEPT if high <= share else BROKEN if low > share else NOISY
    return Judgement(f"errors: at most {share:.1%}", f"{failed} of {total} requests", verdict)


def share_interval(part: int, total: int) -> tuple[float, float]:
    """A share's 95 % confidence interval (Wilson 1927)."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = part / total, Z * Z
    middle = share + z2 / (2 * total)
    margin = Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return (middle - margin) / (1 + z2 / total), (middle + margin) / (1 + z2 / total)


def exit_code(judgements: list[Judgement]) -> int:
    """0: all is kept; 1: something is broken; 2: too noisy to tell, or nothing was asked."""
    verdicts = {judgement.verdict for judgement in judgements}
    return 1 if BROKEN in verdicts else 2 if NOISY in verdicts or not verdicts else 0


def to_text(judgements: list[Judgement]) -> str:
    width = max(len(judgement.promise) for judgement in judgements)
    lines = [f"{each.promise:<{width}}  {each.verdict}: {each.found}" for each in judgements]
    return "\n".join(["", "Service level", *lines])
