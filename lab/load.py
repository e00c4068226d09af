"""Put load on a running chapter and read what it did, one row per request.

Locust runs as a process of its own: imported into a notebook's kernel it hangs it.
"""

import math
import os
import runpy
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import requests

from lab.chapters import ROOT, LabError, Supervised, folder
from lab.waiting import pause

LOCUSTFILE = folder("05") / "locustfile.py"
OWN_DELAY = 100.0  # ms, by which Locust itself may be late (p99)
ENDED = ("SUCCESS", "FAILURE", "REVOKED")


class Visit:
    """What a visitor saw: `rows`, filled when the visit is over (see `visitor`)."""

    rows: pd.DataFrame

    def during(self, span: tuple[float, float]) -> pd.DataFrame:
        """The requests that were due in `span`, in seconds since the epoch."""
        return self.rows[self.rows.start.between(*span)]


@contextmanager
def visitor(url: str, rate: float = 20.0) -> Iterator[Visit]:
    """A visitor that asks `url`/ping `rate` times a second while the block runs.

    Arrivals are open: the next request goes out on time even if the last has no answer,
    and latency counts from the due time. After the block, `visit.rows` is a DataFrame with
    `start` (seconds since the epoch), `name`, `latency_ms`, `status` and `error`.
    Raises LabError if Locust fails.
    """
    visit = Visit()
    with tempfile.TemporaryDirectory(prefix="unblocked-") as place:
        rows = Path(place) / "rows.csv"
        arguments = ["--arrivals", "constant", "--rate", str(rate)]
        with locust(url, "OpenVisitor", rows, *arguments) as process:
            wait_for_rows(process, rows, 3)
            yield visit
            process.hurt("locust", "SIGTERM")
            finished(process, timeout=90)
        everything = pd.read_csv(rows)
        visit.rows = everything[everything.name == "ping"]


def publish(url: str, *, clients: int, newsletters: int, recipients: int) -> pd.DataFrame:
    """Send `newsletters` newsletters from `clients` that each wait for the end of theirs.

    A closed loop. Returns one row per request, as `visitor` does; the rows named
    `newsletter finished` run from the POST to the end of the job.
    Raises LabError if Locust fails or does not finish.
    """
    arguments = ["--tags", "newsletter", "--count", newsletters, "--recipients", recipients]
    arguments += ["--rate", 1000, "-u", clients]
    return locust_rows(url, "Publisher", *map(str, arguments), timeout=120)


class LocustLate(LabError):
    """Locust could not send its requests when they were due: the cores had no time for it."""


def crowd(url: str, kind: str, rate: float, seconds: float, *arguments: str) -> pd.DataFrame:
    """Open arrivals at random, `rate` a second for `seconds`, until the last is served.

    `kind` is "visit", "newsletter" or "report". Returns one row per request, as `visitor` does.
    Raises LabError if Locust fails, and LocustLate if it was three times so late itself that its
    figures are worth nothing.
    """
    user = "OpenVisitor" if kind == "visit" else "OpenPublisher"
    streams = 10
    options = ["--tags", kind, "-u", streams, "--rate", rate / streams, "-t", f"{round(seconds)}s"]
    delay = 0.0
    for _ in range(3):
        found = locust_rows(url, user, *map(str, options), *arguments)
        delays = found[found.name == "own delay"].latency_ms
        delay = percentile(delays, 99 if len(delays) >= 100 else 90)  # one of a few says little
        if delay <= OWN_DELAY:
            return found
    raise LocustLate(f"Locust itself was {delay:.0f} ms late. Too noisy: run again.")


def locust_rows(url: str, users: str, *arguments: str, timeout: float = 600.0) -> pd.DataFrame:
    """Run chapter 05's locustfile with these users and arguments to its end.

    Returns one row per request, as `visitor` does. Raises LabError if Locust fails.
    """
    with tempfile.TemporaryDirectory(prefix="unblocked-") as place:
        rows = Path(place) / "rows.csv"
        with locust(url, users, rows, "-r", "1000", *arguments) as process:
            finished(process, timeout)
        return pd.read_csv(rows)


def locust(url: str, user: str, rows: Path, *arguments: str) -> AbstractContextManager[Supervised]:
    command = [*command_of(url), *user.split(), "--headless", "--only-summary", "-s", "60"]
    return supervised([*command, "--rows", str(rows), *arguments], logs=rows.parent)


def command_of(url: str, locustfile: Path = LOCUSTFILE) -> list[str]:
    """What starts chapter 05's Locust on `url`; its users and options are still to be added."""
    return [sys.executable, "-m", "locust", "-f", str(locustfile), "--host", url]


@contextmanager
def supervised(command: list[str], logs: Path) -> Iterator[Supervised]:
    """Run Locust, which ends with the block, or when this program is gone."""
    process = Supervised({"locust": shlex.join(command)}, ROOT, dict(os.environ), logs)
    try:
        yield process
    finally:
        process.stop()


def wait_for_end(process: Supervised, timeout: float = math.inf) -> int:
    """Locust's exit code. Raises LabError if it has not ended after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while "locust" not in process.ended:
        if time.monotonic() > deadline:
            raise LabError(f"Locust did not finish within {timeout:g} s.")
        time.sleep(0.05)
    return process.ended["locust"]


def finished(process: Supervised, timeout: float) -> None:
    code = wait_for_end(process, timeout)
    if code not in (0, 1):  # 1: some requests failed; the rows say which
        raise LabError(f"Locust ended with {code}:\n{process.log('locust', 50)}")


def wait_for_rows(process: Supervised, rows: Path, wanted: int) -> None:
    deadline = time.monotonic() + 30
    while not rows.exists() or rows.read_text().count("\n") <= wanted:
        if "locust" in process.ended or time.monotonic() > deadline:
            finished(process, timeout=0)
            raise LabError("Locust sent no request.")
        time.sleep(0.05)


def percentile(values: "pd.Series[float]", percent: float) -> float:
    """The value that `percent` per cent of `values` do not exceed; NaN of none."""
    return float(values.quantile(percent / 100, interpolation="higher"))


def addresses(count: int) -> list[str]:
    """`count` recipients at example.com."""
    return [f"reader{n}@example.com" for n in range(count)]


def sample_log(number: str, lines: int) -> Iterator[str]:
    """The sample log of chapter `number`, line by line."""
    module = runpy.run_path(str(folder(number) / "samples.py"))
    log: Iterator[str] = module["sample_log"](lines)
    return log


def post(url: str, path: str, body: Any, timeout: float = 120.0) -> requests.Response:
    """POST `body` as JSON."""
    return requests.post(f"{url}{path}", json=body, timeout=timeout)


def finish(
    url: str, answer: requests.Response, timeout: float = 120.0, every: float | None = None
) -> dict[str, Any]:
    """The job document at its end, whether the chapter answers at once (202) or then (200).

    Asks for it each `every` seconds; without a word about it, as `wait_until` does.
    Raises LabError for any other answer, or if the job does not end within `timeout` seconds.
    """
    job = document(answer)
    begun = time.monotonic()
    while job["state"] not in ENDED:
        if (waited := time.monotonic() - begun) > timeout:
            raise LabError(f"The job did not end within {timeout:g} s: {job}")
        time.sleep(every or pause(waited))
        answer = requests.get(f"{url}/jobs/{job['id']}", timeout=timeout)
        if answer.status_code != 503:  # that is: try again
            job = document(answer)
    return job


def document(answer: requests.Response) -> dict[str, Any]:
    if not answer.ok:
        raise LabError(f"{answer.request.url} answered {answer.status_code}: {answer.text}")
    found: dict[str, Any] = answer.json()
    return found


def send_newsletter(url: str, recipients: int = 20) -> dict[str, Any]:
    """Send a newsletter to sample addresses and return the finished job document."""
    letter = {"subject": "News", "body": "Hello", "recipients": addresses(recipients)}
    return finish(url, post(url, "/newsletters", letter))


def make_report(url: str, lines: int = 200_000) -> dict[str, Any]:
    """Have a sample log summarised and return the finished job document."""
    return finish(url, post(url, "/reports", {"lines": lines}))
