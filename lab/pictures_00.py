"""What notebook 00 draws: who was at work when, speed-ups, and ticks that come late."""

from collections.abc import Iterable, Sequence
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from lab import plots
from lab.bare_python import Done, Heartbeat, Run, Worker

COLORS = {"waits": plots.SKY, "computes": plots.ORANGE}


def timelines(runs: dict[str, Run], limits: dict[str, float], what: str) -> Figure:
    """A panel for each way, a row for each worker, a bar for each time it was at work.

    `limits` are the seconds that each way takes at least; `what` is "waits" or "computes".
    """
    rows = [len(workers(run.done)) for run in runs.values()]
    picture, grid = plots.figure(rows=len(runs), height=1 + 0.55 * len(runs) + 0.14 * sum(rows))
    grid[0, 0].get_gridspec().set_height_ratios([1.5 + count for count in rows])
    for axes, (way, run) in zip(grid[:, 0], runs.items(), strict=True):
        bars(axes, run.done, run.begin, COLORS[what])
        axes.axvline(limits[way], linestyle="--", color=plots.RED)
        axes.set_title(way, fontsize=12)
        axes.set_xlim(0, 1.04 * max(each.seconds for each in runs.values()))
        axes.tick_params(labelbottom=False)
    grid[-1, 0].tick_params(labelbottom=True)
    grid[-1, 0].set_xlabel("seconds")
    legend = [Patch(color=COLORS[what], label=f"{what} (a row for each worker)"), limit_line()]
    picture.legend(handles=legend, loc="outside upper right", ncols=2, fontsize=12)
    return picture


def bars(axes: Axes, done: Iterable[Done], begin: float, color: str) -> None:
    """A row for each worker, from the top in the order of their first work."""
    done = sorted(done, key=lambda job: job.begin)
    axes.set_axisbelow(True)
    rows = workers(done)
    for job in done:
        spans = [(start - begin, end - start) for start, end in job.spans]
        row = rows.index(job.worker)
        axes.broken_barh(spans, (row + 0.1, 0.8), facecolor=color)
        axes.plot([job.begin - begin] * 2, [row + 0.1, row + 0.9], color="white", linewidth=1)
    axes.set_ylim(len(rows), 0)
    axes.set_yticks([])
    axes.spines.left.set_visible(False)


def workers(done: Iterable[Done]) -> list[Worker]:
    return list(dict.fromkeys(job.worker for job in done))


def limit_line() -> Line2D:
    return Line2D([], [], linestyle="--", color=plots.RED, label="limit")


def speedups(kinds: dict[str, dict[str, tuple[float, float]]]) -> Figure:
    """For "waits" and "computes": how many times faster each way was, and its limit."""
    picture, grid = plots.figure(columns=len(kinds), height=3.4)
    for axes, (what, ways) in zip(grid[0], kinds.items(), strict=True):
        names = list(ways)
        for row, (measured, limit) in enumerate(ways.values()):
            axes.barh(row, measured, 0.62, color=COLORS[what])
            axes.set_axisbelow(True)
            axes.plot([limit, limit], [row - 0.42, row + 0.42], "--", color=plots.RED)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="speed-up", title=f"Everybody {what}")
    picture.legend(handles=[limit_line()], loc="outside upper right", fontsize=12)
    return picture


def beside(beats: dict[tuple[str, str], tuple[Heartbeat, Done]]) -> Figure:
    """How late each tick came, by when it was due; the time of the job beside it is shaded.

    The keys say where the job ran (a row of the picture) and what it did (a column).
    """
    places, kinds = (list(dict.fromkeys(names)) for names in zip(*beats, strict=True))
    picture, grid = plots.figure(len(places), len(kinds), width=10, height=2.2 * len(places))
    longest = max(beat.ticks[-1][0] - beat.ticks[0][0] for beat, _ in beats.values())
    for (place, what), (beat, job) in beats.items():
        axes = grid[places.index(place), kinds.index(what)]
        begin, end, zero = job.begin, job.end, beat.ticks[0][0]
        axes.axvspan(begin - zero, end - zero, color=COLORS[what], alpha=0.25, linewidth=0)
        dues = np.linspace(begin, end - 0.0001, 400)
        axes.plot(dues - zero, 1000 * (end - dues), "--", color=plots.RED)
        axes.plot(*late_ticks(beat, zero), "o", color=plots.BLUE, markersize=4, mew=0)
        logarithmic(axes)
        axes.set_xlim(-0.02, longest)
        axes.set_title(f"{what} {place}", fontsize=13)
        axes.label_outer()
    for axes in grid[:, 0]:
        axes.set_ylabel("late by")
    for axes in grid[-1]:
        axes.set_xlabel("seconds")
    legend = [
        Line2D([], [], marker="o", linestyle="", markersize=6, color=plots.BLUE, label="a tick"),
        Line2D([], [], linestyle="--", color=plots.RED, label="limit: the job is over"),
    ]
    picture.legend(handles=legend, loc="outside upper right", ncols=2, fontsize=12)
    return picture


def late_ticks(beat: Heartbeat, zero: float) -> tuple[list[float], list[float]]:
    """When the ticks were due (seconds after `zero`), and by how many ms they were late."""
    return [due - zero for due, _ in beat.ticks], [1000 * late for _, late in beat.ticks]


def logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.set_ylim(0.03, 3000)
    axes.set_yticks([0.1, 1, 10, 100, 1000], ["0.1 ms", "1 ms", "10 ms", "100 ms", "1 s"])
    axes.minorticks_off()


def turns(run: Run, seconds: float = 0.1) -> Figure:
    """So many seconds out of the middle of a run of computing threads, enlarged."""
    picture, grid = plots.figure(height=2.6)
    axes, middle = grid[0, 0], (run.begin + run.end) / 2
    bars(axes, run.done, middle, COLORS["computes"])
    axes.set_xlim(0, seconds)
    ticks = np.linspace(0, seconds, 11)
    axes.set_xticks(ticks, [f"{1000 * tick:.0f}" for tick in ticks])
    axes.set(xlabel="ms", title="Four threads take turns: one row is one thread")
    return picture


def lateness(late: dict[tuple[float, int], Sequence[float]]) -> Figure:
    """Late ticks by the switch interval (s) and the number of threads that compute beside them."""
    picture, grid = plots.figure(height=4.2)
    axes = grid[0, 0]
    intervals = list(dict.fromkeys(interval for interval, _ in late))
    for place, interval in enumerate(intervals):
        mine = {count: sorted(ticks) for (each, count), ticks in late.items() if each == interval}
        counts = np.array(list(mine))
        middles = np.array([1000 * median(ticks) for ticks in mine.values()])
        low, high = zip(*(1000 * np.quantile(t, [0.1, 0.9]) for t in mine.values()), strict=True)
        label = f"switch interval {1000 * interval:g} ms"
        spread = [middles - low, high - middles]
        axes.errorbar(
            counts + 0.04 * place,  # beside each other
            middles,
            spread,
            fmt="o",
            markersize=9,
            color=(plots.BLUE, plots.GREEN)[place],
            capsize=5,
            label=label,
        )
        limit = axes.plot(counts, 1000 * interval * counts, "--", color=plots.RED)
    limit[0].set_label("limit: a turn for each thread")
    axes.set_yscale("log")
    axes.set_yticks([0.1, 1, 10, 100], ["0.1 ms", "1 ms", "10 ms", "100 ms"])
    axes.minorticks_off()
    axes.set_xticks(counts)
    axes.set(xlabel="threads that compute", ylabel="a tick is late by")
    axes.set_title("A tick waits for its turn (median, and eight of ten)")
    picture.legend(loc="outside lower center", ncols=3, fontsize=12)
    return picture
