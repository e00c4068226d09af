"""What notebook 06 draws: the contenders, one under the other, against what is the limit."""

from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab import plots
from lab.contenders import LETTERS, ONE_MAIL, READERS, Outcome

Spread = dict[str, float]
TICKS = (1, 2, 3, 5, 10, 15, 20, 30, 50, 100, 200, 500, 1000)
FATES = {
    "one mail": (plots.SKY, "black"),
    "two mails": (plots.BLUE, "white"),
    "no mail": (plots.ORANGE, "black"),
}
"""What became of a recipient: the colour of the bar, and of the number on it."""


def accepted(found: dict[str, dict[str, float]]) -> Figure:
    """How long until a newsletter is accepted, and until it is begun, in ms."""
    picture, grid = plots.figure(1, 2, width=12, height=0.6 * len(found) + 2.4)
    left, right = grid[0]
    names = list(found)
    bare = [each["p50"] / each["over bare"] for each in found.values() if each["over bare"] > 0]
    for key, color, marker in (("p50", plots.BLUE, "o"), ("p99", plots.ORANGE, "D")):
        values = [each[key] for each in found.values()]
        left.plot(values, names, marker, color=color, markersize=10, label=key)
    if bare:
        left.axvline(bare[0], linestyle="--", color=plots.RED, label="p50 of a bare write to Redis")
    begun = [max(1.0, each["begun"]) for each in found.values()]
    right.plot(begun, names, "o", color=plots.BLUE, markersize=10)
    left.set_title("POST to 202")
    right.set_title("POST to the first mail")
    left.set_xlabel("ms")
    right.set_xlabel(f"ms, without the {1000 * ONE_MAIL:.0f} ms of the mail itself")
    for axes in (left, right):
        rows(axes, len(names))
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        ticks = [tick for tick in TICKS if low < tick < high]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    picture.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return picture


def rows(axes: Axes, count: int) -> None:
    """One contender a row, the first at the top."""
    axes.set_ylim(count - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def throughput(shares: dict[str, float], slots: int) -> Figure:
    """Newsletters a second, of what so many slots can do at most."""
    picture, grid = plots.figure(width=9, height=0.55 * len(shares) + 1.8)
    axes = grid[0, 0]
    bars = axes.barh(list(shares), list(shares.values()), color=plots.BLUE, height=0.6)
    axes.bar_label(bars, [f"{share:.0%}" for share in shares.values()], padding=-46, color="white")
    axes.set_axisbelow(True)
    limit(axes, f"newsletters finished, of the limit: {slots} slots / 1 s", len(shares))
    axes.set_title("Newsletters: slots that wait")
    return picture


def limit(axes: Axes, label: str, count: int, most: float = 1.0) -> None:
    """Shares of a limit, which is a line at 100 %; `most` is the largest of them."""
    axes.axvline(1, linestyle="--", color=plots.RED)
    axes.set(xlim=(0, max(1.15, 1.05 * most)), xlabel=label)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "limit"])
    rows(axes, count)


def reports_and_memory(figures: dict[str, Any], names: Iterable[str]) -> Figure:
    """The recorded figures: reports of what two plain processes do, and MiB of a further slot."""
    names = list(names)
    picture, grid = plots.figure(1, 2, width=12, height=0.55 * len(names) + 1.8)
    left, right = grid[0]
    shares: list[Spread] = [figures[name]["reports"] for name in names]
    memory: list[Spread] = [figures[name]["MiB a slot"] for name in names]
    points(left, names, shares, plots.BLUE)
    points(right, names, memory, plots.GREEN)
    most = max(share["max"] for share in shares)
    limit(left, "reports, of the rate of two plain processes", len(names), most)
    left.set_title("Reports: work that computes")
    rows(right, len(names))
    right.set(xscale="log", xlabel="MiB for each further slot, at work")
    right.set_xlim(0.05, 100)
    right.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    right.minorticks_off()
    right.set_title("Memory")
    return picture


def points(axes: Axes, names: list[str], spreads: list[Spread], color: str) -> None:
    """The median of each, on a line from the smallest to the largest."""
    places = range(len(names))
    low, high = [each["min"] for each in spreads], [each["max"] for each in spreads]
    axes.hlines(places, low, high, color=color, linewidth=5, alpha=0.4)
    axes.plot([each["median"] for each in spreads], places, "o", color=color, markersize=10)
    axes.set_yticks(places, names)


def crash(outcomes: dict[str, Outcome], window: float) -> Figure:
    """What became of the mails of four newsletters when their sender was killed."""
    picture, grid = plots.figure(width=10, height=0.62 * len(outcomes) + 2.4)
    axes, due = grid[0, 0], LETTERS * READERS
    for place, outcome in enumerate(outcomes.values()):
        once = due - outcome.missing - outcome.twice
        begin = 0
        for count, (color, ink) in zip(
            (once, outcome.twice, outcome.missing), FATES.values(), strict=True
        ):
            axes.barh(place, count, left=begin, color=color, edgecolor="white", height=0.65)
            if count > 3:
                middle = begin + count / 2
                axes.text(middle, place, count, color=ink, ha="center", va="center", size=15)
            begin += count
    for label, (color, _) in FATES.items():
        axes.barh(-9, 1, color=color, label=label)
    axes.axvline(due, linestyle="--", color=plots.RED, label="all that were accepted")
    axes.set_yticks(range(len(outcomes)), list(outcomes))
    rows(axes, len(outcomes))
    axes.set(xlim=(0, due * 1.03), xlabel=f"recipients, {window:.0f} s after kill -9 or later")
    axes.set_axisbelow(True)
    axes.grid(visible=False)
    axes.set_title("kill -9 of what sends: two newsletters go out, two wait")
    picture.legend(loc="outside lower center", ncols=4)
    return picture
