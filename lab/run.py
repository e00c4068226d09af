"""Run one chapter for a person, and hurt it from a second terminal."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.markup import escape

from lab import outages
from lab.chapters import ROOT, Chapter, LabError, start
from lab.mailbox import Mailbox

RUNNING = Path(os.environ.get("LAB_RUNNING") or ROOT / ".lab" / "running.json")
"""Where a second terminal finds the chapter that runs in the first."""
COLORS = ["cyan", "magenta", "green", "yellow", "red", "blue", "white"]


def run(number: str) -> None:
    """Start chapter `number` on its usual ports, show its logs, restart what ends, until Ctrl-C.

    With `CELERY_DEFAULTS=1` in the environment its workers run without the chapter's care.
    """
    console = Console(highlight=False)
    console.print(f"Starting chapter {number} …")
    defaults = os.environ.get("CELERY_DEFAULTS") == "1"
    os.environ.setdefault("LOG_FORMAT", "text")  # for people; machines read JSON
    with start(number, fixed_ports=True, restart=True, celery_defaults=defaults) as chapter:
        console.print(
            f"\n  Open [bold]{chapter.url}[/bold] in a browser. Ctrl-C stops everything.\n"
        )
        RUNNING.parent.mkdir(exist_ok=True)
        try:
            for line in follow(chapter):
                console.print(line, soft_wrap=True)
        except KeyboardInterrupt:
            console.print("Stopping …")
        finally:
            RUNNING.unlink(missing_ok=True)


def follow(chapter: Chapter) -> Iterator[str]:
    """New log lines of every process, as they come; never ends."""
    positions: Counter[str] = Counter()
    while True:
        state = {
            "url": chapter.url,
            "redis_url": chapter.redis_url,
            "mailbox": chapter.mailbox.url,
            "data": str(chapter.data),
            "pids": chapter.pids,
        }
        new = RUNNING.with_suffix(".new")  # put in place at once: nobody reads half of it
        new.write_text(json.dumps(state))
        new.replace(RUNNING)
        for name, color in zip(chapter.commands, COLORS, strict=False):
            with (chapter.logs / f"{name}.log").open(errors="replace") as log:
                log.seek(positions[name])
                for line in log:
                    yield f"[{color}]{name:>10}[/{color}] {escape(line.rstrip())}"
                positions[name] = log.tell()
        time.sleep(0.2)


def kill(name: str, signal_name: str) -> None:
    """Send a signal to process `name` of the chapter that `run` runs, and to its children."""
    pids = running().pids
    if name not in pids:
        raise LabError(f"There is no process {name!r} now. There are: {', '.join(pids)}.")
    os.killpg(pids[name], signal.Signals[signal_name])
    print(f"Sent {signal_name} to {name}.")


def mailbox() -> None:
    """Print how many mails each newsletter has brought so far, and to how many people."""
    newsletters: dict[str, list[str]] = {}
    for message in running().mailbox.messages():
        job = message["message_id"].partition(".")[0].strip("<")
        newsletters.setdefault(job, []).append(message["recipient"])
    if not newsletters:
        print("The mailbox is empty.")
    for job, recipients in newsletters.items():
        people = len(set(recipients))
        print(f"job {job}: {len(recipients)} mails to {people} people")


@dataclass
class Running:
    """What a second terminal needs to know of the chapter that `run` runs."""

    url: str
    redis_url: str
    mailbox: Mailbox
    data: Path
    pids: dict[str, int]


def fault(name: str) -> None:
    """Do one of the outages to the chapter that `run` runs, or mend them all."""
    chapter = running()
    if "flower" not in chapter.pids:
        raise LabError("This is for chapter 04 and later. Start it in another terminal: make 04")
    if name == "mend":
        outages.mend(chapter)
        print("Mended.")
    elif name in outages.OUTAGES:
        text, outage = outages.OUTAGES[name]
        outage(chapter)
        print(f"Now {text}. To mend it: make fault NAME=mend")
    else:
        raise LabError(
            f"There is no fault {name!r}. There are: {', '.join(outages.OUTAGES)}, mend."
        )


def running() -> Running:
    if not RUNNING.exists():
        raise LabError("No chapter is running. Start one in another terminal, such as: make 01")
    state = json.loads(RUNNING.read_text())
    if not any(psutil.pid_exists(pid) for pid in state["pids"].values()):
        raise LabError("No chapter is running any more. Start one in another terminal: make 01")
    state |= {"mailbox": Mailbox(state["mailbox"]), "data": Path(state["data"])}
    return Running(**state)
