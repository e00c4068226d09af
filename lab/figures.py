"""The figures behind the lessons: one function for each file in `results/`."""

from collections.abc import Callable
from typing import Any

from rich.console import Console

from lab import (
    contenders,
    figures_01,
    figures_02,
    figures_03,
    figures_04,
    figures_05,
    hosts,
    plots,
    task_events,
)
from lab.chapters import LabError
from lab.results import from_root, record

FIGURES: dict[str, Callable[[], dict[str, Any]]] = {
    "01_slots": figures_01.slots,
    "01_one_connection": figures_01.one_connection,
    "01_visitors": figures_01.visitors,
    "01_log_growth": figures_01.log_growth,
    "02_async_views": figures_02.async_views,
    "02_push_latency": figures_02.push_latency,
    "02_requests_per_job": figures_02.requests_per_job,
    "02_fan_out": figures_02.fan_out,
    "02_visitors": figures_02.visitors_during_reports,
    "02_two_workers": figures_02.two_workers,
    "02_crash": figures_02.crash,
    "03_accepted": figures_03.accepted,
    "03_throughput": figures_03.throughput,
    "03_reports": figures_03.reports,
    "03_visitors": figures_03.visitors,
    "03_push_latency": lambda: figures_02.push_latency("03"),
    "03_memory": figures_03.memory,
    "03_faults": figures_03.fault_table,
    "03_window": figures_03.window,
    "04_cost": figures_04.cost,
    "04_isolation": figures_04.isolation,
    "04_recovery": figures_04.recovery,
    "04_detection": figures_04.detection,
    "04_faults": figures_04.fault_table,
    "04_events": task_events.measure,
    **figures_05.FIGURES,
    "06_contenders": contenders.measure,
}

NOT_HERE: dict[str, Callable[[], str]] = {
    "05_hosts": lambda: hosts.allowed()[1],
    "06_contenders": lambda: "" if contenders.installed() else "first: make contenders",
}
"""Figures that cannot be measured everywhere: each says why not, or nothing."""


def measure(names: list[str]) -> None:
    """Measure the named figures, or all, and record them in `results/`."""
    console = Console()
    for name in names or FIGURES:
        if name not in FIGURES:
            raise LabError(f"There is no figure {name!r}. There are: {', '.join(FIGURES)}.")
        console.print(f"{name} …")
        if reason := NOT_HERE.get(name, str)():
            console.print(f"  left as it was: {reason}")
            continue
        figures = FIGURES[name]()
        path = record(name, figures, f"make results FIGURES={name}", keep=True)
        if name in figures_05.PICTURES:
            plots.save(figures_05.PICTURES[name](figures), path.with_suffix(".png"))
        console.print(f"  → {from_root(path)}")
