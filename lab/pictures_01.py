"""What notebook 01 draws: slots against their limit, the knee, a closed and an open crowd."""

from collections.abc import Iterable

import pandas as pd
from matplotlib.figure import Figure

from lab import plots, queueing
from lab.load import percentile


def slots(shares: dict[int, float]) -> Figure:
    """Newsletters a second by slots, one second each; `shares` are parts of the limit."""
    picture, grid = plots.figure(width=8, height=4.5)
    axes, counts = grid[0, 0], list(shares)
    axes.plot(counts, counts, "--", color=plots.RED, label="limit: slots / service time")
    measured = [count * share for count, share in shares.items()]
    axes.plot(counts, measured, "o", color=plots.BLUE, markersize=9, label="measured")
    axes.set(xscale="log", yscale="log", xlabel="slots", ylabel="newsletters a second")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_title("Slots decide how many are served")
    axes.legend()
    return picture


def knee(
    waits: dict[float, float],
    ideal: dict[float, float],
    slots: int,
    service: float,
    seconds: float,
) -> Figure:
    """Mean waits by arrivals a second (all in seconds): measured, replayed, and the formulas.

    The band is where nine of ten runs of `seconds` lie by chance alone.
    """
    picture, grid = plots.figure(height=5)
    axes, limit = grid[0, 0], slots / service
    rates = [limit * percent / 100 for percent in range(5, 98, 2)]
    low, high = zip(
        *(queueing.scatter(slots, rate, service, seconds) for rate in rates), strict=True
    )
    axes.fill_between(
        rates, ms(low), ms(high), color=plots.SKY, alpha=0.35, label="nine of ten such runs"
    )
    for formula, style, label in (
        (queueing.mean_wait, ":", "M/M/c: service times at random"),
        (queueing.mean_wait_constant, "-", "M/D/c: all take equally long"),
    ):
        expected = [formula(slots, rate, service) for rate in rates]
        axes.plot(rates, ms(expected), style, color=plots.GREY, label=label)
    for points, marker, color, label in (
        (ideal, "X", plots.ORANGE, "the same arrivals, ideal queue"),
        (waits, "o", plots.BLUE, "measured"),
    ):
        axes.plot(list(points), ms(points.values()), marker, color=color, markersize=9, label=label)
    axes.axvline(limit, linestyle="--", color=plots.RED, label="limit: slots / service time")
    highest = max([*waits.values(), *ideal.values()])
    axes.set(xlabel="arrivals a second", ylabel="mean wait for a slot, ms")
    axes.set_ylim(-5, max(150, 1100 * highest))
    axes.set_title("The knee")
    axes.legend(loc="upper left", fontsize=11)
    return picture


def ms(seconds: Iterable[float]) -> list[float]:
    return [1000 * each for each in seconds]


def crowds(rows: dict[str, pd.DataFrame]) -> Figure:
    """One heartbeat under the other: what each crowd felt, and the p99 that it reports."""
    picture, grid = plots.figure(rows=len(rows), height=2.9 * len(rows))
    for axes, (name, each) in zip(grid[:, 0], rows.items(), strict=True):
        plots.heartbeat(axes, each, each.start.min())
        p99 = percentile(each.latency_ms, 99)
        axes.set_title(f"{name} crowd: {len(each)} requests, p99 {p99:.0f} ms")
        axes.set_ylabel("latency")
    grid[-1, 0].set_xlabel("seconds")
    return picture
