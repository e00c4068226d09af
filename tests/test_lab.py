"""The lab's own promises: it starts, hurts, loads and really stops what it started."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

import lab
from lab import experiments, faults, results, run, waiting
from lab.chapters import PORTS, Chapter, free_ports, gunicorn, is_ours, read_procfile
from lab.waiting import wait_until

from .conftest import ROOT


@pytest.fixture(scope="module")
def running() -> Iterator[Chapter]:
    with lab.start("01", restart=True, MAIL_DELAY=0, THREADS=2) as chapter:
        yield chapter


def made_up(folder: Path, procfile: str) -> Chapter:
    """Start a made-up chapter with this Procfile."""
    (folder / "Procfile").write_text(procfile)
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    return Chapter(folder, read_procfile(folder), ports, dict(os.environ), restart_after={})


# --- Starting -------------------------------------------------------------------------


def test_two_chapters_run_side_by_side_each_with_its_settings(running: Chapter) -> None:
    with lab.start("01", MAIL_DELAY=0.125) as other:
        assert other.url != running.url
        for chapter, delay in ((running, 0), (other, 0.125)):
            assert chapter.answers()
            faults = requests.get(f"{chapter.mailbox.url}/faults", timeout=30).json()
            assert faults["delay"] == delay


def test_a_process_that_dies_at_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    procfile = "web: echo so it goes; exit 3\nmailserver: sleep 60\n"
    with pytest.raises(lab.LabError, match=r"(?s)web ended with exit code 3.*so it goes"):
        made_up(tmp_path, procfile.replace("echo", "sh -c 'echo").replace("3\n", "3'\n"))


def test_a_taken_port_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True):
        monkeypatch.setenv(name, str(port))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("PORT", str(port))
        with pytest.raises(lab.LabError, match=f"Port {port} is taken.*PORT="):
            lab.start("01", fixed_ports=True)


def test_an_unknown_chapter_lists_those_there_are() -> None:
    with pytest.raises(lab.LabError, match=r"no chapter '07'.*01"):
        lab.start("07")


# --- Stopping -------------------------------------------------------------------------


def test_stop_ends_every_process() -> None:
    chapter = lab.start("01")
    processes = [p for name in chapter.commands for p in chapter.processes(name)]
    assert len(processes) >= 3  # gunicorn, its worker, the mail server
    chapter.stop()
    chapter.stop()
    left = [process for process in processes if process.is_running()]
    for process in left:
        process.kill()
    assert left == []


HOLD = """
import json, sys, time, lab
chapter = lab.start("01")
pids = [p.pid for name in chapter.commands for p in chapter.processes(name)]
print(json.dumps(pids + [chapter.supervisor_pid]), flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_a_caller_that_is_killed(number: signal.Signals) -> None:
    caller = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    assert caller.stdout is not None
    pids = json.loads(caller.stdout.readline())
    assert all(psutil.pid_exists(pid) for pid in pids)
    caller.send_signal(number)
    caller.wait(30)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_celerys_defaults_are_refused_where_they_would_not_work() -> None:
    with pytest.raises(lab.LabError, match="chapter 03 only"):
        lab.start("04", celery_defaults=True)


def test_a_path_with_a_space_reaches_gunicorn_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "my clone"
    monkeypatch.setitem(gunicorn.__globals__, "ROOT", root)
    arguments = shlex.split(gunicorn("bare_view.py")["GUNICORN_CMD_ARGS"])
    assert arguments == ["--config", str(root / "lab" / "gunicorn" / "bare_view.py")]


def test_what_an_ended_process_has_left_ends_too(tmp_path: Path) -> None:
    """A web server that is killed leaves its children, who would hold the port."""
    child = tmp_path / "child"
    order: dict[str, Any] = {
        "commands": {"web": f"sh -c 'sleep 300 & echo $! > {child}'"},
        "logs": str(tmp_path),
        "restart_after": {},
    }
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "lab.supervisor"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert supervisor.stdin is not None
    try:
        supervisor.stdin.write(json.dumps(order) + "\n")
        supervisor.stdin.flush()
        wait_until(lambda: child.exists() and child.read_text().endswith("\n"))
        wait_until(lambda: not psutil.pid_exists(int(child.read_text())))
        assert supervisor.poll() is None
    finally:
        supervisor.stdin.close()
        supervisor.wait(30)


# --- Hurting --------------------------------------------------------------------------


def test_a_killed_process_is_started_again(running: Chapter) -> None:
    before = running.processes("web")[0].pid
    running.hurt("web")
    wait_until(lambda: running.pids.get("web", before) != before)
    running.wait_until_ready()
    assert running.ended["web"] == -signal.SIGKILL


def test_a_process_comes_back_when_it_is_said_to() -> None:
    with lab.start("01", restart=True, restart_after={"mailserver": 2.0}) as chapter:
        begun = time.monotonic()
        chapter.hurt("mailserver")
        chapter.hurt("web")
        wait_until(lambda: chapter.ended.get("web") and "web" in chapter.pids)
        assert "mailserver" not in chapter.pids
        wait_until(lambda: "mailserver" in chapter.pids)
        assert time.monotonic() - begun >= 2


def test_ready_means_that_the_workers_answer_from_a_redis_and_data_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")  # a Redis of the user's: not for us
    with lab.start("03") as chapter:
        assert chapter.is_ready()
        chapter.hurt("report", "SIGSTOP")
        assert not chapter.is_ready()
        chapter.hurt("report", "SIGCONT")
        chapter.wait_until_ready()
        assert lab.make_report(chapter.url, 10)["state"] == "SUCCESS"
        assert (chapter.data / "appendonlydir").is_dir()
        assert not chapter.data.is_relative_to(ROOT)
    assert not chapter.data.exists()


def test_only_the_children_are_hurt(running: Chapter) -> None:
    master, *workers = running.processes("web")
    running.hurt("web", children=True)
    wait_until(lambda: not any(worker.is_running() for worker in workers))
    running.wait_until_ready()
    assert running.processes("web")[0] == master


def test_a_frozen_process_thaws(running: Chapter) -> None:
    running.hurt("web", "SIGSTOP")
    try:
        assert not running.answers(timeout=0.3)
    finally:
        running.hurt("web", "SIGCONT")
    assert running.answers(timeout=10)


def test_an_unknown_process_lists_those_there_are(running: Chapter) -> None:
    with pytest.raises(lab.LabError, match="no process 'wbe'.*web, mailserver"):
        running.hurt("wbe")


def test_an_unknown_fault_is_refused(running: Chapter) -> None:
    with pytest.raises(ValueError, match="colour"):
        running.mailbox.set(colour="red")
    with pytest.raises(ValueError, match="delay"):
        running.mailbox.set(delay=-1)


# --- Waiting --------------------------------------------------------------------------


def test_a_wait_ends_when_it_is_so_and_is_given_up_in_time() -> None:
    answers = [False, False, True]
    wait_until(lambda: answers.pop(0), timeout=20)
    assert answers == []
    begun = time.monotonic()
    with pytest.raises(lab.LabError, match=r"within 0\.3 s"):
        wait_until(lambda: False, timeout=0.3)
    assert 0.3 <= time.monotonic() - begun < 20


def test_the_longer_a_wait_the_rarer_the_questions() -> None:
    waited = (0, 0.4, 1, 4, 600)
    assert [waiting.pause(seconds) for seconds in waited] == [0.02, 0.02, 0.05, 0.2, 0.2]


@pytest.mark.parametrize(("statuses", "asked"), [([503, 503, 200], 3), ([404, 200], 1)])
def test_only_503_means_to_ask_again(statuses: list[int], asked: int) -> None:
    answers = [job_answer(status, "") for status in statuses]
    given: list[requests.Response] = []

    def ask() -> requests.Response:
        given.append(answers[len(given)])
        return given[-1]

    if 404 in statuses:
        with pytest.raises(requests.HTTPError, match="404"):
            faults.served(ask)
    else:
        assert faults.served(ask).status_code == 200
    assert len(given) == asked


# --- Loading --------------------------------------------------------------------------


@pytest.mark.alone
def test_a_visitor_keeps_coming_while_the_server_stalls(running: Chapter) -> None:
    """Open arrivals: a stall of one second is felt by all who came in it, and they are counted."""
    rate = 40
    with lab.visitor(running.url, rate) as visit:
        running.hurt("web", "SIGSTOP")
        begin = time.time()
        time.sleep(1)  # the stall itself
        end = time.time()
        running.hurt("web", "SIGCONT")
    stalled = visit.rows[visit.rows.start.between(begin, end)]
    assert abs(len(stalled) - rate * (end - begin)) <= 2
    assert visit.rows.error.isna().all()
    gaps = visit.rows.start.sort_values().diff().dropna()
    assert gaps.max() < 2 / rate
    waited = stalled.start + stalled.latency_ms / 1000
    assert (waited > end).all()


def test_every_newsletter_of_a_publisher_is_a_row_and_arrives(running: Chapter) -> None:
    running.mailbox.empty()
    rows = lab.publish(running.url, clients=3, newsletters=7, recipients=2)
    newsletters = rows[rows.name == "newsletter finished"]
    assert len(newsletters) == 7
    assert newsletters.error.isna().all()
    assert len(running.mailbox.messages()) == 14


def test_failed_newsletters_are_rows_with_an_error(running: Chapter) -> None:
    running.mailbox.set(drop_every=1)
    try:
        rows = lab.publish(running.url, clients=1, newsletters=2, recipients=1)
    finally:
        running.mailbox.mend()
    newsletters = rows[rows.name == "newsletter accepted"]
    assert len(newsletters) == 2
    assert newsletters.error.notna().all()


def test_the_percentile_is_a_value_that_was_measured() -> None:
    import pandas as pd

    values = pd.Series(range(1, 101), dtype=float)
    assert lab.percentile(values, 99) == 100
    assert lab.percentile(values, 50) == 51


def job_answer(status: int, state: str) -> requests.Response:
    answer = requests.Response()
    answer.status_code = status
    answer._content = f'{{"id": "nobody", "state": "{state}"}}'.encode()
    answer.request = requests.Request("GET", "http://127.0.0.1/jobs/nobody").prepare()
    return answer


def test_a_job_that_does_not_end_is_given_up(running: Chapter) -> None:
    with pytest.raises(lab.LabError, match="did not end"):
        lab.finish(running.url, job_answer(202, "PENDING"), timeout=0)


def test_a_job_is_asked_for_again_after_503(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [job_answer(503, ""), job_answer(200, "SUCCESS")]
    monkeypatch.setattr(requests, "get", lambda *_, **__: answers.pop(0))
    assert lab.finish("", job_answer(202, "PENDING"))["state"] == "SUCCESS"


def test_a_job_that_nobody_knows_any_more_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "get", lambda *_, **__: job_answer(404, ""))
    with pytest.raises(lab.LabError, match="404"):
        lab.finish("", job_answer(202, "PENDING"))


def test_a_port_is_not_given_to_two_programs() -> None:
    """The first has reserved it, but does not listen yet."""
    first = "from lab.chapters import free_ports; print(free_ports(1)[0], flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", first], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        taken = int(program.stdout.readline())
        assert not is_ours(taken)
        program.communicate(b"\n", timeout=30)
    assert is_ours(taken)


# --- Counting and recording -----------------------------------------------------------


def test_the_mailbox_counts_lost_and_twice(running: Chapter) -> None:
    running.mailbox.empty()
    job = lab.send_newsletter(running.url, recipients=3)
    again = lab.send_newsletter(running.url, recipients=2)
    recipients = lab.addresses(4)
    assert running.mailbox.count(recipients, job["id"]).lost == 1
    everything = running.mailbox.count(recipients)
    assert (everything.due, everything.received) == (4, 5)
    assert (everything.lost, everything.twice) == (1, 2)
    assert running.mailbox.count(recipients, again["id"]).twice == 0


def test_a_crash_loses_what_was_not_sent() -> None:
    with lab.start("01", restart=True, THREADS=1) as chapter:
        count = experiments.crash(chapter, "web")
    assert count.due == 20
    assert 0 < count.lost < 20
    assert (count.lost + count.received, count.twice) == (20, 0)


def test_a_record_says_with_what_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "LOCAL", tmp_path / "local")
    document = json.loads(lab.record("try", {"answer": 42}, "make try").read_text())
    assert document["figures"] == {"answer": 42}
    assert document["command"] == "make try"
    assert re.fullmatch(r"\d+ cores, \d+ GiB, \w+ \w+", document["machine"])
    assert {"python", "flask", "gunicorn", "locust"} <= set(document["versions"])
    assert document["date"]


# --- For a person ---------------------------------------------------------------------


def test_make_01_says_the_page_and_can_be_hurt_from_a_second_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running = tmp_path / "running.json"  # not the one of a chapter that somebody runs
    monkeypatch.setenv("LAB_RUNNING", str(running))
    monkeypatch.setattr(run, "RUNNING", running)
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    environment = {**os.environ, **{name: str(port) for name, port in ports.items()}}
    command = [sys.executable, "-m", "lab", "run", "01"]
    with (tmp_path / "out").open("w+") as out:
        person = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)
        try:
            url = f"http://127.0.0.1:{ports['PORT']}"
            wait_until(lambda: url in (tmp_path / "out").read_text(), timeout=60)
            wait_until(run.RUNNING.exists)
            lab.send_newsletter(url, recipients=2)
            run.mailbox()
            assert "2 mails to 2 people" in capsys.readouterr().out
            run.kill("web", "SIGKILL")
            wait_until(lambda: (tmp_path / "out").read_text().count("Booting worker") == 2)
            with pytest.raises(lab.LabError, match="no process 'nobody'"):
                run.kill("nobody", "SIGKILL")
        finally:
            person.send_signal(signal.SIGINT)
            person.wait(30)
    with pytest.raises(lab.LabError, match="No chapter is running"):
        run.mailbox()
