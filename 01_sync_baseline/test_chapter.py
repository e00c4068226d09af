"""The chapter's own tests. Run them here with: python -m pytest"""

import io
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from http.client import HTTPConnection
from pathlib import Path

import pytest
from flask.testing import FlaskClient

import jobs
import mailserver
import work
from app import app

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


def test_everyone_gets_one_mail(client: FlaskClient, mailbox: mailserver.Mailbox) -> None:
    job = client.post("/newsletters", json=LETTER).get_json()
    assert (job["state"], job["done"], job["total"]) == ("SUCCESS", 3, 3)
    assert job["result"] == {"sent": 3, "refused": 0, "refusals": []}
    assert [message["recipient"] for message in mailbox.messages] == LETTER["recipients"]
    ids = [work.message_id(job["id"], address) for address in LETTER["recipients"]]
    assert [message["message_id"] for message in mailbox.messages] == ids
    assert len(set(ids)) == 3


def test_a_refused_recipient_is_recorded_and_the_rest_go_on(
    client: FlaskClient, mailbox: mailserver.Mailbox
) -> None:
    mailbox.faults.refuse_addresses = ["bob@example.com"]
    mailbox.faults.refuse_every = 2  # Cas is the second whose mail is offered
    result = client.post("/newsletters", json=LETTER).get_json()["result"]
    assert (result["sent"], result["refused"]) == (1, 2)
    assert [(r["recipient"], r["code"]) for r in result["refusals"]] == [
        ("bob@example.com", 550),
        ("cas@example.com", 451),
    ]


def test_a_mail_server_that_goes_away_is_a_502_that_says_how_many_were_sent(
    client: FlaskClient, mailbox: mailserver.Mailbox
) -> None:
    mailbox.faults.drop_every = 3
    answer = client.post("/newsletters", json=LETTER)
    assert answer.status_code == 502
    assert answer.mimetype == "application/problem+json"
    assert answer.get_json()["sent"] == 2
    (job,) = client.get("/jobs").get_json()
    assert (job["state"], job["done"], job["total"]) == ("FAILURE", 2, 3)
    assert "2 of 3" in job["error"]


def test_a_mail_server_that_closes_with_421_is_away_and_refuses_nobody(
    client: FlaskClient, mailbox: mailserver.Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def close(*_: object) -> str:
        return "421 4.7.0 Come again later"

    monkeypatch.setattr(mailbox, "handle_DATA", close)
    answer = client.post("/newsletters", json=LETTER)
    assert (answer.status_code, answer.get_json()["sent"]) == (502, 0)
    (job,) = client.get("/jobs").get_json()
    assert (job["state"], job["done"]) == ("FAILURE", 0)


def test_a_silent_mail_server_is_given_up(
    client: FlaskClient, mailbox: mailserver.Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "SMTP_TIMEOUT", 0.2)
    mailbox.faults.silent = True
    assert client.post("/newsletters", json=LETTER).status_code == 502
    assert mailbox.messages == []


def test_no_mail_server_at_all_is_a_502(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "SMTP_PORT", free_ports(1)[0])
    answer = client.post("/newsletters", json=LETTER)
    assert (answer.status_code, answer.get_json()["sent"]) == (502, 0)


def test_an_emptied_mailbox_counts_anew(client: FlaskClient, mailbox: mailserver.Mailbox) -> None:
    """Every n-th is counted from then on, and no copy is known."""
    door = mailserver.create_door(mailbox).test_client()
    client.post("/newsletters", json=LETTER)
    assert len(door.get("/messages").get_json()) == 3
    assert door.delete("/messages").get_json() == door.get("/messages").get_json() == []
    mailbox.faults.refuse_every = 2
    (refusal,) = client.post("/newsletters", json=LETTER).get_json()["result"]["refusals"]
    assert refusal["recipient"] == "bob@example.com"


def test_a_second_copy_can_be_thrown_away_by_its_id(
    client: FlaskClient, mailbox: mailserver.Mailbox
) -> None:
    for deduplicate in (False, True):
        mailbox.messages.clear()
        mailbox.faults.deduplicate = deduplicate
        for _ in range(2):
            list(work.send_newsletter("same-job", "News", "Hello", ["ann@example.com"]))
        # The server has seen the id before the last round, so there it keeps nothing.
        assert len(mailbox.messages) == (0 if deduplicate else 2)


def test_a_cut_answer_leaves_the_mail_with_the_server(
    client: FlaskClient, mailbox: mailserver.Mailbox
) -> None:
    mailbox.faults.cut_answer_every = 2
    answer = client.post("/newsletters", json=LETTER)
    assert (answer.status_code, answer.get_json()["sent"]) == (502, 1)
    assert len(mailbox.messages) == 2


def test_subscribers_may_come_as_a_csv_file(
    client: FlaskClient, mailbox: mailserver.Mailbox
) -> None:
    table = b"\xef\xbb\xbfName,Email\r\nAnn,ann@example.com\r\n,bob@example.com\r\n"
    form = {"subject": "News", "body": "Hello", "subscribers": (io.BytesIO(table), "list.csv")}
    job = client.post("/newsletters", data=form).get_json()
    assert job["result"]["sent"] == 2
    assert {message["recipient"] for message in mailbox.messages} == {
        "ann@example.com",
        "bob@example.com",
    }


def test_each_of_a_long_list_gets_one_mail(
    client: FlaskClient, mailbox: mailserver.Mailbox
) -> None:
    recipients = [f"reader{n}@example.com" for n in range(25)]
    letter = LETTER | {"recipients": recipients}
    job = client.post("/newsletters", json=letter).get_json()
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
    assert client.post("/newsletters", json=letter).get_json()["result"]["sent"] == 1
    mail = message_from_bytes(arrived[0], policy=policy.default)
    assert (mail["From"], mail["To"]) == (work.SENDER, "ann@example.com")
    assert (mail["Subject"], mail.get_content().split()) == ("News", body.split())


def test_every_line_of_a_log_is_counted(client: FlaskClient) -> None:
    log = {"log": (io.BytesIO(LOG * 5000), "access.log")}  # more than a megabyte
    job = client.post("/reports", data=log).get_json()
    assert (job["state"], job["done"], job["total"]) == ("SUCCESS", 20_000, 20_000)
    assert (job["result"]["lines"], job["result"]["malformed"]) == (20_000, 5000)
    assert job["result"]["statuses"] == {"200": 5000, "304": 5000, "500": 5000}
    assert job["result"]["bytes"] == 5000 * 107


def test_an_uploaded_log_is_summarised(client: FlaskClient) -> None:
    job = client.post("/reports", data={"log": (io.BytesIO(LOG), "access.log")}).get_json()
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


def test_an_error_of_any_kind_is_a_500_and_a_failed_job(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*_: object) -> Iterator[work.Step]:
        yield work.Step(1, 9, None)
        raise ZeroDivisionError("of this test")

    monkeypatch.setattr(work, "analyse_log", break_off)
    answer = client.post("/reports", json={"lines": 9})
    assert (answer.status_code, answer.mimetype) == (500, "application/problem+json")
    (job,) = client.get("/jobs").get_json()
    assert (job["state"], job["done"], job["error"]) == ("FAILURE", 1, "of this test")


def test_jobs_can_be_looked_up_and_are_kept_bounded(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MOST_JOBS", 3)
    ids = [client.post("/reports", json={"lines": 10}).get_json()["id"] for _ in range(4)]
    assert [job["id"] for job in client.get("/jobs").get_json()] == ids[:0:-1]
    assert client.get(f"/jobs/{ids[3]}").get_json()["result"]["lines"] == 10
    assert client.get(f"/jobs/{ids[0]}").status_code == 404


@pytest.mark.parametrize(("threads", "visitor_waits"), [(1, True), (4, False)])
def test_slots_decide_who_waits(threads: int, visitor_waits: bool, tmp_path: Path) -> None:
    """The Procfile for real: at one slot a visitor waits for the newsletter, at four not."""
    with running_chapter(tmp_path, THREADS=threads, MAIL_DELAY=1) as port:
        took: dict[str, float] = {}
        sent = threading.Event()

        def send() -> None:
            connection = HTTPConnection("127.0.0.1", port, timeout=30)
            body = b'{"subject": "News", "body": "Hello", "recipients": ["ann@example.com"]}'
            connection.request("POST", "/newsletters", body, {"Content-Type": "application/json"})
            begun = time.perf_counter()
            sent.set()
            assert connection.getresponse().status == 200
            took["newsletter"] = time.perf_counter() - begun

        sender = threading.Thread(target=send)
        sender.start()
        sent.wait(10)
        begun = time.perf_counter()
        ping(port)
        took["ping"] = time.perf_counter() - begun
        sender.join(30)
        assert (took["ping"] > 0.5 * took["newsletter"]) == visitor_waits


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
