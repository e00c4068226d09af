"""What notebook 07 draws: a simulation beside what it simulates, walls, headroom, a day."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab import plots
from lab.autoscaling import BOUND, SPIKE_AT, Day, rate
from lab.growth import Floats, Run, Station, a_day, fullest, limit, slots_needed

COLORS = [plots.BLUE, plots.ORANGE, plots.GREEN, plots.SKY, plots.GREY]
MARKERS = ["o", "s", "^", "D", "X"]

HOPELESS = 600
"""Seconds: a queue of this age is not drawn beside those that only had a spike."""


def against(measured: Mapping[float, pd.DataFrame], simulated: Mapping[float, Floats]) -> Figure:
    """The wait of each newsletter, measured and simulated, by the part of the limit that came."""
    picture, grid = plots.figure(rows=len(measured), height=3.2 * len(measured))
    for axes, (part, rows) in zip(grid[:, 0], measured.items(), strict=True):
        axes.plot(rows.accepted, rows.wait, "o", color=plots.BLUE, label="measured")
        axes.step(
            rows.accepted, simulated[part], color=plots.ORANGE, where="mid", label="simulated"
        )
        axes.axhline(
            rows.held.median(), linestyle="--", color=plots.RED, label="time in the slot (median)"
        )
        axes.set(title=f"{part:.0%} of the limit", ylabel="wait for a slot, s")
        axes.set_ylim(top=1.25 * max(rows.wait.max(), rows.held.median()))
    grid[0, 0].legend(ncols=3, loc="upper left", fontsize=11)
    grid[-1, 0].set_xlabel("seconds")
    return picture


def stations(system: Sequence[Station], runs: Mapping[float, Run]) -> Figure:
    """Utilisation of each station by newsletters a day: computed (lines), simulated (points)."""
    picture, grid = plots.figure(height=5)
    axes, rates = grid[0, 0], list(runs)
    for number, station in enumerate(system):
        color = COLORS[number]
        axes.plot(days(rates), [each / station.limit for each in rates], color=color)
        axes.plot(
            days(rates),
            [runs[each].busy[number] for each in rates],
            MARKERS[number],
            color=color,
            markersize=8,
            label=station.name,
        )
    axes.axhline(1, linestyle="--", color=plots.RED, label="limit")
    axes.set(xscale="log", yscale="log", ylabel="utilisation", ylim=(0.002, 9))
    axes.set_yticks([0.01, 0.1, 1], ["1 %", "10 %", "100 %"])
    axes.minorticks_off()
    axes.set_title("Lines: computed. Points: simulated")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    by_day(axes)
    return picture


def walls(
    systems: Mapping[str, Sequence[Station]], p95: Mapping[str, Mapping[float, float]]
) -> Figure:
    """Each system's p95 until finished (s) by newsletters a day, and where its first station ends.

    `p95`: by system, then by newsletters a second.
    """
    picture, grid = plots.figure(height=5.4)
    axes = grid[0, 0]
    for number, (name, points) in enumerate(p95.items()):
        wall, first = a_day(limit(systems[name])), fullest(systems[name]).name
        axes.axvline(wall, linestyle="--", color=plots.RED, linewidth=1.5)
        axes.text(wall, 90, first, rotation=90, ha="right", va="top", fontsize=12)
        axes.plot(
            days(list(points)),
            list(points.values()),
            marker=MARKERS[number],
            color=COLORS[number],
            label=name,
        )
    axes.set(xscale="log", yscale="log", ylabel="p95 until finished, s", ylim=(0.8, 100))
    axes.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    axes.minorticks_off()
    axes.set_title("Behind each wall stands the next (dashed: computed)")
    picture.legend(loc="outside lower center", ncols=2, fontsize=12)
    by_day(axes)
    return picture


def days(rates: Sequence[float]) -> list[float]:
    """Newsletters a day, of those a second at the peak."""
    return [a_day(each) for each in rates]


def by_day(axes: Axes) -> None:
    ticks = {1e4: "10 000", 1e5: "100 000", 1e6: "1 million", 1e7: "10 million", 1e8: "100 million"}
    low, high = axes.get_xlim()
    shown = {tick: label for tick, label in ticks.items() if low <= tick <= high}
    axes.set_xticks(list(shown), list(shown.values()))
    axes.minorticks_off()
    axes.set_xlabel("newsletters a day (its peak: three times the mean)")


def headroom(late: Mapping[int, Sequence[float]], beta: float) -> Figure:
    """Slots over load by load, for two promises; and whether the first holds in simulation.

    `late`: by load, the share that had to wait in each of several runs.
    """
    picture, grid = plots.figure(columns=2, width=12, height=5.4)
    axes = grid[0, 0]
    loads = [2.0**power for power in range(13)]
    for number, (seconds, label) in enumerate(
        [(0.0, "95 of 100 do not wait"), (0.5, "95 of 100 wait at most half a service time")]
    ):
        needed = [slots_needed(load, seconds) / load for load in loads]
        axes.plot(loads, needed, marker=MARKERS[number], color=COLORS[number], label=label)
    rule = [1 + beta / load**0.5 for load in loads]
    axes.plot(loads, rule, ":", color="black", label=f"load + {beta} × √load")
    axes.axhline(1 / 0.7, color=plots.GREY, linewidth=1.5, label="slots busy 70 % of the time")
    axes.axhline(1, linestyle="--", color=plots.RED, label="limit: slots = load")
    axes.set(xscale="log", xlabel="load: slots at work on average", ylabel="slots / load")
    axes.set(title="Large needs less headroom", ylim=(0.8, 4.2))
    shares = grid[0, 1]
    for load, runs in late.items():
        shares.plot([load] * len(runs), [100 * run for run in runs], "o", color=plots.SKY)
    means = [100 * float(np.mean(runs)) for runs in late.values()]
    shares.plot(
        list(late), means, "_", color=plots.BLUE, markersize=24, markeredgewidth=4, label="mean"
    )
    shares.axhline(5, linestyle="--", color=plots.RED, label="promise: 5 of 100")
    shares.set(
        xscale="log", xlabel="load: slots at work on average", ylim=(0, 12), xlim=(0.7, 1500)
    )
    shares.set(ylabel="simulated: have to wait, %", title="Does it hold?")
    for each in (axes, shares):
        each.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
        each.minorticks_off()
        each.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=1, fontsize=12)
    return picture


def day(lived: Mapping[str, Day], hours: float) -> Figure:
    """What came, the workers that served it, and how old the queue was, by rule, over a day."""
    picture, grid = plots.figure(rows=4, height=11)
    came, workers, ages, spike = grid[:, 0]
    seconds = next(iter(lived.values())).looks.second.to_numpy()
    came.fill_between(seconds / 3600, rate(seconds, hours * 3600), color=plots.SKY, alpha=0.5)
    for number, (name, each) in enumerate(lived.items()):
        looks, color = each.looks, COLORS[number]
        workers.step(looks.second / 3600, looks.workers, color=color, linewidth=2)
        worst = looks.groupby(looks.second // 600).agg({"second": "min", "age": "max"})
        ages.plot(worst.second / 3600, worst.age.clip(0.1), color=color, label=name, linewidth=2)
        if each.waits.max() < HOPELESS:
            minutes = (looks.second - SPIKE_AT * hours * 3600) / 60
            spike.plot(minutes, looks.age, color=color)
    for axes in (ages, spike):
        axes.axhline(BOUND, linestyle="--", color=plots.RED, label=f"bound: {BOUND:g} s")
    came.set(ylabel="a second", title="Newsletters that come", ylim=(0, None))
    workers.set(ylabel="workers", title="Workers that serve", ylim=(0, None))
    ages.set(yscale="log", xlabel="hours", ylabel="age, s", title="How long the first has waited")
    ages.set_yticks([0.1, 1, 10, 100, 1000, 10_000], ["0", "1", "10", "100", "1 000", "10 000"])
    ages.minorticks_off()
    spike.set(xlabel="minutes from the begin of the spike", ylabel="age, s", xlim=(-5, 15))
    spike.set_xticks(range(-5, 16, 5))
    spike.set_title("The same, around the spike (CPU alone: far above)")
    for axes in (came, workers, ages):
        axes.set_xlim(0, hours)
        axes.tick_params(labelbottom=axes is ages)
    picture.legend(*ages.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return picture
