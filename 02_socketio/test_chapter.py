"""The chapter's own tests. Run them here with: python -m pytest"""

import io
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
import socketio as socketio_client
from flask.testing import FlaskClient
from flask_socketio import SocketIOTestClient
from werkzeug.test import TestResponse

import jobs
import mailserver
import work
from app import app
from events import socketio

LETTER = {
    "subject": "News",
    "body": "Hello",
    "recipients": ["ann@example.com", "bob@example.com", "cas@example.com"],
}
LOG = b"""\
192.0.2.1 - - [02/Nov/2026:09:00:00 +0000] "GET /news?page=2 HTTP/1.1" 200 100 "-" "Firefox"
192.0.2.1 - ann [02/Nov/2026:09:59:59 +0000] "GET /news HTTP/1.1" 304 -
this is not a log line
198.51.100.7 - - [02/Nov/2026:23:00:00 +0000] "POST / HTTP/1.1" 500 7
"""


def free_ports(count: int) -> list[int]:
    """Nobody listens on them. The system gives those above 32767 to outgoing connections.

    FREE_PORTS names those to choose from, where several tests run beside each other.
    """
    given = [int(port) for port in os.environ.get("FREE_PORTS", "").split()]
    while True:
        ports = random.sample(given or range(20_000, 32_000), count)
        if not any(is_open(port) for port in ports):
            return ports


def is_open(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[mailserver.Mailbox]:
    """A mail server that takes no time, on a port of its own."""
    box = mailserver.Mailbox()
    box.faults.delay = 0
    (port,) = free_ports(1)
    monkeypatch.setattr(work, "SMTP_PORT", port)
    smtp = mailserver.open_smtp(box, port)
    yield box
    smtp.stop()


@pytest.fixture
def client() -> FlaskClient:
    jobs.jobs.clear()
    return app.test_client()


@pytest.fixture
def browser(client: FlaskClient) -> SocketIOTestClient:
    """A Socket.IO client of the same browser, without a network."""
    return socketio.test_client(app, flask_test_client=client)


def wait_until(condition: Callable[[], object], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not so within {timeout:g} s"
        time.sleep(0.01)


def finish(client: FlaskClient, answer: TestResponse) -> dict[str, Any]:
    """Look the job up until it has ended."""
    assert answer.status_code == 202
    job: dict[str, Any] = {}

    def ended() -> bool:
        job.update(client.get(answer.headers["Location"]).get_json())
        return job["state"] in jobs.ENDED

    wait_until(ended)
    return job


def watch(browser: SocketIOTestClient, answer: TestResponse) -> dict[str, Any]:
    document: Any = browser.emit("watch", {"job": answer.get_json()["id"]}, callback=True)
    return dict(document)


def progress_to_the_end(browser: SocketIOTestClient) -> list[dict[str, Any]]:
    """The documents that are pushed, up to the last."""
    told: list[dict[str, Any]] = []

    def ended() -> bool:
        told.extend(e["args"][0] for e in browser.get_received() if e["name"] == "progress")
        return bool(told) and told[-1]["state"] in jobs.ENDED

    wait_until(ended)
    return told


def test_each_of_a_long_list_gets_one_mail(
    client: FlaskClient, mailbox: mailserver.Mailbox
) -> None:
    recipients = [f"reader{n}@example.com" for n in range(25)]
    letter = LETTER | {"recipients": recipients}
    job = finish(client, client.post("/newsletters", json=letter))
    assert (job["state"], job["done"], job["total"]) == ("SUCCESS", 25, 25)
    assert job["result"] == {"sent": 25, "refused": 0, "refusals": []}
    assert [message["recipient"] for message in mailbox.messages] == recipients


def test_a_mail_arrives_as_it_was_written(
    client: FlaskClient, mailbox: mailserver.Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived: list[bytes] = []
    keep = lambda envelope: arrived.append(envelope.original_content)  # noqa: E731
    monkeypatch.setattr(mailbox, "keep", keep)
    body = "Good morning!\n\nGrüße."
    letter = LETTER | {"body": body, "recipients": ["ann@example.com"]}
    assert finish(client, client.post("/newsletters", json=letter))["result"]["sent"] == 1
    mail = message_from_bytes(arrived[0], policy=policy.default)
    assert (mail["From"], mail["To"]) == (work.SENDER, "ann@example.com")
    assert (mail["Subject"], mail.get_content().split()) == ("News", body.split())


def test_every_line_of_a_log_is_counted(client: FlaskClient) -> None:
    log = {"log": (io.BytesIO(LOG * 5000), "access.log")}  # more than a megabyte
    job = finish(client, client.post("/reports", data=log))
    assert (job["state"], job["done"], job["total"]) == ("SUCCESS", 20_000, 20_000)
    assert (job["result"]["lines"], job["result"]["malformed"]) == (20_000, 5000)
    assert job["result"]["statuses"] == {"200": 5000, "304": 5000, "500": 5000}
    assert job["result"]["bytes"] == 5000 * 107


def test_an_uploaded_log_is_summarised(client: FlaskClient) -> None:
    answer = client.post("/reports", data={"log": (io.BytesIO(LOG), "access.log")})
    job = finish(client, answer)
    assert (job["state"], job["done"], job["total"]) == ("SUCCESS", 4, 4)
    assert job["result"] == {
        "lines": 4,
        "malformed": 1,
        "bytes": 107,
        "statuses": {"200": 1, "304": 1, "500": 1},
        "hours": {"09": 2, "23": 1},
        "paths": [
            {"name": "/news", "requests": 2, "bytes": 100},
            {"name": "/", "requests": 1, "bytes": 7},
        ],
        "clients": [
            {"name": "192.0.2.1", "requests": 2, "bytes": 100},
            {"name": "198.51.100.7", "requests": 1, "bytes": 7},
        ],
        "missed": 0,
    }


# --- Answer now, work later -----------------------------------------------------------


def test_the_answer_comes_before_the_mail(client: FlaskClient, mailbox: mailserver.Mailbox) -> None:
    mailbox.faults.silent = True
    answer = client.post("/newsletters", json=LETTER)
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/jobs/{answer.get_json()['id']}"
    assert mailbox.messages == []
    mailbox.faults.silent = False
    job = finish(client, answer)
    assert (job["state"], job["done"], job["total"]) == ("SUCCESS", 3, 3)
    assert [message["recipient"] for message in mailbox.messages] == LETTER["recipients"]


def test_each_push_counts_what_has_been_done(
    mailbox: mailserver.Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many mails as the mail server has, as many lines as have been read."""
    monkeypatch.setattr(jobs, "PUSH_INTERVAL", 0)  # each step is pushed
    told: list[tuple[int, int]] = []
    steps = work.send_newsletter("id", "News", "Hello", LETTER["recipients"])
    jobs.run(
        jobs.Job("id", "newsletter"),
        steps,
        lambda job: told.append((job.done, len(mailbox.messages))),
    )
    assert told == [(1, 1), (2, 2), (3, 3), (3, 3)]
    told.clear()
    log = io.BytesIO(b"nonsense\n" * 5_000)
    steps = work.analyse_log(work.read_lines(log), 5_000)
    jobs.run(jobs.Job("id", "report"), steps, lambda job: told.append((job.done, log.tell() // 9)))
    assert told == [(2_000, 2_000), (4_000, 4_000), (5_000, 5_000), (5_000, 5_000)]


def test_a_failed_job_says_so_and_is_not_full(
    client: FlaskClient, mailbox: mailserver.Mailbox
) -> None:
    mailbox.faults.drop_every = 3
    job = finish(client, client.post("/newsletters", json=LETTER))
    assert (job["state"], job["done"], job["total"]) == ("FAILURE", 2, 3)
    assert "2 of 3" in job["error"]


def test_a_cancelled_job_stops_between_two_steps(
    client: FlaskClient, mailbox: mailserver.Mailbox
) -> None:
    mailbox.faults.silent = True
    answer = client.post("/newsletters", json=LETTER)
    wait_until(lambda: mailbox.offered == 1)
    assert client.delete(answer.headers["Location"]).status_code == 202
    mailbox.faults.silent = False
    job = finish(client, answer)
    assert (job["state"], job["done"]) == ("REVOKED", 1)
    assert len(mailbox.messages) == 1
    assert client.delete(answer.headers["Location"]).get_json()["state"] == "REVOKED"


def test_sixteen_jobs_run_at_a_time(client: FlaskClient, mailbox: mailserver.Mailbox) -> None:
    mailbox.faults.silent = True
    answers = [client.post("/newsletters", json=LETTER) for _ in range(17)]
    wait_until(lambda: mailbox.offered == 16)
    states = [job["state"] for job in client.get("/jobs").get_json()]
    assert sorted(states) == ["PENDING"] + ["STARTED"] * 16
    mailbox.faults.silent = False
    assert [finish(client, answer)["state"] for answer in answers] == ["SUCCESS"] * 17


def test_a_job_that_waits_for_a_slot_can_be_cancelled(
    client: FlaskClient, mailbox: mailserver.Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "slots", threading.BoundedSemaphore(1))
    mailbox.faults.silent = True
    first = client.post("/newsletters", json=LETTER)
    wait_until(lambda: mailbox.offered == 1)
    second = client.post("/newsletters", json=LETTER)
    client.delete(second.headers["Location"])
    job = finish(client, second)
    assert (job["state"], job["done"]) == ("REVOKED", 0)
    mailbox.faults.silent = False
    assert finish(client, first)["state"] == "SUCCESS"
    assert len(mailbox.messages) == 3


def test_of_an_upload_nothing_is_left_on_the_disk(
    client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    log = {"log": (io.BytesIO(LOG * 10_000), "access.log")}  # too much for the memory of Flask
    assert finish(client, client.post("/reports", data=log))["state"] == "SUCCESS"
    wait_until(lambda: list(tmp_path.iterdir()) == [])


def test_an_error_of_any_kind_is_a_failure_that_says_so(
    client: FlaskClient,
    browser: SocketIOTestClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In a thread nobody else would notice it."""
    watched = threading.Event()

    def break_off(*_: object) -> Iterator[work.Step]:
        watched.wait(20)
        yield work.Step(1, 9, None)
        raise ZeroDivisionError("of this test")

    monkeypatch.setattr(work, "analyse_log", break_off)
    answer = client.post("/reports", json={"lines": 9})
    assert watch(browser, answer)["done"] == 0
    watched.set()
    job = finish(client, answer)
    assert (job["state"], job["done"], job["error"]) == ("FAILURE", 1, "of this test")
    assert job.items() <= progress_to_the_end(browser)[-1].items()
    (logged,) = [record for record in caplog.records if job["id"] in record.getMessage()]
    assert logged.exc_info is not None
    assert logged.exc_info[0] is ZeroDivisionError


def test_a_job_that_fails_leaves_its_slot_to_the_next(
    client: FlaskClient, mailbox: mailserver.Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "slots", threading.BoundedSemaphore(1))
    mailbox.faults.drop_every = 3
    assert finish(client, client.post("/newsletters", json=LETTER))["state"] == "FAILURE"
    assert finish(client, client.post("/reports", json={"lines": 9}))["state"] == "SUCCESS"


def test_cancelling_an_unknown_job_is_404(client: FlaskClient) -> None:
    assert client.delete("/jobs/nobody").status_code == 404


def test_ended_jobs_are_kept_bounded(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MOST_ENDED", 3)
    ids = [finish(client, client.post("/reports", json={"lines": 9}))["id"] for _ in range(5)]
    assert [job["id"] for job in client.get("/jobs").get_json()] == ids[:0:-1]
    assert client.get(f"/jobs/{ids[0]}").status_code == 404


def test_an_ended_job_is_known_however_many_wait(
    client: FlaskClient, mailbox: mailserver.Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sent it comes back for its result, and must not be told that it never was."""
    monkeypatch.setattr(jobs, "MOST_ENDED", 1)
    ended = finish(client, client.post("/reports", json={"lines": 9}))
    mailbox.faults.silent = True
    waiting = [client.post("/newsletters", json=LETTER) for _ in range(3)]
    assert client.get(f"/jobs/{ended['id']}").get_json()["state"] == "SUCCESS"
    mailbox.faults.silent = False
    assert [finish(client, answer)["state"] for answer in waiting] == ["SUCCESS"] * 3


# --- Watching -------------------------------------------------------------------------


def test_who_watches_is_told_to_the_end(
    client: FlaskClient, browser: SocketIOTestClient, mailbox: mailserver.Mailbox
) -> None:
    mailbox.faults.delay = 0.11  # longer than PUSH_INTERVAL: each step is pushed
    mailbox.faults.silent = True
    answer = client.post("/newsletters", json=LETTER)
    first = watch(browser, answer)
    mailbox.faults.silent = False
    job = finish(client, answer)
    seen = [first, *progress_to_the_end(browser)]
    assert [document["done"] for document in seen] == [0, 1, 2, 3, 3]
    assert job.items() <= seen[-1].items()


def test_an_event_says_when_its_step_was_done(
    client: FlaskClient, browser: SocketIOTestClient, mailbox: mailserver.Mailbox
) -> None:
    """After the mail that it tells of and before the next one, by the clock of this machine."""
    mailbox.faults.delay = 0.11  # longer than PUSH_INTERVAL: each step is pushed
    mailbox.faults.silent = True
    answer = client.post("/newsletters", json=LETTER)
    watch(browser, answer)
    mailbox.faults.silent = False
    first, second, third, end = (told["at"] for told in progress_to_the_end(browser))
    ann, bob, cas = (float(str(mail["received"])) for mail in mailbox.messages)
    assert ann <= first <= bob <= second <= cas <= third <= end <= time.time()


def test_at_most_ten_events_a_second(client: FlaskClient, browser: SocketIOTestClient) -> None:
    pushed: list[float] = []
    job = jobs.Job("id", "report")
    steps = work.analyse_log((line for _ in range(200_000) for line in ["nonsense"]), 200_000)
    begun = time.monotonic()
    jobs.run(job, steps, lambda job: pushed.append(time.monotonic()))
    assert job.done == 200_000
    assert 1 <= len(pushed) <= 2 + (time.monotonic() - begun) / jobs.PUSH_INTERVAL


def test_who_comes_back_and_watches_again_is_told_the_rest(
    client: FlaskClient, browser: SocketIOTestClient, mailbox: mailserver.Mailbox
) -> None:
    """A connection that is lost has left its rooms: the next one is told what it watches."""
    mailbox.faults.silent = True
    answer = client.post("/newsletters", json=LETTER)
    watch(browser, answer)
    browser.disconnect()
    again, idle = (socketio.test_client(app, flask_test_client=client) for _ in range(2))
    assert watch(again, answer)["state"] == "STARTED"
    mailbox.faults.silent = False
    last = progress_to_the_end(again)[-1]
    assert (last["state"], last["done"]) == ("SUCCESS", 3)
    assert idle.get_received() == []


def test_only_who_watches_a_job_is_told(
    client: FlaskClient, browser: SocketIOTestClient, mailbox: mailserver.Mailbox
) -> None:
    mailbox.faults.silent = True
    first, second = (client.post("/newsletters", json=LETTER) for _ in range(2))
    watch(browser, first)
    mailbox.faults.silent = False
    finish(client, first)
    finish(client, second)
    told = progress_to_the_end(browser)
    assert {document["id"] for document in told} == {first.get_json()["id"]}


@pytest.mark.parametrize(
    "data", [None, 7, "text", [], {}, {"job": 7}, {"job": None}, {"job": "a", "more": 1}]
)
def test_a_wrong_watch_gets_an_error(browser: SocketIOTestClient, data: Any) -> None:
    acknowledged: Any = browser.emit("watch", data, callback=True)
    assert "id of a job" in acknowledged["error"]


def test_an_unknown_job_or_event_gets_an_error(browser: SocketIOTestClient) -> None:
    acknowledged: Any = browser.emit("watch", {"job": "nobody"}, callback=True)
    assert acknowledged == {"error": "There is no such job."}
    acknowledged = browser.emit("shout", 1, callback=True)
    assert "'shout'" in acknowledged["error"]


def test_an_event_that_fails_is_acknowledged_and_logged(
    browser: SocketIOTestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def break_off(_: str) -> None:
        raise ZeroDivisionError("of this test")

    monkeypatch.setattr(jobs, "find", break_off)
    acknowledged: Any = browser.emit("watch", {"job": "any"}, callback=True)
    assert acknowledged == {"error": "The server failed on this event."}
    assert "ZeroDivisionError: of this test" in caplog.text


# --- With real processes --------------------------------------------------------------


def check_that_it_echoes(url: str, transports: list[str] | None = None) -> None:
    """What is sent comes back to the one who sent it, over the transport that was asked for."""
    first, second = (socketio_client.SimpleClient(reconnection=False) for _ in range(2))
    for client in (first, second):
        client.connect(url, transports=transports)
        assert client.receive(timeout=10) == ["my response", {"data": "Connected"}]
    wanted = "polling" if transports == ["polling"] else "websocket"
    wait_until(lambda: first.transport == second.transport == wanted)
    first.emit("my event", "no object")  # not answered, and nothing breaks
    for client, said in ((first, "Good morning"), (second, "Good night")):
        client.emit("my event", {"data": said})
        assert client.receive(timeout=10) == ["my response", {"data": said}]


def check_that_no_other_site_may_connect(url: str) -> None:
    elsewhere = {"Origin": "https://elsewhere.example"}
    url += "/socket.io/?EIO=4&transport=polling"
    request = urllib.request.Request(url, headers=elsewhere)  # noqa: S310
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request, timeout=10)  # noqa: S310


@pytest.mark.parametrize("transports", [["polling"], ["websocket"], None])
def test_the_echo_comes_back_over_each_transport(transports: list[str] | None) -> None:
    """Connect is answered with Connected, and what is sent comes back."""
    (port,) = free_ports(1)
    environment = {**os.environ, "PORT": str(port)}
    here = Path(__file__).parent
    server = subprocess.Popen(
        [sys.executable, "echo.py"], cwd=here, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: is_open(port))
        check_that_it_echoes(f"http://127.0.0.1:{port}", transports)
        check_that_no_other_site_may_connect(f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait(30)


def test_the_native_echo_answers_the_same() -> None:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "native_asyncio:app", "--port", str(port)]
    server = subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_open(port))
        check_that_it_echoes(f"http://127.0.0.1:{port}")
        check_that_no_other_site_may_connect(f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait(30)


def test_a_visitor_does_not_wait_for_a_newsletter(tmp_path: Path) -> None:
    """Nor for others who watch: each of them holds a thread."""
    with running_chapter(tmp_path, MAIL_DELAY=5) as port, ExitStack() as tabs:
        for _ in range(40):
            tab = tabs.enter_context(socketio_client.SimpleClient())
            tab.connect(f"http://127.0.0.1:{port}", transports=["websocket"])
        body = b'{"subject": "News", "body": "Hello", "recipients": ["ann@example.com"]}'
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/newsletters", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            location = answer.headers["Location"]
        ping(port)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{location}", timeout=30) as answer:
            assert b'"SUCCESS"' not in answer.read()  # the ping came back before the mail went out


def test_asyncio_in_one_screen_prints_what_the_lesson_says() -> None:
    here = Path(__file__).parent
    printed = subprocess.run(
        [sys.executable, "asyncio_basics.py"], cwd=here, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    seconds = [float(line.split()[0]) for line in printed]
    called, _, one_by_one, together, rude = seconds
    # To sleep takes no less than was asked for, and on a busy machine more.
    assert called < 0.2 <= together < 0.6 <= one_by_one
    assert rude >= 0.6


def test_an_async_view_gathers_but_its_leftovers_never_run() -> None:
    from async_views import DELAY, SERVERS, app

    client = app.test_client()
    together = client.get("/greetings/together").get_json()
    one_by_one = client.get("/greetings/one-by-one").get_json()
    assert together["greetings"] == one_by_one["greetings"] == ["220 mail.example.com"] * SERVERS
    assert together["seconds"] < SERVERS * DELAY / 2
    assert one_by_one["seconds"] >= SERVERS * DELAY
    client.get("/left-behind")
    time.sleep(2 * DELAY)  # longer than the task would have needed
    assert client.get("/left-behind/ran").get_json() == {"ran": 0}


@contextmanager
def running_chapter(logs: Path, **settings: object) -> Iterator[int]:
    """Run the Procfile on free ports; gives the port of its web process."""
    port, smtp_port, door = free_ports(3)
    more = {"SMTP_PORT": smtp_port, "MAILBOX_PORT": door, **settings}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (logs / "honcho.log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "honcho", "start", "-p", str(port)],
            cwd=Path(__file__).parent,
            env={**os.environ, "PATH": path, **{name: str(value) for name, value in more.items()}},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 30
            while not (is_open(port) and is_open(smtp_port)):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    pytest.fail(f"The chapter did not start:\n{log.read()}")
                time.sleep(0.05)
            ping(port)  # the port is open before the application is loaded
            yield port
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def ping(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=30) as answer:
        assert answer.read() == b"pong\n"
