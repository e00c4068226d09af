"""What notebook 02 draws: ages of news, their price, two transports, and what a visitor feels."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab import plots
from lab.following import every
from lab.load import percentile

COLORS = {"WebSocket": plots.BLUE, "long polling": plots.ORANGE, "upgrade": plots.GREEN}


def ages(news: pd.DataFrame, pauses: Sequence[float]) -> Figure:
    """Which share of the steps was heard of within so many seconds: asking, and over WebSocket.

    `news` has a row for each `way` and step, with its `age` (seconds).
    """
    picture, grid = plots.figure(width=8, height=4)
    axes = grid[0, 0]
    told = news[news.way == "WebSocket"].age
    axes.ecdf(told, color=plots.BLUE, label="told, over WebSocket")
    for pause, color in zip(pauses, (plots.ORANGE, plots.GREEN, plots.SKY), strict=False):
        asked = news[news.way == every(pause)].age
        axes.ecdf(asked, color=color, label=f"asking {every(pause)}")
        axes.plot([0, pause], [0, 1], "--", color=plots.RED, linewidth=1.5, zorder=3)
    axes.plot([], [], "--", color=plots.RED, linewidth=1.5, label="limit: even, from 0 to T")
    axes.set(xlabel="age of a step when heard of, s", ylabel="steps")
    percent(axes)
    axes.set_xlim(-0.02, 1.1 * max(pauses))
    axes.set_title("Asking: anything between 0 and T")
    axes.legend(loc="lower right", fontsize=11)
    return picture


def price(bill: pd.DataFrame, seconds: float) -> Figure:
    """Requests for one newsletter of so many seconds against the mean age of a step, by way.

    `bill` has the ways as its index, and the columns `requests` and `age, ms`.
    """
    picture, grid = plots.figure(width=8, height=4.2)
    axes, ages = grid[0, 0], bill["age, ms"]
    span = [ages.min() / 2, ages.max() * 3]
    asked = [seconds * 1000 / (2 * age) for age in span]
    axes.plot(span, asked, "--", color=plots.RED, label="limit of asking: seconds / (2 × age)")
    for way, age, count in zip(bill.index, ages, bill["requests"], strict=True):
        axes.plot(age, count, "o", color=COLORS.get(way, plots.GREY), markersize=11)
        axes.annotate(way, (age, count), (12, 3), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="mean age, ms", ylabel="requests for a newsletter")
    axes.set_xticks(*labels(1, 10, 100, 1000))
    axes.set_yticks(*labels(1, 10, 100, 1000))
    axes.minorticks_off()
    axes.set_xlim(*span)
    axes.set_ylim(0.6, 1000)
    axes.set_title("What fresh news costs")
    axes.legend(loc="upper right")
    return picture


def labels(*values: float) -> tuple[list[float], list[str]]:
    """Values to mark on an axis, and how they are written."""
    return list(values), [f"{value:g}" for value in values]


def transports(events: pd.DataFrame, one_way: float) -> Figure:
    """Which share of the events has arrived within so many ms, by transport and place.

    `events` has a row for each event, `way` ("WebSocket, here", …) and `age` (seconds).
    """
    picture, grid = plots.figure(width=8, height=4.6)
    axes = grid[0, 0]
    for way, rows in events.groupby("way", sort=False):
        transport, place = str(way).split(", ")
        axes.ecdf(
            1000 * rows.age,
            color=COLORS[transport],
            linestyle=":" if place == "here" else "-",
            label=way,
        )
    for ways in (1, 3):
        axes.axvline(1000 * one_way * ways, linestyle="--", color=plots.RED)
    axes.plot([], [], "--", color=plots.RED, label="limits: once, three times the line")
    axes.set(xscale="log", xlabel="from a step done to its receipt, ms", ylabel="events")
    axes.set_xticks(*labels(1, 10, 100, 1000))
    axes.minorticks_off()
    axes.set_xlim(0.5, 1000)
    percent(axes)
    axes.set_title("WebSocket: the line once. Long polling: up to three times")
    handles, names = axes.get_legend_handles_labels()
    picture.legend(handles, names, loc="outside lower center", ncols=3, fontsize=11)
    return picture


def percent(axes: Axes) -> None:
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])


def felt(
    rows: pd.DataFrame, spans: dict[str, tuple[float, float]], limits: dict[str, float]
) -> Figure:
    """A visitor's heartbeat, and what ran meanwhile: from when to when (seconds since 1970).

    `limits` (ms) has, for what computes, one turn at the GIL of each thread.
    """
    picture, grid = plots.figure(width=9, height=3.6)
    axes = grid[0, 0]
    begin = min(start for start, _ in spans.values())
    last = max(end for _, end in spans.values())
    plots.heartbeat(axes, rows[rows.start.between(begin, last)], begin)
    colors = (plots.GREY, plots.GREEN, plots.ORANGE, plots.ORANGE)
    for (name, (start, end)), color in zip(spans.items(), colors, strict=True):
        plots.span(axes, start - begin, end - begin, name, color)
        draw_limit(axes, limits[name], start - begin, end - begin)
    axes.set(xlabel="seconds (dashed: the limit, one turn)", ylabel="visitor's wait")
    axes.set_title("A visitor, and what runs beside")
    return picture


def turns(waits: dict[str, "pd.Series[float]"], limits: dict[str, float]) -> Figure:
    """A visitor's p50 and p99 (ms) by what ran beside, and the `limits` (ms) as in `felt`."""
    picture, grid = plots.figure(width=8, height=3.8)
    axes, places = grid[0, 0], range(len(waits))
    for percentage, marker, color in ((50, "o", plots.BLUE), (99, "^", plots.GREEN)):
        values = [percentile(each, percentage) for each in waits.values()]
        axes.plot(places, values, marker, color=color, markersize=11, label=f"p{percentage}")
    for place, name in zip(places, waits, strict=True):
        draw_limit(axes, limits[name], place - 0.3, place + 0.3)
    axes.plot([], [], "--", color=plots.RED, label="limit: one turn of each that computes")
    axes.set_yscale("log")
    axes.set_ylim(0.5, 5000)
    axes.set_yticks([1, 10, 100, 1000], ["1 ms", "10 ms", "100 ms", "1 s"])
    axes.minorticks_off()
    axes.set_xticks(places, list(waits))
    axes.set_xlim(-0.6, len(waits) - 0.4)
    axes.set_ylabel("visitor's wait")
    axes.set_title("Waiting costs a visitor nothing, computing costs turns")
    axes.legend(loc="upper left", fontsize=11)
    return picture


def draw_limit(axes: Axes, limit: float, begin: float, end: float) -> None:
    if limit:
        axes.plot([begin, end], [limit, limit], "--", color=plots.RED)
