"""One style for every plot: light, colour-blind safe, readable from the back of a room."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart with every common kind of colour vision.
BLUE, ORANGE, GREEN, RED, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#56B4E9",
    "#6b7280",
)

STYLE: dict[str, Any] = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "font.size": 13,
    "axes.titlesize": 15,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "lines.linewidth": 2.5,
    "figure.dpi": 100,
    "savefig.dpi": 120,
    "savefig.bbox": "tight",
}
plt.style.use(STYLE)


def figure(
    rows: int = 1, columns: int = 1, width: float = 10, height: float = 4
) -> tuple[Figure, Any]:
    """A figure in the house style and its axes, as `matplotlib.pyplot.subplots` returns them."""
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False)


def save(picture: Figure, path: Path) -> Path:
    """Write the figure as PNG and close it."""
    picture.savefig(path)
    plt.close(picture)
    return path


def heartbeat(axes: Axes, rows: pd.DataFrame, begin: float) -> None:
    """Draw each request's wait (ms, logarithmic) at the time it was due (s after `begin`)."""
    rows = rows.sort_values("start")
    axes.plot(rows.start - begin, rows.latency_ms, ".-", color=BLUE, markersize=4, linewidth=1)
    axes.set_yscale("log")
    axes.set_ylim(0.5, 20_000)
    axes.set_yticks([1, 10, 100, 1000, 10_000], ["1 ms", "10 ms", "100 ms", "1 s", "10 s"])
    axes.minorticks_off()


def span(axes: Axes, begin: float, end: float, label: str, color: str) -> None:
    """Shade the time from `begin` to `end` and name it."""
    axes.axvspan(begin, end, color=color, alpha=0.18, linewidth=0)
    axes.text(
        (begin + end) / 2, 0.97, label, ha="center", va="top", transform=axes.get_xaxis_transform()
    )
