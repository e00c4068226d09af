"""Write measured figures with what is needed to judge them: machine, versions, command, date."""

import datetime
import json
import os
import platform
import statistics
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from lab.chapters import ROOT

RECORDED = ROOT / "results"
LOCAL = RECORDED / "local"
"""Where your own runs go; git ignores it."""

PACKAGES = [
    "flask",
    "gunicorn",
    "aiosmtpd",
    "flask-socketio",
    "celery",
    "redis",
    "flower",
    "prometheus-client",
    "locust",
]


def record(name: str, figures: dict[str, Any], command: str, keep: bool = False) -> Path:
    """Write `figures` as `<name>.json` and return its path.

    Goes to `results/local/`, or with `keep` to `results/`, where prose takes its
    numbers from. `command` is what a reader types to measure the same.
    """
    path = place(keep) / f"{name}.json"
    document = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "figures": figures,
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def recorded(name: str) -> dict[str, Any]:
    """The recorded document `results/<name>.json`; its numbers are under `figures`."""
    document: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())
    return document


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest of repeated measurements."""
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "runs": len(values),
    }


def origin(document: dict[str, Any]) -> str:
    """One line under a table: with what it was measured, on what, and how to repeat it."""
    packages = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    return (
        f"<sub>Measured with `{document['command']}` on {document['date']}: "
        f"{document['machine']}; {packages}.</sub>"
    )


def from_root(path: Path) -> str:
    return str(path.relative_to(ROOT))


def place(keep: bool) -> Path:
    path = RECORDED if keep else LOCAL
    path.mkdir(parents=True, exist_ok=True)
    return path


def machine() -> str:
    """`2 cores, 24 GiB, Linux x86_64`: what a ratio may depend on, and nothing that names you."""
    memory = round(psutil.virtual_memory().total / 2**30)
    return f"{os.cpu_count()} cores, {memory} GiB, {platform.system()} {platform.machine()}"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
