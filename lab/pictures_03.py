"""What notebook 03 draws: mails over a crash, the cost of `.delay()`, visibility, pools."""

from matplotlib.figure import Figure

from lab import plots
from lab.crashes import MAIL_DELAY, Crash
from lab.enqueue import PIECES
from lab.pools import Pool
from lab.visibility import most_starts

COLORS = {"defaults": plots.GREY, "ours": plots.BLUE}
NAMES = {"defaults": "Celery's defaults", "ours": "chapter 03"}


def arrivals(crashes: dict[str, Crash], process: str, slots: int) -> Figure:
    """Mails that have arrived, from the kill on, on both sides; the slope is slots / delay."""
    picture, grid = plots.figure(height=5)
    axes = grid[0, 0]
    due = max(crash.due for crash in crashes.values())
    begin = min(crash.seconds[0] for crash in crashes.values())
    last = max(crash.seconds[-1] for crash in crashes.values())
    end = begin + due * MAIL_DELAY / slots
    axes.plot([begin, end], [0, due], "--", color=plots.RED, label="limit: slots / delay")
    axes.axhline(due, linestyle=":", color="black", linewidth=1.5)
    axes.text((begin + last) / 2, due, f"{due} readers", va="bottom", ha="center")
    for side, crash in crashes.items():
        times = [*crash.seconds, last + 1]
        counts = [*range(1, len(crash.seconds) + 1), len(crash.seconds)]
        width = 5 if side == "defaults" else 2.5  # where the lines meet, both are seen
        axes.step(times, counts, where="post", color=COLORS[side], label=NAMES[side], lw=width)
    axes.axvline(0, linestyle="--", color="black", linewidth=1.5)
    axes.text(0, due * 0.02, f" kill -9 {process}")
    axes.set(xlabel="seconds after the kill", ylabel="mails that have arrived")
    axes.set_ylim(0, due * 1.12)
    axes.set_title("What a kill in the middle costs")
    picture.legend(loc="outside lower center", ncols=3, frameon=False)
    return picture


def delay(costs: dict[str, dict[str, float]]) -> Figure:
    """The pieces of `.delay()`, by kind of call, each over an RPUSH of the same bytes."""
    picture, grid = plots.figure(height=4.2)
    axes, rows = grid[0, 0], list(costs)[::-1]
    colors = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.SKY, plots.GREY)
    left = [0.0] * len(rows)
    for piece, color in zip(PIECES, colors, strict=True):
        widths = [costs[row][piece] for row in rows]
        axes.barh(rows, widths, left=left, color=color, label=piece, height=0.55)
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    axes.axvline(1, linestyle="--", color=plots.RED, label="limit: one RPUSH")
    axes.set_xlabel("processor time, in RPUSHes of the same bytes")
    axes.set_title("Where the time goes in .delay()")
    axes.grid(axis="y", visible=False)
    axes.set_axisbelow(True)
    picture.legend(loc="outside lower center", ncols=3, fontsize=11, frameon=False)
    return picture


def visibility(found: dict[float, dict[float, float]]) -> Figure:
    """Starts of a task over its length in visibility timeouts, against the arithmetic."""
    picture, grid = plots.figure(height=4.6)
    axes = grid[0, 0]
    longest = max(length / timeout for timeout, starts in found.items() for length in starts)
    steps = range(most_starts(longest, 1) + 1)
    axes.step(steps, steps, "--", where="pre", color=plots.RED, label="limit: ⌈length / timeout⌉")
    looks = (("o", plots.BLUE), ("s", plots.ORANGE), ("^", plots.GREEN))
    for (timeout, starts), (marker, color) in zip(found.items(), looks, strict=False):
        lengths = [length / timeout for length in starts]
        label = f"measured, timeout {timeout:g} s"
        axes.plot(lengths, list(starts.values()), marker, color=color, markersize=10, label=label)
    axes.set(xlabel="length of the task / visibility timeout", ylabel="times it is started")
    axes.set_yticks(steps)
    axes.set_xticks(steps)
    axes.set_ylim(0, steps[-1] + 0.5)
    axes.set_title("A slow task looks like a dead worker")
    axes.legend(loc="upper left")
    return picture


def pools(measured: dict[str, Pool], slots: int) -> Figure:
    """Memory and throughput of a mail worker with so many slots, by pool."""
    picture, grid = plots.figure(columns=2, height=4)
    names, (left, right) = list(measured), grid[0]
    colors = [plots.BLUE, plots.ORANGE]
    bars = left.bar(names, [pool.mib for pool in measured.values()], color=colors, width=0.5)
    left.bar_label(bars, fmt="{:.0f}", padding=2)
    left.set_ylabel(f"MiB, {slots} slots at work")
    left.set_title("What they cost")
    shares = [100 * pool.share for pool in measured.values()]
    bars = right.bar(names, shares, color=colors, width=0.5)
    right.bar_label(bars, fmt="{:.0f}", padding=2)
    right.axhline(100, linestyle="--", color=plots.RED, label="limit: slots / service time")
    right.set_ylabel("newsletters a second, % of the limit")
    right.set_ylim(0, 125)
    right.set_title("What they do")
    right.legend(loc="upper center", fontsize=11)
    for axes in (left, right):
        axes.grid(axis="x", visible=False)
        axes.set_axisbelow(True)
    left.margins(y=0.12)
    return picture
