"""The tables in the lessons, made from `results/`. Each function returns Markdown.

Lessons call these from cog blocks: `make results` measures and rewrites them, `make check`
fails when a lesson and its results differ.
"""

import math
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


def events() -> str:
    document = recorded("04_events")
    figures = document["figures"]
    names = {"celery": "Celery's own", "ours": "the chapter's", "5.7.0": "Celery's own, of 5.7.0"}
    columns = ["received", "started", "succeeded", "success"]
    rows = [
        [f"{number}, {names[way]}", *(count(row[column]) for column in columns)]
        for number in ("04", "05")
        for way, row in figures[number].items()
    ]
    heading = ["chapter, dispatcher", "received", "started", "ended", "rows that say SUCCESS"]
    text = (
        f"Of {figures['letters']} newsletters of one mail on 16 slots. "
        "Three runs in turn: median (smallest–largest). "
    )
    return table(heading, rows) + under(document, text)


def count(spread: dict[str, float]) -> str:
    """`97 (96–98)`: a number of things, as median, smallest and largest of the runs."""
    return f"{spread['median']:.0f} ({spread['min']:.0f}–{spread['max']:.0f})"


# --- Chapter 05 -----------------------------------------------------------------------

KINDS = {"visit": "visits", "newsletter": "newsletters", "report": "reports"}


def rate(edge: dict[str, Any]) -> str:
    """`11–16`: the highest rate that kept the promise, and the lowest that did not."""
    mark = " †" if edge["unsent"] else ""
    if not edge["kept"]:
        return f"under {edge['broken']:.2g}{mark}"
    return f"{number(edge['kept'])}–{number(edge['broken'])}{mark}"


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def comparison() -> str:
    document = recorded("05_comparison")
    rows = []
    for label, kinds in document["figures"].items():
        around = kinds["newsletter"]
        rows.append(
            [
                label,
                *(rate(kinds[kind]) for kind in KINDS),
                length(around["half_ms"]) if around["half_ms"] else "–",
                f"{around['beyond']:.0%}" if around["beyond"] is not None else "–",
                f"{around['recovery']:.0f} s" if around["recovery"] is not None else "–",
            ]
        )
    heading = ["chapter", *(f"{name} a second" for name in KINDS.values())]
    heading += ["newsletters: median at half", "in time at twice", "well again after"]
    picture = "![The knee of each chapter, by what it is asked for](../results/05_comparison.png)"
    unsent = any(kinds[kind]["unsent"] for kinds in document["figures"].values() for kind in KINDS)
    note = "† Locust, on the same cores, could not send the higher rate on time. " if unsent else ""
    return f"{picture}\n\n" + table(heading, rows) + under(document, note)


def knees_over_01() -> str:
    """What 05's knee is over 01's, by kind, for both settings of 01."""
    document = recorded("05_comparison")
    figures = document["figures"]
    rows = []
    for kind, name in KINDS.items():
        final = figures["05"][kind]["kept"]
        cells = []
        for label in ("01, four slots", "01, 16 slots"):
            edge = figures[label][kind]
            base = edge["kept"] or edge["broken"]
            more = "more than " if not edge["kept"] else ""
            cells.append(f"{more}{final / base:.1f} ×")
        rows.append([name, *cells])
    return table(["knee of 05 over", "01, four slots", "01, 16 slots"], rows) + under(document)


def open_closed() -> str:
    document = recorded("05_open_closed")
    figures = document["figures"]
    rows = [
        ["closed: each waits for an answer, then goes on", ms(figures["closed"])],
        ["open: they come when they come", ms(figures["open"])],
    ]
    text = (
        f"{figures['rate']} visits a second each, on one server at the same time, which stands "
        f"still for {figures['stall']:g} s of 14; five runs: median (smallest–largest). "
    )
    return table(["visitors", "p99"], rows) + under(document, text)


def batches() -> str:
    document = recorded("05_fan_out")
    figures = document["figures"]
    before, after, limit = figures["before"], figures["after"], figures["limit"]
    over = after["over limit"]
    rows = [
        [
            "one task",
            f"{before['seconds']:.0f} s",
            f"{before['seconds'] / limit:.1f} ×",
            f"{before['short p95']:.2f} s",
        ],
        [
            "batches",
            f"{over['median'] * limit:.1f} s",
            f"{over['median']:.2f} × ({over['min']:.2f}–{over['max']:.2f})",
            seconds(after["short p95"]),
        ],
    ]
    text = (
        f"{figures['mails']} mails of 0.2 s on 16 slots: the limit is {limit:g} s. One run of the "
        f"first row, three of the second: median (smallest–largest). "
    )
    heading = ["", "finished after", "over the limit", "a short one waits meanwhile, p95"]
    return table(heading, rows) + under(document, text)


def overload() -> str:
    document = recorded("05_overload")
    figures = document["figures"]
    rows = [
        [
            f"{name} a bound",
            share(figures[name]["goodput"]),
            seconds(figures[name]["p95"]),
            share(figures[name]["turned away"]),
        ]
        for name in ("without", "with")
    ]
    text = (
        f"{figures['rate']:g} newsletters a second for 30 s, on slots for {figures['limit']}; the "
        f"bound: none comes in while the first in the queue has waited for {figures['bound']:g} s. "
        "Three runs: median (smallest–largest). "
    )
    heading = [
        "queue",
        f"finished within {figures['promise']:g} s, of the slots' limit",
        "p95 of those served",
        "turned away (429)",
    ]
    return table(heading, rows) + under(document, text)


def web_processes() -> str:
    document = recorded("05_web_processes")
    names = {"visits": "visits a second", "submits": "`POST /newsletters` a second"}
    rows = [[names[key], ratio_of(ratio)] for key, ratio in document["figures"].items()]
    text = "Eight clients in a closed loop, in turn, five times: median (smallest–largest). "
    return table(["", "two web processes over one"], rows) + under(document, text)


def ratio_of(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} × ({ratio['min']:.2f}–{ratio['max']:.2f})"


def submits() -> str:
    document = recorded("05_submits")
    names = {
        "rate": "submits a second, over that view's",
        "half p50": "median wait at half of that rate, over that view's",
        "hiredis": "submits a second with `hiredis`, over those without",
        "results kept": "submits a second without Celery's results, over those that keep them",
    }
    rows = [[names[key], ratio_of(ratio)] for key, ratio in document["figures"].items()]
    text = "Eight clients; in turn, seven times: median (smallest–largest). "
    return table(["`POST /newsletters`", ""], rows) + under(document, text)


def settings() -> str:
    document = recorded("05_settings")
    rows = [
        [name, share(found["of limit"]), f"{found['MiB']['median']:.0f} MiB"]
        for name, found in document["figures"].items()
    ]
    text = "16 slots, mails of 0.2 s; three runs: median (smallest–largest). "
    heading = ["mail worker", "throughput of its limit", "memory"]
    return table(heading, rows) + under(document, text)


def mail_slots() -> str:
    document = recorded("05_mail_slots")
    rows = [[slots, share(found)] for slots, found in document["figures"].items()]
    text = "Mails of 0.2 s; five runs: median (smallest–largest). "
    return table(["slots", "newsletters a second over slots / service time"], rows) + under(
        document, text
    )


def visitor_at_the_knee() -> str:
    document = recorded("05_visitor")
    figures = document["figures"]
    rows = [["idle", ms(figures["idle"])], ["while newsletters come", ms(figures["at the knee"])]]
    rows.append(["the one over the other", ratio_of(figures["over"])])
    text = "Newsletters at 0.8 of what 16 slots can serve; five runs: median (smallest–largest). "
    return table(["a visitor's p99", ""], rows) + under(document, text)


def reports_05() -> str:
    document = recorded("05_reports")
    ratio = share(document["figures"]["of_plain"])
    rows = [["four reports by two workers, over two plain processes", ratio]]
    text = "In turn, five times: median (smallest–largest). "
    return table(["", "speed"], rows) + under(document, text)


def soak() -> str:
    document = recorded("05_soak")
    figures = document["figures"]
    grown = ", ".join(f"{name} {ratio:.2f} ×" for name, ratio in figures["memory"].items())
    rows = [
        ["requests", f"{figures['requests']}"],
        ["jobs accepted", f"{figures['accepted']}"],
        ["of these not finished", f"{figures['not finished']}"],
        ["memory after over before", grown],
    ]
    text = f"Six days with their nights in {figures['seconds']} s; one run. "
    return table(["soak", ""], rows, numbers=False) + under(document, text)


def hosts() -> str:
    document = recorded("05_hosts")
    figures = document["figures"]
    rows = [
        [
            name,
            f"{found['lost']['max']:.0f}",
            f"{found['twice']['min']:.0f}–{found['twice']['max']:.0f}"
            if found["twice"]["max"]
            else "0",
            seconds(found["seconds"]),
        ]
        for name, found in figures.items()
        if isinstance(found, dict)
    ]
    count = f"{figures['mails']} mails (in the last row ten)"
    text = f"{count}, three runs each: median (smallest–largest). "
    heading = ["a worker's host is cut off", "mails lost", "twice", "all done after"]
    return table(heading, rows) + under(document, text)


COST = {
    "web, ms": ("CPU of the web process", "ms"),
    "mail, ms": ("CPU of the mail worker", "ms"),
    "redis, ms": ("CPU of Redis", "ms"),
    "commands": ("commands to Redis", ""),
    "memory, kB": ("memory of Redis, for a day", "kB"),
    "disk, kB": ("Redis's file, until it is rewritten", "kB"),
}


def per_job() -> str:
    document = recorded("05_per_job")
    rows = []
    for key, (name, unit) in COST.items():
        found = document["figures"][key]
        low, high = number(found["min"]), number(found["max"])
        rows.append([name, f"{number(found['median'])} {unit} ({low}–{high})"])
    text = "Five runs at ten newsletters a second: median (smallest–largest). "
    return table(["a newsletter of five mails costs", ""], rows) + under(document, text)


PEAK = 3
"""How much busier the busiest second is than the mean of a day: an assumption."""


def growth() -> str:
    """What newsletters a day need at the peak, by arithmetic from `per_job`."""
    figures = recorded("05_per_job")["figures"]
    rows = []
    for a_day in (10_000, 100_000, 1_000_000):
        peak = a_day / 86_400 * PEAK

        def cores(service: str, peak: float = peak) -> str:
            return f"{figures[f'{service}, ms']['median'] / 1000 * peak:.2f}"

        memory = figures["memory, kB"]["median"] * a_day / 1e6
        rows.append(
            [
                f"{a_day:,}".replace(",", " "),
                number(peak),
                f"{math.ceil(peak)}",
                *(cores(service) for service in ("web", "mail", "redis")),
                f"{memory:.1f} GB" if memory >= 1 else f"{memory * 1000:.0f} MB",
            ]
        )
    heading = ["newsletters a day", "a second, at the peak", "slots", "cores: web", "mail", "Redis"]
    return table([*heading, "Redis keeps"], rows)
