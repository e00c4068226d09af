"""What the lab computes for lessons and notebooks, against examples worked out by hand.

The notebooks assert what they claim, but `make test` runs one of them. These run each time.
"""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lab import (
    autoscaling,
    backlog,
    crowds,
    experiments,
    following,
    growth,
    loadtest,
    queueing,
    retrying,
)
from lab.following import News

# --- A queue in front of slots --------------------------------------------------------


def test_erlang_c_is_that_of_the_books() -> None:
    assert queueing.utilisation(4, rate=10, service=0.2) == 0.5
    assert queueing.erlang_c(1, rate=0.5, service=1) == pytest.approx(0.5)  # one slot: its load
    assert queueing.erlang_c(2, rate=1, service=1) == pytest.approx(1 / 3)
    assert queueing.erlang_c(3, rate=4, service=0.5) == pytest.approx(4 / 9)
    assert queueing.erlang_c(2, rate=2, service=1) == 1


def test_the_mean_wait_is_that_of_the_books() -> None:
    assert queueing.mean_wait(1, rate=0.5, service=1) == pytest.approx(1)
    assert queueing.mean_wait(2, rate=1, service=1) == pytest.approx(1 / 3)
    assert queueing.mean_wait_constant(1, rate=0.5, service=1) == pytest.approx(0.5)
    # Tables of M/D/c have 0.1767 for two slots of which each is at work half of the time.
    assert queueing.mean_wait_constant(2, rate=1, service=1) == pytest.approx(0.1767, rel=0.01)
    for formula in (queueing.mean_wait, queueing.mean_wait_constant):
        assert formula(2, 2, 1) == math.inf


def test_an_ideal_queue_serves_in_order_of_arrival() -> None:
    arrivals = [0, 0.1, 0.2, 0.3, 5]
    assert queueing.replay(arrivals, service=1, slots=1) == pytest.approx([0, 0.9, 1.8, 2.7, 0])
    assert queueing.replay(arrivals, service=1, slots=2) == pytest.approx([0, 0, 0.8, 0.8, 0])
    low, high = queueing.scatter(2, rate=1, service=1, seconds=500, runs=40)
    assert low < queueing.mean_wait_constant(2, rate=1, service=1) < high


def test_the_fewest_slots_that_are_enough() -> None:
    assert growth.waiting_longer(2, load=1, seconds=0) == pytest.approx(1 / 3)
    assert growth.waiting_longer(2, load=1, seconds=2) == pytest.approx(math.exp(-2) / 3)
    assert growth.slots_needed(load=1, share=0.34) == 2
    assert growth.slots_needed(load=1, share=0.33) == 3  # of three slots: 1/11 must wait
    assert growth.slots_needed(load=1, share=0.09) == 4


# --- From one machine to many ---------------------------------------------------------


def test_newsletters_pass_stations_and_wait_where_all_are_busy() -> None:
    stations = [growth.Station("web", 1, 0.5), growth.Station("slots", 2, 2.0)]
    run = growth.simulate(stations, [10, 10, 10, 20])
    # The third is through at the web process after 1.5 s, and a slot is free after 2.5 s.
    assert run.waits.tolist() == [[0, 0], [0.5, 0], [1, 1], [0, 0]]
    assert run.took.tolist() == [2.5, 3, 4.5, 2.5]
    assert run.busy.tolist() == pytest.approx([1.5 / 10, 6 / 20])
    assert growth.limit(stations) == 1
    assert growth.fullest(stations).name == "slots"
    assert [each.servers for each in growth.enough(stations, rate=2.8)] == [2, 8]


def test_a_day_and_its_peak() -> None:
    assert growth.at_peak(86_400) == 3
    assert growth.a_day(growth.at_peak(5000)) == pytest.approx(5000)
    gaps = np.diff(growth.at_random(rate=4, count=4000))
    assert gaps.mean() == pytest.approx(0.25, rel=0.1)
    assert gaps.std() == pytest.approx(0.25, rel=0.1)  # exponential: as wide as its mean


def test_a_pool_of_workers_serves_turns_away_and_grows() -> None:
    at_once = np.zeros(autoscaling.SLOTS + 1)  # one more than a worker has slots
    day = autoscaling.live(np.append(at_once, 30.0), autoscaling.fixed, workers=1)
    assert day.waits.tolist() == [0] * autoscaling.SLOTS + [autoscaling.SERVICE, 0]
    assert day.worker_hours == pytest.approx(30 / 3600)
    late = np.append(at_once, 2.0)  # by then the fifth has waited for 2 s
    assert autoscaling.live(late, autoscaling.fixed, 1, bound=2.0).turned_away == 1
    assert autoscaling.live(late, autoscaling.fixed, 1, bound=2.1).turned_away == 0
    steady = np.arange(0, 200, 0.5)  # twice what one worker can do
    grown = autoscaling.live(steady, autoscaling.by_age, workers=1).looks
    more = grown[grown.workers > 1].second.min()
    assert autoscaling.COMES < more <= autoscaling.COMES + 2 * autoscaling.EVERY


def test_a_rule_adds_in_time_and_takes_away_what_is_idle() -> None:
    def view(**seen: float) -> autoscaling.View:
        usual: dict[str, Any] = {"age": 0, "calm": 0, "cpu": 0.5, "workers": 3, "coming": 0}
        return autoscaling.View(**usual | seen)

    for rule, add, remove in (
        (autoscaling.by_age, {"age": 2.1}, {"calm": 301}),
        (autoscaling.by_cpu, {"cpu": 0.71}, {"cpu": 0.29}),
    ):
        assert [rule(view(**seen)) for seen in (add, {}, remove)] == [1, 0, -1]
        assert rule(view(**remove, workers=autoscaling.LEAST)) == 0


# --- Floods and returns ---------------------------------------------------------------


def test_a_flood_is_due_and_flows_off_as_arithmetic_has_it() -> None:
    assert backlog.due_times([(2, 1), (1, 2)]) == [0, 0.5, 1, 2]
    flood = backlog.expected([(10, 2), (0, 4)], capacity=5)
    depth = flood.set_index(flood.seconds.round(2)).depth
    assert depth[[1.0, 2.0, 3.0]].tolist() == pytest.approx([5, 10, 5], abs=0.5)
    assert backlog.deepest(flood) == pytest.approx(2, abs=0.1)
    assert backlog.oldest(flood) == pytest.approx(4, abs=0.1)  # the last of the flood: since 2
    assert backlog.emptied(flood, after=2) == pytest.approx(4, abs=0.1)
    assert backlog.age_at(flood, depth=5) == pytest.approx(1.5, abs=0.1)


def test_jobs_come_back_together_and_those_who_never_get_in_are_given_up() -> None:
    together = retrying.simulate(retrying.constant, jobs=3, back=0, capacity=1)
    assert together.knocks == [2, 2, 2, 4, 4, 6]
    assert (together.given_up, together.over) == (0, 6)
    assert together.peak(since=0) == 3
    assert together.peak(since=3) == 2
    away = retrying.simulate(retrying.doubling, jobs=1, back=1000, capacity=1)
    assert away.knocks == [2, 6, 14, 22, 30]  # after 2, 4, 8, 8 and 8; the first try was at 0
    assert away.given_up == 1


# --- What is read from rows -----------------------------------------------------------


def row(name: str, start: float, latency_ms: float, **more: Any) -> dict[str, Any]:
    return {"name": name, "start": start, "latency_ms": latency_ms, "error": None, **more}


def test_arrivals_are_served_turned_away_or_never_heard_of_again() -> None:
    rows = pd.DataFrame(
        [
            *(row("own delay", start, 1.0, status=0) for start in (12, 10, 11, 13)),
            row("newsletter accepted", 10, 5.0, status=202),
            row("newsletter finished", 10, 1500.0, status=0),
            row("newsletter accepted", 11, 4.0, status=429, error="429"),
            row("newsletter accepted", 12, 6.0, status=503, error="503"),
            row("newsletter finished", 13, 9.0, status=0, error="FAILURE"),
        ]
    )
    found = crowds.arrivals(rows)
    assert found.due.tolist() == [0, 1, 2, 3]
    assert found.seconds.fillna(-1).tolist() == [1.5, -1, -1, -1]
    assert found.turned_away.tolist() == [False, True, False, False]


def test_a_rate_counts_the_gaps_and_not_the_ends() -> None:
    """Three ends, a second apart, are one a second."""
    ends = [row("newsletter finished", start, 500.0) for start in (10, 11, 12)]
    assert crowds.finished_a_second(pd.DataFrame([*ends, row("ping", 50, 1.0)])) == 1


def test_the_throughput_is_that_of_full_slots_over_their_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two slots, a second for each newsletter: two a second. The start-up does not count."""
    accepted = pd.DataFrame([row("newsletter finished", 0, 1.0)])
    monkeypatch.setattr(experiments, "publish", lambda *_, **__: accepted)
    last_mails = [4.5, 5.0, 6.0, 6.0, 7.0, 7.0]
    mails = [
        {"message_id": f"<{job}.{mail}@postroom.example>", "received": last - mail * 0.2}
        for job, last in enumerate(last_mails)
        for mail in range(5)
    ]
    nothing = lambda *_, **__: None  # noqa: E731
    mailbox = SimpleNamespace(empty=nothing, set=nothing, messages=lambda: mails)
    chapter: Any = SimpleNamespace(url="", mailbox=mailbox)
    assert experiments.throughput(chapter, slots=2, rounds=3) == pytest.approx(1)


def test_news_of_a_step_is_the_first_that_tells_of_it() -> None:
    news = [News(1.0, 1), News(2.0, 3), News(3.0, 5)]
    assert [following.first(news, step) for step in (1, 2, 3, 4)] == [1, 2, 2, 3]
    receipts = [
        SimpleNamespace(document={"done": done, "at": at}, latency=0.5)
        for done, at in ((1, 10.0), (2, 11.0), (2, 12.0))
    ]
    watcher: Any = SimpleNamespace(receipts=receipts)
    assert following.times(watcher) == {1: 10.0, 2: 11.0}
    assert following.news_of(watcher) == [News(10.5, 1), News(11.5, 2), News(12.5, 2)]


def test_a_picture_of_a_load_shows_answers_a_second_and_their_95th_percentile() -> None:
    """A hundred visits in each of two seconds; in the second one six of them are slow."""
    rows = [row("ping", 100 + n / 100, 1.0) for n in range(100)]
    rows += [row("ping", 101 + n / 100, 800.0 if n < 6 else 1.0) for n in range(100)]
    picture = loadtest.draw(pd.DataFrame(rows), pd.DataFrame(), "a title")
    answers, latency = (np.asarray(axes.lines[0].get_ydata()) for axes in picture.axes)
    assert answers.tolist() == [100, 100]
    assert latency.tolist() == [1, 800]
