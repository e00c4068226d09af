"""What notebook 05 draws: five chapters under one load, the knee, a flood, and a percentile."""

import math
from collections.abc import Iterable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab import crowds, figures_05, plots
from lab.knee import Promise
from lab.load import percentile
from lab.results import recorded

FELT = {
    "ping": ("a visit", 99, plots.BLUE),
    "newsletter accepted": ("newsletter accepted", 95, plots.ORANGE),
    "newsletter finished": ("newsletter finished", 95, plots.GREEN),
}
"""Rows of a run: what they are called, the percentile that counts, and their colour."""

VERDICTS = {
    "kept": ("o", plots.GREEN),
    "too noisy": ("^", plots.GREY),
    "broken": ("X", plots.ORANGE),
}
"""Marker and colour."""

ABOVE = {"loc": "lower left", "bbox_to_anchor": (0, 1.01), "frameon": False, "fontsize": 12}


def felt_table(runs: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The percentile that counts, in ms: a row for each chapter, a column for each thing."""
    return (
        pd.DataFrame(
            {
                f"{label}, p{percent}, ms": {
                    chapter: percentile(rows[rows.name == name].latency_ms, percent)
                    for chapter, rows in runs.items()
                }
                for name, (label, percent, _) in FELT.items()
            }
        )
        .rename_axis("chapter")
        .reset_index()
    )


def felt(runs: dict[str, pd.DataFrame], least: float) -> Figure:
    """Each answer a dot, by chapter; the percentile that counts, a diamond.

    `least` is the shortest time, in seconds, that a newsletter can take.
    """
    picture, grid = plots.figure(width=11, height=1.6 + 1.1 * len(runs))
    axes = grid[0, 0]
    for row, rows in enumerate(runs.values()):
        for strip, (name, (label, percent, color)) in enumerate(FELT.items()):
            waits = rows[rows.name == name].latency_ms.sort_values()
            height = row + 0.27 * (strip - 1)
            axes.plot(waits, [height] * len(waits), "o", color=color, alpha=0.25, markersize=6)
            axes.plot(
                percentile(waits, percent),
                height,
                "D",
                color=color,
                markeredgecolor="black",
                markersize=12,
                label="" if row else f"{label} (◆ p{percent})",
            )
    axes.axvline(1000 * least, linestyle="--", color=plots.RED, label="mails × delay of a mail")
    axes.set_yticks(range(len(runs)), list(runs))
    axes.set_ylim(len(runs) - 0.4, -0.6)
    axes.set_ylabel("chapter")
    scale(axes, "x", [wait for rows in runs.values() for wait in waits_of(rows)])
    axes.set_xlabel("how long it took")
    axes.legend(ncols=2, **ABOVE)
    return picture


def waits_of(rows: pd.DataFrame) -> Iterable[float]:
    return rows[rows.name.isin(FELT)].latency_ms


def scale(axes: Axes, which: str, values: Iterable[float], room: float = 1.4) -> None:
    """A logarithmic axis over these times, in ms, that says `10 ms` and `1 s`."""
    known = [value for value in values if math.isfinite(value) and value > 0]
    low, high = min(known) / room, max(known) * room
    decades = [10.0**power for power in range(6)]
    ticks = [tick for tick in decades if low <= tick <= high]
    if len(ticks) < 3:
        ticks = [n * tick for tick in decades for n in (1, 2, 5) if low <= n * tick <= high]
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    names = [f"{tick:g} ms" if tick < 1000 else f"{tick / 1000:g} s" for tick in ticks]
    axis.set_ticks(ticks, names)
    axes.minorticks_off()


def knee(steps: dict[float, pd.DataFrame], promise: Promise, limit: float, served: float) -> Figure:
    """The percentile that was promised by arrivals a second, with its interval and its verdict.

    `limit` and `served`, newsletters a second: what the slots could do, and what they did.
    """
    picture, grid = plots.figure(width=11, height=5.4)
    axes = grid[0, 0]
    spans = {
        rate: crowds.interval(rows, promise.row, promise.percent) for rate, rows in steps.items()
    }
    found = {
        rate: percentile(rows[rows.name == promise.row].latency_ms, promise.percent)
        for rate, rows in steps.items()
    }
    known = [*found.values(), promise.ms, *(ms for span in spans.values() for ms in span)]
    scale(axes, "y", known, room=1.8)
    for rate, span in spans.items():
        bar(axes, rate, span, plots.SKY)
    for name, (marker, color) in VERDICTS.items():
        rates = [rate for rate, rows in steps.items() if crowds.verdict(promise, rows) == name]
        values = [found[rate] for rate in rates]
        axes.plot(
            rates,
            values,
            marker,
            color=color,
            markeredgecolor="black",
            markersize=13,
            zorder=3,
            label=name,
        )
    axes.axhline(promise.ms, linestyle="--", color=plots.RED, label="the promise")
    axes.axvline(
        limit, linestyle=(0, (1.5, 1)), color=plots.RED, label="limit: slots / service time"
    )
    axes.axvline(served, linestyle=":", color=plots.GREY, label="served, with a queue")
    axes.set_xlim(0, 1.05 * max(*steps, limit))
    axes.set(xlabel="arrivals a second", ylabel=f"newsletter finished, p{promise.percent:g}")
    axes.legend(ncols=3, **ABOVE)
    return picture


def bar(axes: Axes, where: float, span: tuple[float, float], color: str) -> None:
    """An interval upright; to the top of the axes, with an arrow, if it has no upper end."""
    bottom, top = axes.get_ylim()
    low, high = max(span[0], bottom), min(span[1], top)
    axes.plot([where, where], [low, high], color=color, linewidth=9, solid_capstyle="butt")
    if span[1] > top:
        axes.plot(where, top, "^", color=color, markersize=14, clip_on=False)


def recorded_knees() -> Figure:
    """The knees of all chapters as they were recorded."""
    document = recorded("05_comparison")
    picture = figures_05.draw_comparison(document["figures"])
    slots = figures_05.SLOTS
    picture.axes[1].axvline(slots, linestyle="--", color=plots.RED, label=f"limit of {slots} slots")
    picture.axes[1].legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=11)
    print(f"Recorded on {document['date']}: {document['machine']}")
    return picture


def flood(floods: dict[str, pd.DataFrame], goodputs: dict[str, float], promise: Promise) -> Figure:
    """What became of each arrival; and who was served in time, as a part of the slots' limit.

    `floods` are tables as `crowds.arrivals` returns them. The recorded parts are longer floods.
    """
    picture, grid = plots.figure(columns=3, width=14, height=4.8)
    longest = max(table.seconds.max() for table in floods.values())
    promised = promise.ms / 1000
    for axes, (name, table) in zip(grid[0], floods.items(), strict=False):
        late = table[table.seconds > promised]
        good = table[table.seconds <= promised]
        away = table[table.turned_away]
        axes.plot(good.due, good.seconds, "o", color=plots.GREEN, label="in time")
        axes.plot(late.due, late.seconds, "o", color=plots.ORANGE, label="too late")
        axes.plot(away.due, [0] * len(away), "x", color=plots.GREY, label="turned away (429)")
        axes.axhline(promised, linestyle="--", color=plots.RED, label="the promise")
        axes.set_ylim(-0.06 * longest, 1.08 * longest)
        axes.set(title=name, xlabel="when it came, s")
    grid[0, 0].set_ylabel("until it was finished, s")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower left", ncols=4, fontsize=12, frameon=False)
    draw_goodputs(grid[0, 2], goodputs)
    return picture


def draw_goodputs(axes: Axes, goodputs: dict[str, float]) -> None:
    """Bars; the limit; and what was recorded, from the smallest run to the largest."""
    names = [name.split()[0] for name in goodputs]
    known = recorded("05_overload")["figures"]
    axes.bar(names, list(goodputs.values()), color=plots.GREEN, width=0.6)
    for place, name in enumerate(names):
        part = known[name]["goodput"]
        axes.plot([place, place], [part["min"], part["max"]], color="black", linewidth=2)
        axes.plot(place, part["median"], "D", color="black", markersize=9)
    label = f"recorded: 30 s, bound {known['bound']:g} s,\npromise {known['promise']:g} s"
    axes.plot([], [], "D", color="black", markersize=9, label=label)
    axes.axhline(1, linestyle="--", color=plots.RED)
    axes.set_ylim(0, 1.5 * max(1, *goodputs.values()))
    axes.set_title("served in time, of the limit")
    axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    axes.legend(loc="upper left", frameon=False, fontsize=12)


def spans(
    rows: pd.DataFrame, name: str, percent: float, counts: list[int], promised: float
) -> Figure:
    """Between which values a percentile lies, by how many of these answers one has seen."""
    answers = rows[rows.name == name]
    picture, grid = plots.figure(width=11, height=4.8)
    axes = grid[0, 0]
    seen = [*(count for count in counts if count < len(answers)), len(answers)]
    samples = [answers.sample(count, random_state=1) for count in seen]
    found = [crowds.interval(sample, name, percent) for sample in samples]
    scale(axes, "y", [promised, *(ms for span in found for ms in span)], room=2)
    for place, (span, sample) in enumerate(zip(found, samples, strict=True)):
        bar(axes, place, span, plots.SKY if math.isfinite(span[1]) else plots.ORANGE)
        axes.plot(
            place, percentile(sample.latency_ms, percent), "D", color=plots.BLUE, markersize=9
        )
    axes.axhline(promised, linestyle="--", color=plots.RED, label="the promise")
    axes.plot([], [], "D", color=plots.BLUE, markersize=9, label=f"p{percent:g} as computed")
    axes.plot([], [], color=plots.SKY, linewidth=7, label="where it lies, 95 % confidence")
    axes.plot([], [], color=plots.ORANGE, linewidth=7, label="no upper end")
    axes.set_xticks(range(len(seen)), [str(count) for count in seen])
    axes.set(xlabel="answers seen", ylabel=f"p{percent:g} of a visit")
    axes.legend(ncols=2, **ABOVE)
    return picture
