"""What notebook 04 draws: a flood, isolation, detection, and retries with and without jitter."""

from collections import Counter

import pandas as pd
from matplotlib.figure import Figure

from lab import detection, plots, retrying
from lab.outages import OUTAGES

LETTER_EVERY = 0.3  # seconds, in `figures_04.flooded`


def flood(
    rows: pd.DataFrame, expected: pd.DataFrame, span: tuple[float, float], empty: float
) -> Figure:
    """Depth over age, by time; rows and expectation as in `lab.backlog`.

    `span` is when the flood came, `empty` when arithmetic has the queue empty again (seconds).
    """
    picture, grid = plots.figure(rows=2, width=8, height=4.6)
    for axes, name, label in zip(
        grid[:, 0], ("depth", "age"), ("messages", "age of the first, s"), strict=True
    ):
        plots.span(axes, *span, "flood", plots.SKY)
        axes.plot(rows.seconds, rows[name], color=plots.BLUE, label="measured")
        axes.plot(expected.seconds, expected[name], "--", color=plots.RED, label="by arithmetic")
        axes.axvline(empty, linestyle=":", color=plots.RED, label="predicted recovery")
        axes.set(ylabel=label, ylim=(0, 1.3 * max(rows[name].max(), expected[name].max())))
        axes.set_xlim(0, rows.seconds.max())
    grid[0, 0].set_title("The depth falls at once; the age goes on rising")
    grid[0, 0].tick_params(labelbottom=False)
    grid[1, 0].set_xlabel("seconds")
    below(picture, columns=3)
    return picture


def ages(bursts: dict[int, pd.DataFrame], count: int, slots: int, mail: float) -> Figure:
    """Age of the first by depth, while a queue of short newsletters and one of long ones empty.

    `bursts` by readers of each newsletter; `count` newsletters came at once, a mail takes `mail` s.
    """
    picture, grid = plots.figure(width=7, height=3.6)
    axes = grid[0, 0]
    for (readers, rows), color, marker in zip(
        bursts.items(), (plots.BLUE, plots.ORANGE), "os", strict=True
    ):
        falling = rows.iloc[rows.depth.to_numpy().argmax() :]
        falling = falling[falling.depth > 0]
        label = f"{readers} mail{'s' if readers > 1 else ''} each"
        axes.plot(falling.depth, falling.age, marker, color=color, markersize=8, label=label)
        last = count / slots * readers * mail
        axes.plot([count, 0], [0, last], "--", color=plots.RED)
    axes.plot([], [], "--", color=plots.RED, label="by arithmetic")
    axes.set(
        xlabel="messages that wait", ylabel="age of the first, s", xlim=(0, count), ylim=(0, None)
    )
    axes.set_title("The same depth, another wait")
    axes.legend()
    return picture


def isolation(
    apart: list[float],
    together: list[float],
    reports_seconds: float,
    first_wave: float,
    mail: float,
) -> Figure:
    """Each newsletter's wait (s) by the time at which it was sent, while reports flood.

    `first_wave` is the share of the reports that one pool begins at once: they all end about
    then, and no slot is free before. `mail` is the seconds that one mail takes.
    """
    picture, grid = plots.figure(width=8, height=4.2)
    axes, times = grid[0, 0], [LETTER_EVERY * n for n in range(len(apart))]
    free = first_wave * reports_seconds
    held = [max(free - at, mail) for at in times]
    axes.plot(times, together, "s-", color=plots.ORANGE, label="one pool of six")
    axes.plot(times, held, "--", color=plots.RED, label="until the first reports end")
    axes.plot(times, apart, "o-", color=plots.BLUE, label="four and two")
    axes.axhline(mail, linestyle=":", color=plots.RED, label="one mail takes this long")
    axes.set_yscale("log")
    axes.set_ylim(mail / 2, 4 * max([*together, *held]))
    ticks = [tick for tick in (0.1, 1, 10, 100) if tick < 4 * max(together)]
    axes.set_yticks(ticks, [f"{tick:g} s" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="sent, seconds after the reports", ylabel="wait for the first mail")
    axes.set_title("A newsletter among reports")
    below(picture)
    return picture


def noticed(seen: pd.DataFrame, look_every: float) -> Figure:
    """When each outage was noticed (s), between the bounds that arithmetic sets."""
    names = set(seen.outage)
    bounds = {name: at for name, at in detection.expected(look_every).items() if name in names}
    picture, grid = plots.figure(width=8, height=1.4 + 0.6 * len(bounds))
    axes = grid[0, 0]
    for y, (name, (soonest, latest)) in enumerate(bounds.items()):
        axes.barh(y, latest - soonest, left=soonest, height=0.6, color=plots.SKY, alpha=0.35)
        axes.vlines((soonest, latest), y - 0.3, y + 0.3, linestyle="--", color=plots.RED)
        for sign, color, marker in (("health", plots.BLUE, "o"), ("log", plots.ORANGE, "s")):
            times = seen.seconds[(seen.outage == name) & (seen.sign == sign)]
            axes.plot(times, [y] * len(times), marker, color=color, markersize=9)
    for label, color, marker in (
        ("the health check told", plots.BLUE, "o"),
        ("a log line told", plots.ORANGE, "s"),
    ):
        axes.plot([], [], marker, color=color, markersize=9, label=label)
    axes.plot([], [], "--", color=plots.RED, label="arithmetic: from, to")
    axes.set_yticks(range(len(bounds)), [OUTAGES[name][0] for name in bounds])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="seconds until it is noticed", xlim=(0, None))
    axes.set_title("How soon it is noticed")
    below(picture, columns=3)
    return picture


def knocks(runs: dict[str, retrying.Return], back: float, capacity: int) -> Figure:
    """One rule under the other: how many knock in each tenth of a second, and how many may."""
    picture, grid = plots.figure(rows=len(runs), width=8, height=0.5 + 1.4 * len(runs))
    end = max(run.over for run in runs.values()) + 1
    for axes, (name, run) in zip(grid[:, 0], runs.items(), strict=True):
        counts = Counter(retrying.slot(at) for at in run.knocks)
        axes.axvspan(0, back, color=plots.GREY, alpha=0.18, linewidth=0, label="away")
        times = [slot * retrying.BIN for slot in counts]
        axes.vlines(times, 0.7, list(counts.values()), color=plots.BLUE, linewidth=2.5)
        axes.axhline(capacity, linestyle="--", color=plots.RED, label="capacity")
        axes.set_yscale("log")
        axes.set(ylim=(0.7, 500), xlim=(0, end))
        axes.set_yticks([1, 10, 100], ["1", "10", "100"])
        axes.minorticks_off()
        axes.tick_params(labelbottom=axes is grid[-1, 0])
        peak = run.peak(back) / capacity
        axes.set_title(f"{name}: peak {peak:.0f} × capacity, {run.given_up} given up")
    grid[len(runs) // 2, 0].set_ylabel("knocks in 0.1 s")
    grid[-1, 0].set_xlabel("seconds after all failed")
    below(picture)
    return picture


def tries(seen: pd.DataFrame, away: tuple[float, float]) -> Figure:
    """Each newsletter's tries, one row for each; `away` is when the mail server was not there."""
    picture, grid = plots.figure(width=8, height=4)
    axes, begin = grid[0, 0], away[0]
    rows = {job: row for row, job in enumerate(dict.fromkeys(seen.sort_values("at").job), start=1)}
    back = away[1] - begin
    axes.axvspan(0, back, color=plots.GREY, alpha=0.18, linewidth=0, label="mail server away")
    for state, color, marker, label in (
        ("RETRY", plots.ORANGE, "x", "tried, and put off"),
        ("SUCCESS", plots.GREEN, "o", "done"),
    ):
        some = seen[seen.state == state]
        axes.plot(
            some["at"] - begin,
            [rows[job] for job in some.job],
            marker,
            color=color,
            markersize=9,
            markeredgewidth=2.5,
            label=label,
        )
    axes.axvline(back, linestyle="--", color=plots.RED, label="it is back")
    axes.set(xlabel="seconds", ylabel="newsletters", ylim=(0, len(rows) + 1), yticks=[])
    axes.set_title("Newsletters meet a mail server that is away")
    below(picture, columns=4)
    return picture


def below(picture: Figure, columns: int = 2) -> None:
    """One legend for the whole picture, under it, where it covers nothing."""
    handles, labels = picture.axes[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=11)
