"""The service level: when is a promise kept, when broken, and when can a run not tell?"""

import random
from collections import Counter
from pathlib import Path

import pytest

import slo

LEVEL = slo.read(Path(__file__).with_name("slo.toml"))
PROMISE = slo.Promise("ping", 95, 200)


def times(fast: int, slow: int) -> dict[int, int]:
    return {20: fast, 900: slow}


@pytest.mark.parametrize(
    ("fast", "slow", "verdict"),
    [
        (1000, 0, slo.KEPT),
        (980, 20, slo.KEPT),
        (955, 45, slo.NOISY),  # 4.5 % of a thousand may be 6 % of all
        (900, 100, slo.BROKEN),
        (20, 0, slo.NOISY),  # twenty answers do not know their 95th percentile
        (0, 20, slo.BROKEN),  # but that they are all too slow they do know
    ],
)
def test_a_verdict_needs_enough_answers(fast: int, slow: int, verdict: str) -> None:
    assert slo.judge(PROMISE, times(fast, slow)).verdict == verdict


def test_the_limit_itself_is_kept() -> None:
    assert slo.judge(PROMISE, {200: 1000}).verdict == slo.KEPT
    assert slo.judge(PROMISE, {201: 1000}).verdict == slo.BROKEN


@pytest.mark.parametrize("percentile", [50, 95, 99])
def test_the_interval_has_the_true_percentile_in_it_19_times_of_20(percentile: float) -> None:
    """Of 400 samples of 1 000 from a distribution whose percentiles are known: 1 to 10 000 ms."""
    dice = random.Random(5)  # noqa: S311
    hits = 0
    for _ in range(400):
        sample = Counter(dice.randint(1, 10_000) for _ in range(1000))
        low, high = slo.percentile_interval(sample, percentile)
        hits += low <= percentile * 100 <= high
    assert 0.92 <= hits / 400 <= 0.99


def test_errors_are_judged_by_their_share() -> None:
    assert slo.judge_errors(0.01, 0, 2000).verdict == slo.KEPT
    assert slo.judge_errors(0.01, 0, 20).verdict == slo.NOISY
    assert slo.judge_errors(0.01, 100, 2000).verdict == slo.BROKEN
    assert slo.judge_errors(0.01, 0, 0).verdict == slo.NOISY


def test_what_was_not_asked_for_is_not_judged() -> None:
    judged = LEVEL.judge({"ping": (times(1000, 0), 0)})
    assert [each.promise.split(":")[0] for each in judged] == ["ping", "errors"]
    assert slo.exit_code(judged) == 0


def test_one_broken_promise_is_enough() -> None:
    kept, broken = (times(1000, 0), 0), (times(0, 1000), 0)
    assert slo.exit_code(LEVEL.judge({"ping": kept, "newsletter accepted": broken})) == 1
    assert slo.exit_code(LEVEL.judge({"ping": kept, "newsletter accepted": kept})) == 0
    few = (times(10, 0), 0)
    assert slo.exit_code(LEVEL.judge({"ping": few, "newsletter accepted": kept})) == 2
    assert slo.exit_code(LEVEL.judge({"ping": few, "newsletter accepted": broken})) == 1


def test_a_late_locust_can_judge_nothing() -> None:
    own_delay = ({1: 900, 500: 100}, 0)
    judged = LEVEL.judge({"ping": (times(0, 1000), 0), "own delay": own_delay})
    assert slo.exit_code(judged) == 2
    in_time = ({1: 1000}, 0)
    judged = LEVEL.judge({"ping": (times(0, 1000), 0), "own delay": in_time})
    assert slo.exit_code(judged) == 1


def test_nothing_asked_is_not_a_success() -> None:
    assert slo.exit_code(LEVEL.judge({})) == 2
    assert slo.exit_code([]) == 2


def test_the_verdicts_can_be_read() -> None:
    text = slo.to_text(LEVEL.judge({"ping": (times(1000, 0), 0)}))
    assert "ping: p99 at most 200 ms" in text
    assert "kept: 20–20 ms, of 1000 answers" in text


def test_each_promise_is_about_a_row_that_locust_writes() -> None:
    """One that is misspelt would never be judged, and so never be broken."""
    jobs = [
        f"{kind} {end}" for kind in ("newsletter", "report") for end in ("accepted", "finished")
    ]
    assert [promise.row for promise in LEVEL.promises] == ["ping", *jobs]
    text = (Path(__file__).parent / "locustfile.py").read_text()
    for written in ('"ping"', 'f"{kind} accepted"', 'f"{kind} finished"'):
        assert written in text
