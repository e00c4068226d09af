"""Chapter 05's Locust file against every chapter: its rows are checked against the other side."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
from playwright.sync_api import Page, expect

import lab
from lab import load, loadtest, prose
from lab.chapters import PORTS, folder, free_ports, gunicorn
from lab.load import LOCUSTFILE, LocustLate, locust_rows
from lab.waiting import wait_until

from .conftest import ROOT

*EARLIER, LAST = lab.chapters()
CHAPTERS = [LAST]  # of a running chapter that is shared


@pytest.fixture(
    scope="module",
    params=[*(pytest.param(each, marks=pytest.mark.long) for each in EARLIER), LAST],
)
def counted(request: pytest.FixtureRequest) -> Iterator[lab.Chapter]:
    """Each chapter, with a line in its log for each request that comes in."""
    settings: dict[str, Any] = {"THREADS": 24, "MAIL_DELAY": 0.01, "REDIS_TIMEOUT": 10}
    settings |= gunicorn("count_requests.py")
    with lab.start(request.param, **settings) as chapter:
        yield chapter


def requests_seen(chapter: lab.Chapter, path: str) -> int:
    """How many requests for a path the server says that it got."""
    return len(re.findall(rf"REQUEST {path}(?![\w/])", chapter.log("web", 10**6)))


def rows_of(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    found = rows[rows.name == name]
    assert found.error.isna().all(), found.error.dropna().unique()
    return found


@pytest.mark.parametrize("user", ["Visitor", "OpenVisitor"])
def test_every_visit_is_a_row_and_a_request(counted: lab.Chapter, user: str) -> None:
    before = requests_seen(counted, "/ping")
    rows = locust_rows(counted.url, user, "-u", "4", "--rate", "10", "-t", "3s")
    visits = rows_of(rows, "ping")
    assert 60 < len(visits) <= 160
    wait_until(lambda: requests_seen(counted, "/ping") - before == len(visits))
    assert (visits.latency_ms > 0).all()


@pytest.mark.parametrize("user", ["Publisher", "OpenPublisher"])
def test_every_newsletter_is_two_rows_and_its_mails(counted: lab.Chapter, user: str) -> None:
    counted.mailbox.empty()
    jobs = ("--rate", "2", "--count", "8", "--recipients", "4")
    arguments = ("-u", "3", *jobs, "--tags", "newsletter")
    rows = locust_rows(counted.url, user, *arguments)
    accepted, finished = rows_of(rows, "newsletter accepted"), rows_of(rows, "newsletter finished")
    assert len(accepted) == len(finished) == 8
    mails = pd.DataFrame(counted.mailbox.messages())
    assert len(mails) == 4 * len(finished)
    both = accepted.merge(finished, on="start", suffixes=("_accepted", "_finished"))
    assert (both.latency_ms_finished >= both.latency_ms_accepted).all()
    assert finished.latency_ms.min() >= 40  # four mails of 0.01 s
    last_mails = mails.received.groupby(mails.message_id.str.split(".").str[0]).max()
    ends = (finished.start + finished.latency_ms / 1000).sort_values()
    late = ends.to_numpy() - last_mails.sort_values().to_numpy()
    assert np.median(late) < 2 * 0.2  # Locust asks five times a second while a job is young


def test_reports_are_rows_too(counted: lab.Chapter) -> None:
    arguments = ("-u", "2", "--rate", "4", "--count", "5", "--tags", "report", "--lines", "500")
    rows = locust_rows(counted.url, "Publisher", *arguments)
    assert len(rows_of(rows, "report accepted")) == len(rows_of(rows, "report finished")) == 5
    assert "newsletter accepted" not in set(rows.name)


def test_a_watcher_says_how_long_a_push_takes(counted: lab.Chapter) -> None:
    until = ("-t", "3s") if counted.number == "01" else ("--count", "5")  # no job there
    arguments = ("-u", "2", "--rate", "3", *until, "--recipients", "20")
    rows = locust_rows(counted.url, "Watcher", *arguments)
    if counted.number == "01":
        assert set(rows.name) == {"connect"}
        assert rows.error.str.contains("No Socket.IO here").all()
        return
    pushes = rows_of(rows, "push")
    finished = rows_of(rows, "newsletter finished")
    assert len(pushes) >= len(finished) == 5
    assert 0 < pushes.latency_ms.median() < 2000  # from one clock to itself: more than nothing


def test_a_newsletter_that_failed_is_not_said_to_be_finished() -> None:
    with lab.start("02", MAIL_DELAY=0) as chapter:
        chapter.mailbox.set(drop_every=1)
        for user in ("Watcher", "Publisher"):
            rows = locust_rows(chapter.url, user, "--count", "3", "--tags", "watch", "newsletter")
            ends = rows[rows.name == "newsletter finished"]
            assert len(ends) == 3
            assert ends.error.str.contains("FAILURE: The mail server is away").all()


SCATTER = {"constant": (0, 0.3), "poisson": (0.75, 1.3)}
"""The smallest and the largest scatter of the gaps between arrivals, over their mean."""


@pytest.mark.alone
def test_open_arrivals_keep_their_schedule(tmp_path: Path) -> None:
    """While the server stands still for a second, two crowds come as before; and wait."""
    rate = 60
    options = ("-u", "1", "--rate", str(rate), "-t", "5s", "--arrivals")
    paths = {arrivals: tmp_path / f"{arrivals}.csv" for arrivals in SCATTER}
    with lab.start("01", THREADS=150) as chapter, ExitStack() as stack:
        crowds = {
            arrivals: stack.enter_context(
                load.locust(chapter.url, "OpenVisitor", path, *options, arrivals)
            )
            for arrivals, path in paths.items()
        }
        for arrivals, process in crowds.items():
            load.wait_for_rows(process, paths[arrivals], wanted=2 * rate)
        server = chapter.processes("web")[1]
        server.suspend()
        time.sleep(1)  # the stall itself
        server.resume()
        for process in crowds.values():
            load.finished(process, timeout=60)
    for arrivals, (smallest, largest) in SCATTER.items():
        rows = pd.read_csv(paths[arrivals])
        starts = rows_of(rows, "ping").start.sort_values()
        seconds = starts.max() - starts.min()
        assert len(starts) == pytest.approx(rate * seconds, rel=0.2)
        gaps = starts.diff().dropna()
        assert smallest <= gaps.std() / gaps.mean() <= largest, arrivals
        waited = rows_of(rows, "ping").latency_ms
        assert waited.max() > 800
        late = rows_of(rows, "own delay").latency_ms
        assert len(late) == len(starts)
        assert late.max() < 500  # half of the stall: who waits for an answer is late by all of it


def test_a_job_that_is_forgotten_has_failed_and_is_not_awaited_for_ever() -> None:
    arguments = ["--tags", "newsletter", "--count", "1", "--recipients", "20"]
    with lab.start("02", restart=True, MAIL_DELAY=0.3) as chapter, ThreadPoolExecutor() as pool:
        run = pool.submit(locust_rows, chapter.url, "Publisher", *arguments, timeout=60)
        wait_until(lambda: len(chapter.mailbox.messages()) > 0)
        chapter.hurt("web")
        rows = run.result(timeout=60)
    (error,) = rows[rows.name == "newsletter finished"].error
    assert "nobody knows this job" in error


OURS = f"""
import sys
sys.path.insert(0, {str(LOCUSTFILE.parent)!r})
from locustfile import *
"""


@pytest.fixture
def with_locustfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have Locust run chapter 05's file with this text behind it."""

    def use(text: str) -> None:
        path = tmp_path / "locustfile_of_a_test.py"
        path.write_text(OURS + text)
        monkeypatch.setattr(load, "command_of", partial(load.command_of, locustfile=path))

    return use


BUSY = 0.3  # seconds
BUSY_LOCUST = f"""
ask = Person.ask

def ask_late(self, *arguments, **options):
    gevent.sleep({BUSY})
    return ask(self, *arguments, **options)

Person.ask = ask_late
"""


def test_latency_counts_from_when_an_arrival_was_due(
    with_locustfile: Callable[[str], None],
) -> None:
    """Also if Locust had to wait before it could ask, which no server's clock would tell."""
    with_locustfile(BUSY_LOCUST)
    arguments = ["-u", "1", "--rate", "5", "-t", "3s", "--arrivals", "constant"]
    arguments += ["--tags", "newsletter", "--recipients", "1"]
    with lab.start("01", THREADS=8, MAIL_DELAY=0.2) as chapter:
        rows = locust_rows(chapter.url, "OpenPublisher", *arguments)
    latency = rows_of(rows, "newsletter accepted").latency_ms
    assert latency.min() >= 1000 * (BUSY + 0.2)  # the mail takes 0.2 s
    # Five come in a second, and each takes half of one: nobody waits for those before.
    assert rows_of(rows, "own delay").latency_ms.max() < 1000 * (BUSY + 0.2)


STALL = 1.0  # seconds
STALLED_LOCUST = f"""
sleep = gevent.monkey.get_original("time", "sleep")  # while it lasts, nobody is served

@events.test_start.add_listener
def stall(**_):
    gevent.spawn_later(0.5, sleep, {STALL})
"""


def test_locust_says_how_late_it_was_itself(with_locustfile: Callable[[str], None]) -> None:
    with_locustfile(STALLED_LOCUST)
    (port,) = free_ports(1)  # nobody answers there: here that is no matter
    options = ("-u", "1", "--rate", "20", "-t", "3s", "--arrivals", "constant")
    rows = locust_rows(f"http://127.0.0.1:{port}", "OpenVisitor", *options)
    late = rows_of(rows, "own delay").latency_ms
    assert late.max() > 1000 * STALL / 2


ONE_PUSH = """
import locust  # first: it patches what the others import
import time
from types import SimpleNamespace as Made
from gevent.event import Event
from locustfile import Watcher

rows = []
fire = Made(fire=lambda **row: rows.append(row))
watcher = Watcher.__new__(Watcher)
watcher.environment, watcher.ended = Made(events=Made(request=fire)), Event()
watcher.receive({"at": time.time() - 50, "state": "PROGRESS"})
watcher.receive({"at": time.time() - 20, "state": "SUCCESS"})
print(*(round(row["response_time"] / 1000) for row in rows), watcher.ended.is_set())
"""


def test_the_latency_of_a_push_counts_from_the_clock_of_who_pushed() -> None:
    command = [sys.executable, "-c", ONE_PUSH]
    done = subprocess.run(
        command, cwd=LOCUSTFILE.parent, capture_output=True, text=True, timeout=60, check=True
    )
    first, second, ended = done.stdout.split()
    assert 50 <= int(first) < 80
    assert 20 <= int(second) < 50
    assert ended == "True"


def locust(chapter: lab.Chapter, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", chapter.url]
    return subprocess.run(
        [*command, "--headless", "--only-summary", "-s", "30", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture
def final(chapter: lab.Chapter) -> lab.Chapter:
    """Chapter 05; its mail server takes no time."""
    return chapter


@pytest.mark.parametrize(
    ("ms", "seconds", "code", "says"),
    [(5000, 10, 0, "kept"), (0.1, 5, 1, "BROKEN"), (5000, 1, 2, "too noisy")],
)
def test_the_service_level_is_the_exit_code(
    final: lab.Chapter, tmp_path: Path, ms: float, seconds: int, code: int, says: str
) -> None:
    level = f'[[promise]]\nrow = "ping"\npercentile = 99\nms = {ms}\n'
    level += "[errors]\nshare = 0.05\n[noise]\nown_delay_ms = 5000\n"
    (tmp_path / "slo.toml").write_text(level)
    arguments = ["-u", "10", "-r", "100", "--rate", "12" if seconds > 1 else "5"]
    done = locust(
        final, "Visitor", *arguments, "-t", f"{seconds}s", "--slo", str(tmp_path / "slo.toml")
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert re.search(rf"ping: p99 at most {ms:g} ms +{says}", done.stdout), done.stdout


@pytest.mark.parametrize("shape", loadtest.SHAPES)
def test_each_shape_rises_to_its_most_and_ends(final: lab.Chapter, shape: str) -> None:
    """Locust looks at a shape once a second: six days take eighteen of them here, and a spike
    that lasts a fifth of the time must last longer than one."""
    seconds = {"Soak": 18, "Spike": 12}.get(shape, 6)
    arguments = ("-u", "40", "-t", f"{seconds}s", "--arrivals", "constant")
    rows = locust_rows(final.url, "OpenVisitor", "--shape", shape, *arguments)
    starts = rows_of(rows, "ping").start
    per_second = (starts - starts.min()).astype(int).value_counts().sort_index()
    assert seconds - 1 <= starts.max() - starts.min() <= seconds + 1
    assert 25 < per_second.max() <= 48
    assert per_second[:-1].min() < per_second.max() / 2


SHARES = """
import json
import shapes

kinds = (shapes.Steps, shapes.Spike, shapes.Ramp, shapes.Soak)
print(json.dumps([[kind.share(None, n / 60) for n in range(60)] for kind in kinds]))
"""


def test_a_shape_is_what_it_is_called() -> None:
    """At sixty moments of a run: which share of the users there are."""
    command = [sys.executable, "-c", SHARES]
    done = subprocess.run(
        command, cwd=LOCUSTFILE.parent, capture_output=True, text=True, timeout=60, check=True
    )
    steps, spike, ramp, soak = json.loads(done.stdout)
    assert steps == pytest.approx([(n // 12 + 1) / 5 for n in range(60)])
    assert spike == [1.0 if 18 <= n < 30 else 0.1 for n in range(60)]
    assert ramp == pytest.approx([n / 60 for n in range(60)])
    assert soak[::10] == pytest.approx([0.1] * 6)  # nights
    assert soak[5::10] == pytest.approx([1.0] * 6)  # days


def test_an_unknown_shape_lists_those_there_are(final: lab.Chapter) -> None:
    done = locust(final, "Visitor", "--shape", "Circle")
    assert done.returncode == 1
    assert "There are: " in done.stderr
    assert all(name in done.stderr for name in loadtest.SHAPES)


def test_two_workers_and_a_master_do_it_together(final: lab.Chapter, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE)]
    workers = [
        subprocess.Popen(
            [
                *command,
                "--worker",
                "--master-port",
                str(port),
                "--rows",
                str(tmp_path / f"{n}.csv"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for n in range(2)
    ]
    try:
        master = locust(
            final,
            *(
                "OpenVisitor",
                "--master",
                "--expect-workers",
                "2",
                "--master-bind-host",
                "127.0.0.1",
            ),
            *("--master-bind-port", str(port), "-u", "4", "-r", "10", "--rate", "10", "-t", "5s"),
            *("--slo", str(folder("05") / "slo.toml")),
        )
        for worker in workers:
            worker.wait(30)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert master.returncode in (0, 2), master.stdout + master.stderr
    counts = [len(rows_of(pd.read_csv(tmp_path / f"{n}.csv"), "ping")) for n in range(2)]
    assert min(counts) > 20, master.stdout + master.stderr
    assert f"of {sum(counts)} answers" in master.stdout


@pytest.mark.parametrize(
    ("punctual", "late", "is_late"),
    [(19, 1, False), (19, 3, True), (150, 1, False), (150, 2, True)],
)
def test_a_run_in_which_locust_itself_was_late_is_refused(
    monkeypatch: pytest.MonkeyPatch, punctual: int, late: int, is_late: bool
) -> None:
    """One arrival in a hundred may be late; of a few, one in ten."""
    delays = pd.DataFrame({"name": "own delay", "latency_ms": [1.0] * punctual + [500.0] * late})
    monkeypatch.setattr(load, "locust_rows", lambda *_: delays)
    if is_late:
        with pytest.raises(LocustLate, match="500 ms late"):
            load.crowd("", "visit", 10, 1)
    else:
        assert len(load.crowd("", "visit", 10, 1)) == punctual + late


def test_missing_answers_count_as_never(final: lab.Chapter) -> None:
    """Survivors only would make a server that answers nobody look quick."""
    from lab.knee import PROMISES

    options = ("--tags", "newsletter", "-u", "4", "--rate", "2", "-t", "4s", "--recipients", "1")
    rows = locust_rows(final.url, "OpenPublisher", *options)
    promise = PROMISES["newsletter"]
    assert promise.waits(rows).max() < float("inf")
    finished = rows.name == "newsletter finished"
    fewer = rows.drop(rows[finished].index[:5])
    assert (promise.waits(fewer) == float("inf")).sum() == 5


@pytest.mark.parametrize(
    ("serves", "sends", "kept", "broken", "unsent"),
    [
        (45, 1000, 40, 56.57, False),  # climbs from 20 to the last that is kept
        (45, 50, 40, 56.57, True),  # the next is more than Locust can send
        (11, 1000, 10, 14.14, False),  # descends
        (15, 15, 14.14, 20, True),
        (0, 1000, 0, 1.25, False),  # gives up at a sixteenth
    ],
)
def test_the_knee_is_between_what_is_kept_and_what_is_not(
    monkeypatch: pytest.MonkeyPatch,
    serves: float,
    sends: float,
    kept: float,
    broken: float,
    unsent: bool,
) -> None:
    """A server that is quick up to one rate and far too slow beyond it."""
    from lab import knee

    def crowd(_url: str, _kind: str, rate: float, seconds: float, *arguments: str) -> pd.DataFrame:
        assert arguments == promise.arguments
        if rate > sends:
            raise LocustLate("late")
        count = round(rate * seconds)
        assert count >= 150
        latency = 5.0 if rate <= serves else 5000.0
        own = pd.DataFrame({"name": "own delay", "latency_ms": [0.0] * count})
        rows = pd.DataFrame({"name": promise.row, "latency_ms": [latency] * count})
        return pd.concat([own, rows]).assign(error=None)

    promise = knee.PROMISES["report"]
    monkeypatch.setattr(knee, "crowd", crowd)
    chapter: Any = SimpleNamespace(url="")
    found = knee.find(chapter, promise, 20.0)
    assert (found.kept, found.broken) == pytest.approx((kept, broken), rel=0.01)
    assert found.unsent is unsent
    edge = {"kept": found.kept, "broken": found.broken, "unsent": found.unsent}
    assert prose.rate(edge).endswith(" †") == unsent


# --- For a person ---------------------------------------------------------------------


def test_make_load_opens_a_page_that_works_at_the_first_try(tmp_path: Path, page: Page) -> None:
    names = [*PORTS, "LOCUST_PORT"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    environment = {**os.environ, **{name: str(port) for name, port in ports.items()}}
    environment["DATA"] = str(tmp_path / "data")
    with (tmp_path / "out").open("w+") as out:
        person = subprocess.Popen(
            [sys.executable, "-m", "lab", "load", "02"],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=out,
        )
        try:
            url = f"http://127.0.0.1:{ports['LOCUST_PORT']}"
            wait_until(lambda: url in (tmp_path / "out").read_text())
            wait_until(lambda: answers(url))
            page.goto(url)
            page.get_by_role("button", name=re.compile("^start", re.IGNORECASE)).click()
            expect(page.get_by_text("newsletter finished").first).to_be_visible(timeout=30_000)
            expect(page.get_by_text("push").first).to_be_visible(timeout=30_000)
            stats = requests.get(f"{url}/stats/requests", timeout=10).json()
            assert stats["errors"] == []
        finally:
            person.send_signal(signal.SIGINT)
            person.wait(40)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def test_a_shape_leaves_a_picture_and_a_verdict(capfd: pytest.CaptureFixture[str]) -> None:
    code = loadtest.run_shape("03", "Spike", 10, 8, ["OpenVisitor", "OpenPublisher"])
    assert code in (0, 1, 2)
    said = capfd.readouterr().out
    assert "Service level" in said
    assert "results/local/load_03_spike.png" in said
    picture = ROOT / "results" / "local" / "load_03_spike.png"
    assert time.time() - picture.stat().st_mtime < 60
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.with_suffix(".html").stat().st_size > 10_000


def test_a_shape_that_there_is_not_is_refused() -> None:
    with pytest.raises(lab.LabError, match=r"no shape 'Circle'.*Steps"):
        loadtest.run_shape("03", "Circle", 10, 8, ["Visitor"])
