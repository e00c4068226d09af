"""The tables in the lessons, made from `results/`. Each function returns Markdown.

Lessons call these from cog blocks: `make results` measures and rewrites them, `make check`
fails when a lesson and its results differ.
"""

from typing import Any

from lab.results import origin, recorded


def table(heading: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [heading, ["---"] + ["--:"] * (len(heading) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def ms(spread: dict[str, float]) -> str:
    """`12 ms (10–15)`: median, smallest and largest of the runs, all of them in milliseconds."""
    return f"{length(spread['median'])} ({length(spread['min'])}–{length(spread['max'])})"


def length(milliseconds: float) -> str:
    """Milliseconds as a person says them: `3.2 ms`, `41 ms`, `2.1 s`."""
    if milliseconds < 10:
        return f"{milliseconds:.1f} ms"
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def share(spread: dict[str, float]) -> str:
    """`97 % (96–98)`: a ratio as median, smallest and largest of the runs."""
    return f"{spread['median']:.0%} ({spread['min']:.0%}–{spread['max']:.0%})"


def under(document: dict[str, Any], text: str = "") -> str:
    return f"\n{text}{origin(document)}\n"


def slots() -> str:
    document = recorded("01_slots")
    rows = [
        [f"{count}", f"{int(count) / 1.0:.0f} a second", share(spread)]
        for count, spread in document["figures"].items()
    ]
    heading = ["slots", "limit: slots / 1 s", "measured, of the limit"]
    return table(heading, rows) + under(document, "Median of five runs (smallest–largest). ")


def one_connection() -> str:
    document = recorded("01_one_connection")
    rows = [
        [f"{delay} ms", f"{1000 / int(delay):.0f} a second", share(spread)]
        for delay, spread in document["figures"].items()
    ]
    heading = ["the server takes", "limit: 1 / delay", "measured, of the limit"]
    return table(heading, rows) + under(document)


def visitors() -> str:
    document = recorded("01_visitors")
    names = ["idle p50", "idle p99", "newsletter p50", "newsletter p99", "report p50", "report p99"]
    rows = [[name] + [ms(s[name]) for s in document["figures"].values()] for name in names]
    heading = ["visitor waits", *document["figures"]]
    return table(heading, rows) + under(document, "Median of five runs (smallest–largest). ")


def log_growth() -> str:
    document = recorded("01_log_growth")
    rows = [
        [
            f"{int(lines):,}",
            f"{growth['lines_per_second']['median']:,.0f}",
            f"{int(lines) / growth['lines_per_second']['median']:.2f} s",
            f"{growth['memory_mib']['median']:.0f} MiB",
        ]
        for lines, growth in document["figures"].items()
    ]
    heading = ["lines", "lines a second", "time", "peak memory"]
    return table(heading, rows) + under(document, "Median of five runs. ")
