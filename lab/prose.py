"""The tables in the lessons, made from `results/`. Each function returns Markdown.

Lessons call these from cog blocks: `make results` measures and rewrites them, `make check`
fails when a lesson and its results differ.
"""

from typing import Any

from lab.outages import OUTAGES
from lab.results import origin, recorded


def table(heading: list[str], rows: list[list[str]], numbers: bool = True) -> str:
    """A Markdown table; the first column is text, the others are `numbers` or text too."""
    lines = [heading, ["---"] + ["--:" if numbers else "---"] * (len(heading) - 1), *rows]
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


# --- Chapter 02 -----------------------------------------------------------------------


def async_views() -> str:
    document = recorded("02_async_views")
    rows = [
        [f"`{label}`", seconds(server["sync"]), seconds(server["async"])]
        for label, server in document["figures"].items()
        if label != "one request"
    ]
    heading = ["ten requests of 0.2 s at once", "`def`, `time.sleep`", "`async def`, `await`"]
    return table(heading, rows) + under(document, "Seconds until all ten are answered. ")


def gather() -> str:
    document = recorded("02_async_views")
    one = document["figures"]["one request"]
    rows = [
        ["one by one", "10 × 0.2 s = 2.0 s", seconds(one["one-by-one"])],
        ["together, with `gather`", "0.2 s", seconds(one["together"])],
    ]
    return table(["one request asks ten mail servers", "limit", "measured"], rows) + under(document)


def seconds(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} s ({spread['min']:.2f}–{spread['max']:.2f})"


def requests_per_job() -> str:
    document = recorded("02_requests_per_job")
    names = {
        "asking": "the page asks twice a second",
        "polling": "push over long polling",
        "upgrade": "push over WebSocket, after a first poll",
        "websocket": "push over WebSocket only",
    }
    rows = [
        [names[way], f"{count['median']:.0f} ({count['min']:.0f}–{count['max']:.0f})"]
        for way, count in document["figures"].items()
    ]
    heading = ["following one newsletter of 20 mails", "HTTP requests"]
    return table(heading, rows) + under(document)


def push_latency() -> str:
    document = recorded("02_push_latency")
    names = {"websocket": "WebSocket", "polling": "long polling"}
    rows = [
        [names[transport], ms(times["p50"]), ms(times["p99"])]
        for transport, times in document["figures"].items()
    ]
    heading = ["from a step done to its receipt", "p50", "p99"]
    text = "Five jobs of 40 steps at once, five runs: median (smallest–largest). "
    return table(heading, rows) + under(document, text)


def fan_out() -> str:
    document = recorded("02_fan_out")
    figures = document["figures"]
    memory = figures["kib_a_client"]
    rows = [
        [
            str(figures["clients"]),
            ms(figures["all_have_it_ms"]),
            f"{memory['median']:.0f} KiB ({memory['min']:.0f}–{memory['max']:.0f})",
        ]
    ]
    heading = ["clients that watch one job", "until the last has an event", "memory a client"]
    return table(heading, rows) + under(document)


def visitors_during_reports() -> str:
    document = recorded("02_visitors")
    rows = [
        [reports, ms(times["p50"]), ms(times["p99"])]
        for reports, times in document["figures"].items()
    ]
    heading = ["reports at the same time", "visitor's p50", "visitor's p99"]
    return table(heading, rows) + under(document, "Median of five runs (smallest–largest). ")


def two_workers() -> str:
    document = recorded("02_two_workers")
    names = {"polling": "long polling", "websocket": "WebSocket only"}
    rows = []
    for key, heard in document["figures"].items():
        workers, transport = key.split()
        rows.append([f"{workers}, {names[transport]}", f"{heard} of 10"])
    heading = ["web processes and transport", "clients that get ten answers"]
    return table(heading, rows) + under(document)


def crash_02() -> str:
    document = recorded("02_crash")
    figures = document["figures"]
    lost, twice = figures["lost"], figures["twice"]
    rows = [
        [
            f"{figures['mails']}",
            f"{lost['median']:.0f} ({lost['min']:.0f}–{lost['max']:.0f})",
            f"{twice['median']:.0f}",
        ]
    ]
    return table(["mails", "lost", "sent twice"], rows) + under(document)


# --- Chapter 03 -----------------------------------------------------------------------


def accepted() -> str:
    document = recorded("03_accepted")
    figures = document["figures"]
    rows = [
        [name, ms(figures[key]["p50"]), ms(figures[key]["p99"])]
        for name, key in (
            ("`POST /newsletters`, to 202", "newsletter"),
            ("a bare view that writes to Redis once", "bare"),
        )
    ]
    ratios = (figures["p50 over bare"], figures["p99 over bare"])
    rows.append(["the one over the other", *(times(ratio) for ratio in ratios)])
    text = "One client, 300 requests of each in turn, five runs: median (smallest–largest). "
    return table(["", "p50", "p99"], rows) + under(document, text)


def times(spread: dict[str, float]) -> str:
    return f"{spread['median']:.1f} × ({spread['min']:.1f}–{spread['max']:.1f})"


def throughput_03() -> str:
    document = recorded("03_throughput")
    rows = []
    for name, spread in document["figures"].items():
        slots, delay = name.split(" slots, ")
        limit = int(slots) / (5 * int(delay.removesuffix(" ms")) / 1000)
        rows.append([f"{slots}, {delay} a mail", f"{limit:.0f} a second", share(spread)])
    heading = ["slots", "limit: slots / 5 mails", "measured, of the limit"]
    return table(heading, rows) + under(document, "Median of five runs (smallest–largest). ")


def reports_03() -> str:
    document = recorded("03_reports")
    rows = [["four reports, two worker processes", share(document["figures"]["of_plain"])]]
    heading = ["", "of the rate of two plain Python processes"]
    text = "The one and the other in turn, five times: median (smallest–largest). "
    return table(heading, rows) + under(document, text)


def visitors_03() -> str:
    document = recorded("03_visitors")
    rows = [
        [work, ms(waits["p50"]), ms(waits["p99"])] for work, waits in document["figures"].items()
    ]
    heading = ["the workers' work", "visitor's p50", "visitor's p99"]
    return table(heading, rows) + under(document, "Median of five runs (smallest–largest). ")


def push_latency_03() -> str:
    document = recorded("03_push_latency")
    names = {"websocket": "WebSocket", "polling": "long polling"}
    rows = [
        [names[transport], ms(waits["p50"]), ms(waits["p99"])]
        for transport, waits in document["figures"].items()
    ]
    text = "Five jobs of 40 steps at once, five runs: median (smallest–largest). "
    heading = ["from a step in the worker to its receipt", "p50", "p99"]
    return table(heading, rows) + under(document, text)


def memory() -> str:
    document = recorded("03_memory")
    rows = [
        [pool, f"{mib['median']:.1f} MiB ({mib['min']:.1f}–{mib['max']:.1f})"]
        for pool, mib in document["figures"].items()
    ]
    heading = ["pool", "memory for each further slot"]
    return table(heading, rows) + under(document, "From 2 slots to 18, all at work; three runs. ")


def fault_table() -> str:
    document = recorded("03_faults")
    rows = []
    for fault, outcomes in document["figures"].items():
        cells = [fault]
        for side in ("defaults", "chapter"):
            for key in ("lost", "twice", "reports_lost"):
                cells.append(bounds([outcome[key] for outcome in outcomes[side]]))
            seconds = [outcome["seconds"] for outcome in outcomes[side]]
            cells.append("never" if None in seconds else f"{bounds(seconds)} s")
        rows.append(cells)
    kinds = ["mails lost", "twice", "reports lost", "all done after"]
    heading = ["fault", *(f"defaults: {kind}" for kind in kinds), *(f"03: {k}" for k in kinds)]
    text = (
        "40 mails in two newsletters, two reports, five runs each: smallest–largest. "
        '"Never": in one run at least, some job had not ended 20 s after the fault. '
    )
    return table(heading, rows) + under(document, text)


def bounds(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g}–{high:g}"


def window() -> str:
    document = recorded("03_window")
    figures = document["figures"]
    names = {"without": "takes every copy", "with": "drops the second copy of a `Message-ID`"}
    rows = [
        [names[key], f"{count['min']:.0f}–{count['max']:.0f} of {figures['mails']}"]
        for key, count in figures.items()
        if key in names
    ]
    heading = ["the mail server keeps every 5th mail, does not say so, and", "received twice"]
    return table(heading, rows) + under(document, "Five runs: smallest–largest. ")


# --- Chapter 04 -----------------------------------------------------------------------


def isolation() -> str:
    document = recorded("04_isolation")
    names = {
        "shared": "one pool of six processes for both queues",
        "separate": "four threads for mails, two processes for reports",
    }
    rows = [
        [names[key], seconds(figures["wait p95"]), seconds(figures["reports"])]
        for key, figures in document["figures"].items()
    ]
    heading = ["", "a newsletter waits, p95", "40 reports take"]
    return table(heading, rows) + under(document, "Three runs: median (smallest–largest). ")


def cost() -> str:
    document = recorded("04_cost")
    names = {
        "POST p50": "`POST /newsletters` to 202, median",
        "throughput": "newsletters a second, 4 slots",
    }
    rows = [
        [names[key], f"{ratio['median']:.2f} × ({ratio['min']:.2f}–{ratio['max']:.2f})"]
        for key, ratio in document["figures"].items()
    ]
    text = "Both chapters run and are asked in turn, five times: median (smallest–largest). "
    return table(["", "04 over 03"], rows) + under(document, text)


def recovery() -> str:
    document = recorded("04_recovery")
    figures = document["figures"]
    row = [
        f"{figures['mails']}",
        f"{figures['lost']['max']:.0f}",
        f"{figures['twice']['max']:.0f}",
        seconds(figures["seconds"]),
    ]
    heading = ["mails", "lost, at most", "twice, at most", "all done after its return"]
    return table(heading, [row]) + under(document, "Five runs: median (smallest–largest). ")


def fault_table_04() -> str:
    document = recorded("04_faults")
    rows = []
    for fault, outcomes in document["figures"].items():
        counts = [bounds([run[key] for run in outcomes]) for key in ("lost", "twice")]
        counts.append(bounds([run["reports_lost"] for run in outcomes]))
        ends = [run["seconds"] for run in outcomes]
        rows.append([fault, *counts, "never" if None in ends else f"{bounds(ends)} s"])
    heading = ["fault", "mails lost", "twice", "reports lost", "all done after"]
    text = "40 mails in two newsletters, two reports, three runs each: smallest–largest. "
    return table(heading, rows) + under(document, text)


def detection() -> str:
    document = recorded("04_detection")
    rows = []
    for name, signs in document["figures"].items():
        cells = [f"`{name}`: {OUTAGES[name][0]}"]
        known = {sign: found["seconds"]["median"] for sign, found in signs.items() if found}
        soonest = min(known.values())
        for sign in ("log", "health", "alert"):
            found = signs[sign]
            if not found:
                cells.append("–")
                continue
            says = found["says"].split(",")[0] if sign == "log" else found["says"]
            cell = f"{says}, {seconds(found['seconds'])}"
            cells.append(f"**{cell}**" if known[sign] == soonest else cell)
        rows.append(cells)
    text = (
        "Three runs: median (smallest–largest); the first in bold; –: silent for 40 s in one run "
        "at least. "
    )
    heading = ["fault", "log", "health", "alert"]
    return table(heading, rows, numbers=False) + under(document, text)
