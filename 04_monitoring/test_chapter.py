"""The chapter's own tests, with real processes: Redis, workers, mail server. No eager mode.

Run them here with: python -m pytest
"""

import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import requests
import socketio as socketio_client
from celery import Celery
from redis import Redis
from redis.exceptions import LockError

import events
import jobs
import lease
import redis_server
import tasks  # noqa: F401  (what beat sends is in it)
import times
from celery_app import celery

HERE = Path(__file__).parent
RECIPIENTS = ["ann@example.com", "bob@example.com", "cas@example.com"]
LETTER = {"subject": "News", "body": "Hello", "recipients": RECIPIENTS}
ENDED = ("SUCCESS", "FAILURE", "REVOKED")
LOG = b"""\
192.0.2.1 - - [02/Nov/2026:09:00:00 +0000] "GET /news?page=2 HTTP/1.1" 200 100 "-" "Firefox"
192.0.2.1 - ann [02/Nov/2026:09:59:59 +0000] "GET /news HTTP/1.1" 304 -
this is not a log line
198.51.100.7 - - [02/Nov/2026:23:00:00 +0000] "POST / HTTP/1.1" 500 7
"""


def wait_until(condition: Callable[[], object], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not so within {timeout:g} s"
        time.sleep(0.05)


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


class Postroom:
    """The Procfile's processes on free ports. One mail at a time, and quick second looks."""

    def __init__(self, data: Path) -> None:
        port, smtp, door, redis, flower, mail, report = free_ports(7)
        self.data = data
        self.url = f"http://127.0.0.1:{port}"
        self.flower = f"http://127.0.0.1:{flower}"
        self.metrics_ports = {"mail": mail, "report": report}
        self.door = f"http://127.0.0.1:{door}"
        self.redis: Any = Redis(port=redis, decode_responses=True)
        settings: dict[str, Any] = {
            "PORT": port,
            "SMTP_PORT": smtp,
            "MAILBOX_PORT": door,
            "REDIS_PORT": redis,
            "FLOWER_PORT": flower,
            "MAIL_METRICS_PORT": mail,
            "REPORT_METRICS_PORT": report,
        }
        settings |= {"MAIL_DELAY": 0.05, "MAIL_SLOTS": 1, "DATA": data, "JOB_TTL": 3600}
        settings |= {"RESEND_AFTER": 1, "LOOK_EVERY": 1, "RETRY_AFTER": 0.1}
        settings |= {"VISIBILITY_TIMEOUT": 4, "LEASE": 2}  # what a dead worker had comes back soon
        # Neither a silent mail server is given up, nor a Redis that takes long on a busy machine.
        settings |= {"SMTP_TIMEOUT": 60, "REDIS_TIMEOUT": 3}
        settings |= {"LONGEST_RETRY": 3}
        settings |= {"REPORT_LIMIT": 6, "TO_TIDY_UP": 2, "MOST_DEAD_LETTERS": 8}
        self.environment = {k: v for k, v in os.environ.items() if k != "REDIS_URL"}
        self.environment |= {name: str(value) for name, value in settings.items()}
        scripts = str(Path(sys.executable).parent)
        self.environment["PATH"] = scripts + os.pathsep + os.environ["PATH"]
        lines = (HERE / "Procfile").read_text().splitlines()
        self.commands = dict(line.split(": ", 1) for line in lines)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in self.commands:
            self.start(name)
        try:
            wait_until(self.ready)
        except AssertionError:
            self.stop()  # nobody else could
            raise
        self.redis.config_set("appendfsync", "no")  # the disk is not under test

    def start(self, name: str) -> None:
        with (self.data / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {self.commands[name]}"],
                cwd=HERE,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def signal(self, name: str, number: signal.Signals) -> None:
        """To a process and its children: they are one group."""
        os.killpg(self.processes[name].pid, number)

    def ready(self) -> bool:
        logs = ((self.data / f"{name}.log").read_text() for name in ("mail", "report"))
        try:
            return all(" ready." in log for log in logs) and self.get("/ping").ok
        except requests.ConnectionError:
            return False

    def stop(self) -> None:
        for name, process in self.processes.items():
            if process.poll() is None:
                self.signal(name, signal.SIGKILL)
            process.wait(30)

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=10)

    def post(self, path: str, body: Any) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=10)

    def send(self, letter: dict[str, Any] = LETTER, query: str = "") -> str:
        answer = self.served(lambda: self.post(f"/newsletters{query}", letter))
        assert answer.status_code == 202, answer.text
        assert answer.headers["Location"] == f"/jobs/{answer.json()['id']}"
        return str(answer.json()["id"])

    def look_up(self, job: str) -> dict[str, Any]:
        document: dict[str, Any] = self.served(lambda: self.get(f"/jobs/{job}")).json()
        return document

    def served(self, ask: Callable[[], requests.Response]) -> requests.Response:
        """Its answer. 503 says "try again": on a busy machine Redis takes longer than 0.4 s."""
        answers: list[requests.Response] = []

        def answered() -> bool:
            answers.append(ask())
            return answers[-1].status_code != 503

        wait_until(answered)
        return answers[-1]

    def finish(self, job: str) -> dict[str, Any]:
        wait_until(lambda: self.look_up(job)["state"] in ENDED)
        return self.look_up(job)

    def mails(self, job: str) -> list[str]:
        return [message["recipient"] for message in self.messages(job)]

    def received(self, job: str) -> list[float]:
        return [message["received"] for message in self.messages(job)]

    def messages(self, job: str) -> list[dict[str, Any]]:
        answer = requests.get(f"{self.door}/messages", params={"job": job}, timeout=10)
        messages: list[dict[str, Any]] = answer.json()
        return messages

    def faults(self, **faults: Any) -> None:
        requests.patch(f"{self.door}/faults", json=faults, timeout=10).raise_for_status()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postroom]:
    postroom = Postroom(tmp_path_factory.mktemp("data"))
    yield postroom
    postroom.stop()


@pytest.fixture
def postroom(running: Postroom) -> Iterator[Postroom]:
    yield running
    requests.delete(f"{running.door}/faults", timeout=10)


@pytest.fixture
def no_second_look(postroom: Postroom) -> Iterator[None]:
    """Beat stands still. Its second look at jobs would hide that one was not sent, nor sent
    again: here a second later, and where nobody says otherwise half a minute later."""
    postroom.signal("beat", signal.SIGSTOP)
    yield
    postroom.signal("beat", signal.SIGCONT)


def letter_to(count: int) -> dict[str, Any]:
    return LETTER | {"recipients": [f"reader{n}@example.com" for n in range(count)]}


def hold(postroom: Postroom, job: str, mails: int) -> None:
    """From so many mails of this job on, the mail server takes each and says nothing."""
    postroom.faults(delay=0.1)
    wait_until(lambda: len(postroom.mails(job)) >= mails)
    postroom.faults(silent=True)


# --- Celery at its smallest -----------------------------------------------------------


def test_a_sum_is_submitted_and_can_be_looked_up(postroom: Postroom) -> None:
    answer = postroom.post("/add", {"x": 2, "y": 3})
    assert answer.status_code == 202
    assert answer.json()["status"] == "Task submitted"
    path = answer.headers["Location"]
    wait_until(lambda: postroom.get(path).json()["state"] == "SUCCESS")
    assert postroom.get(path).json()["result"] == 5
    assert 0 < postroom.redis.ttl(f"celery-task-meta-{answer.json()['id']}") <= 3600


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"x": 1}, "y"),
        ({"x": "1", "y": 2}, "x"),
        ({"x": True, "y": 2}, "x"),
        ({"x": 1e16, "y": 2}, "x"),
        ({"x": 1, "y": 2, "z": 3}, "z"),
        ([1, 2], "whole body"),
    ],
)
def test_a_wrong_sum_is_named(postroom: Postroom, body: Any, field: str) -> None:
    answer = postroom.post("/add", body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"].startswith(field)


def test_celery_calls_an_unknown_id_pending_and_our_record_does_not(postroom: Postroom) -> None:
    assert postroom.get("/add/never-was").json()["state"] == "PENDING"
    assert postroom.get("/jobs/never-was").status_code == 404


# --- One record for each job ----------------------------------------------------------


def test_an_uploaded_log_is_summarised_and_its_file_removed(postroom: Postroom) -> None:
    files = {"log": ("access.log", io.BytesIO(LOG))}
    answer = requests.post(f"{postroom.url}/reports", files=files, timeout=10)
    job = postroom.finish(answer.json()["id"])
    assert (job["state"], job["done"], job["total"]) == ("SUCCESS", 4, 4)
    assert job["result"]["statuses"] == {"200": 1, "304": 1, "500": 1}
    assert job["result"]["malformed"] == 1
    wait_until(lambda: not list((postroom.data / "uploads").iterdir()))


@pytest.mark.usefixtures("no_second_look")
@pytest.mark.parametrize("first", [25, 23, 0])
def test_everybody_gets_one_mail_and_the_job_counts_them(postroom: Postroom, first: int) -> None:
    """From the `first` recipient on, they are refused; twenty of those are named."""
    letter = letter_to(25)
    taken, refused = letter["recipients"][:first], letter["recipients"][first:]
    postroom.faults(delay=0, refuse_addresses=refused)
    job = postroom.finish(postroom.send(letter))
    assert postroom.mails(job["id"]) == taken
    assert (job["state"], job["done"], job["total"]) == ("SUCCESS", 25, 25)
    assert (job["result"]["sent"], job["result"]["refused"]) == (len(taken), len(refused))
    assert [each["recipient"] for each in job["result"]["refusals"]] == refused[:20]


@pytest.mark.usefixtures("no_second_look")
def test_every_line_of_a_log_is_counted(postroom: Postroom) -> None:
    files = {"log": ("access.log", io.BytesIO(LOG * 5000))}  # more than a megabyte
    uploaded = requests.post(f"{postroom.url}/reports", files=files, timeout=10).json()
    sample = postroom.post("/reports", {"lines": 20_000}).json()
    for job in (postroom.finish(uploaded["id"]), postroom.finish(sample["id"])):
        assert (job["state"], job["done"], job["total"]) == ("SUCCESS", 20_000, 20_000)
        result = job["result"]
        assert result["lines"] == result["malformed"] + sum(result["statuses"].values()) == 20_000
        if job["id"] == uploaded["id"]:
            assert result["statuses"] == {"200": 5000, "304": 5000, "500": 5000}
            assert result["bytes"] == 5000 * 107


def test_a_newsletter_says_how_far_it_is(postroom: Postroom) -> None:
    job = postroom.send(letter_to(40))
    hold(postroom, job, mails=3)
    wait_until(lambda: postroom.look_up(job)["done"] == len(postroom.mails(job)), timeout=10)
    document = postroom.look_up(job)
    assert (document["state"], document["total"]) == ("PROGRESS", 40)
    assert 3 <= document["done"] == document["result"]["sent"] < 40
    assert set(postroom.redis.hkeys(f"job:{job}:ledger")) == set(postroom.mails(job))
    postroom.faults(silent=False, delay=0)
    assert postroom.finish(job)["done"] == 40


def test_a_report_says_how_far_it_is_until_it_is_cancelled(postroom: Postroom) -> None:
    job = postroom.post("/reports", {"lines": 5_000_000}).json()["id"]
    seen = {0}

    def moves() -> bool:
        seen.add(postroom.look_up(job)["done"])
        return len(seen) > 2

    wait_until(moves, timeout=20)
    requests.delete(f"{postroom.url}/jobs/{job}", timeout=10)
    document = postroom.finish(job)
    assert document["state"] == "REVOKED"
    assert max(seen) <= document["done"] < document["total"] == 5_000_000


@pytest.mark.usefixtures("no_second_look")
def test_the_answer_comes_before_the_mail(postroom: Postroom) -> None:
    postroom.faults(silent=True)
    job = postroom.send()
    assert postroom.mails(job) == []
    postroom.faults(silent=False)
    assert postroom.finish(job)["state"] == "SUCCESS"
    assert postroom.mails(job) == RECIPIENTS


def test_the_message_is_json_and_carries_only_the_id(postroom: Postroom) -> None:
    postroom.faults(silent=True)
    first, second = postroom.send(), postroom.send()  # the second waits for the one slot
    queued = {}

    def found() -> bool:
        for text in postroom.redis.lrange("mail", 0, -1):
            queued.update({text: json.loads(text)})
        return any(second in json.dumps(m["headers"]) for m in queued.values())

    wait_until(found)
    (text,) = (t for t, m in queued.items() if second in json.dumps(m["headers"]))
    assert queued[text]["content-type"] == "application/json"
    assert "ann@example.com" not in text
    postroom.faults(silent=False)
    for job in (first, second):
        assert postroom.finish(job)["state"] == "SUCCESS"


CONFIGURATION = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
from celery_app import celery
names = "accept_content", "task_serializer", "result_serializer", "event_serializer"
found = {name: celery.conf[name] for name in names}
found["accepted as a result"] = sorted(celery.backend.accept)
found["sent by tasks"] = sorted({task.serializer for task in celery.tasks.values()})
print(json.dumps(found))
"""


@pytest.mark.parametrize("loaded", ["app", "tasks"])  # by the web process; by workers and beat
def test_every_process_takes_and_sends_json_alone(loaded: str, tmp_path: Path) -> None:
    """Of pickle: Celery refuses it by itself, but only to a worker that is root."""
    printed = subprocess.run(
        [sys.executable, "-c", CONFIGURATION, loaded],
        cwd=HERE,
        env=os.environ | {"DATA": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert json.loads(printed.splitlines()[-1]) == {
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "accepted as a result": ["application/json"],
        "sent by tasks": ["json"],
    }


def test_a_message_that_is_not_json_is_refused_and_harms_nobody(postroom: Postroom) -> None:
    """A copy of a task's message that says it is YAML, which JSON is too."""
    postroom.faults(silent=True)
    first = postroom.send()
    wait_until(lambda: postroom.look_up(first)["state"] == "STARTED")
    second = postroom.send()
    wait_until(lambda: any(second in text for text in postroom.redis.lrange("mail", 0, -1)))
    (text,) = (text for text in postroom.redis.lrange("mail", 0, -1) if second in text)
    other = json.loads(text) | {"content-type": "application/x-yaml"}
    postroom.redis.rpush("mail", json.dumps(other))  # the next to be taken
    postroom.faults(silent=False)
    for job in (first, second):
        assert postroom.finish(job)["state"] == "SUCCESS"
        assert postroom.mails(job) == RECIPIENTS
    log = (postroom.data / "mail.log").read_text()
    assert "Refusing to deserialize untrusted content of type yaml" in log


def test_records_expire_and_the_input_goes_first(postroom: Postroom) -> None:
    job = postroom.send()
    postroom.finish(job)
    assert 0 < postroom.redis.ttl(f"job:{job}") <= 3600
    assert 0 < postroom.redis.ttl(f"job:{job}:ledger") <= 3600
    assert not postroom.redis.exists(f"job:{job}:input")
    wait_until(lambda: not postroom.redis.exists(f"job:{job}:lease"))
    assert postroom.redis.zscore("jobs:open", job) is None


def test_whatever_names_a_job_expires(postroom: Postroom) -> None:
    job = postroom.send(letter_to(40))
    hold(postroom, job, mails=3)
    wait_until(lambda: postroom.look_up(job)["done"] >= 3)
    keys = set(postroom.redis.scan_iter(f"job:{job}*"))
    assert keys >= {f"job:{job}{more}" for more in ("", ":input", ":ledger", ":lease")}
    for key in keys:
        assert 0 < postroom.redis.ttl(key) <= 3600, key
    postroom.faults(silent=False, delay=0)
    assert postroom.finish(job)["state"] == "SUCCESS"


def test_a_list_of_jobs_does_not_grow_for_ever(postroom: Postroom) -> None:
    postroom.redis.zadd("jobs", {f"old-{n}": n for n in range(1500)})
    job = postroom.send()
    wait_until(lambda: postroom.redis.zcard("jobs") == 1000, timeout=10)
    assert postroom.redis.zscore("jobs", "old-0") is None
    assert postroom.finish(job)["id"] in [each["id"] for each in postroom.get("/jobs").json()]
    postroom.redis.zremrangebyscore("jobs", 0, 1500)


def test_old_uploads_are_forgotten_and_young_ones_are_not(postroom: Postroom) -> None:
    (postroom.data / "uploads").mkdir(exist_ok=True)
    old, young = (postroom.data / "uploads" / f"{name}.log" for name in ("old", "young"))
    for path in (young, old):
        path.touch()
    os.utime(old, (time.time() - 3700, time.time() - 3700))  # JOB_TTL is 3600
    wait_until(lambda: not old.exists(), timeout=10)
    assert young.exists()
    young.unlink()


# --- Cancel, later, again -------------------------------------------------------------


def test_a_cancelled_job_stops_between_two_steps(postroom: Postroom) -> None:
    postroom.faults(silent=True)
    with postroom.redis.pubsub() as pushes:
        pushes.subscribe("flask-socketio")
        job = postroom.send()
        # Pushed after the first look at `cancelled`: from here on, one mail goes out.
        wait_until(lambda: job in str(pushes.get_message(timeout=1)))
    answer = requests.delete(f"{postroom.url}/jobs/{job}", timeout=10)
    assert answer.status_code == 202
    postroom.faults(silent=False)
    assert (postroom.finish(job)["state"], len(postroom.mails(job))) == ("REVOKED", 1)
    assert requests.delete(f"{postroom.url}/jobs/{job}", timeout=10).json()["state"] == "REVOKED"


def test_a_queued_job_can_be_cancelled_and_never_starts(postroom: Postroom) -> None:
    postroom.faults(silent=True)
    first, second, third = postroom.send(), postroom.send(), postroom.send()
    wait_until(lambda: postroom.look_up(first)["state"] == "STARTED")
    answer = requests.delete(f"{postroom.url}/jobs/{second}", timeout=10)
    assert answer.json()["state"] == "REVOKED"
    postroom.faults(silent=False)
    assert postroom.finish(third)["state"] == "SUCCESS"  # it came after the second
    assert postroom.look_up(second)["state"] == "REVOKED"
    assert postroom.mails(second) == []


def test_a_job_that_waits_for_its_start_or_its_retry_can_be_cancelled(postroom: Postroom) -> None:
    postroom.faults(drop_every=1)
    later, again = postroom.send(query="?countdown=3600"), postroom.send()
    wait_until(lambda: postroom.look_up(again)["state"] == "RETRY")
    for job in (later, again):
        requests.delete(f"{postroom.url}/jobs/{job}", timeout=10)
        assert postroom.finish(job)["state"] == "REVOKED"
        assert postroom.redis.zscore("jobs:open", job) is None  # nobody looks after it
    postroom.faults(drop_every=0)
    assert postroom.finish(postroom.send())["state"] == "SUCCESS"
    assert postroom.mails(again) == []


def test_the_file_of_a_cancelled_report_is_removed(postroom: Postroom) -> None:
    postroom.signal("report", signal.SIGSTOP)
    files = {"log": ("access.log", io.BytesIO(LOG))}
    job = requests.post(f"{postroom.url}/reports", files=files, timeout=10).json()["id"]
    path = postroom.data / "uploads" / f"{job}.log"
    assert path.exists()
    answer = requests.delete(f"{postroom.url}/jobs/{job}", timeout=10)
    postroom.signal("report", signal.SIGCONT)
    assert answer.json()["state"] == "REVOKED"
    assert not path.exists()


def test_a_later_start(postroom: Postroom) -> None:
    begun = time.time()
    later, soon = postroom.send(query="?countdown=2"), postroom.send()
    for job in (soon, later):
        assert postroom.finish(job)["state"] == "SUCCESS"
    assert len(postroom.mails(later)) == 3
    assert min(postroom.received(later)) >= begun + 2
    assert max(postroom.received(soon)) < min(postroom.received(later))


@pytest.mark.parametrize("countdown", ["-1", "3601", "soon", "nan", "inf"])
def test_a_wrong_countdown_is_named(postroom: Postroom, countdown: str) -> None:
    answer = postroom.post(f"/newsletters?countdown={countdown}", LETTER)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "countdown"


def test_a_job_whose_message_was_lost_is_sent_again(postroom: Postroom) -> None:
    postroom.faults(silent=True)
    first = postroom.send()
    wait_until(lambda: postroom.look_up(first)["state"] == "STARTED")
    second = postroom.send()
    wait_until(lambda: any(second in text for text in postroom.redis.lrange("mail", 0, -1)))
    postroom.redis.delete("mail")
    postroom.faults(silent=False)
    assert postroom.finish(second)["state"] == "SUCCESS"
    assert postroom.mails(second) == RECIPIENTS


def test_beat_sends_what_exists_and_nothing_that_piles_up(postroom: Postroom) -> None:
    entries = celery.conf.beat_schedule
    assert {"look after jobs", "nightly report"} <= set(entries)
    nightly = entries["nightly report"]["schedule"]
    assert len(nightly.hour) == len(nightly.minute) == 1  # once a day
    for name, entry in entries.items():
        assert entry["task"] in celery.tasks, name
        if isinstance(entry["schedule"], float):  # seconds: while no worker comes, it would pile up
            assert 0 < entry["options"]["expires"] <= 3 * entry["schedule"], name
    with Celery(broker=f"redis://127.0.0.1:{postroom.environment['REDIS_PORT']}/0") as theirs:
        theirs.send_task("nightly_report", queue="mail")

    def found() -> list[str]:
        return [each["id"] for each in postroom.get("/jobs").json() if each["total"] == 300_000]

    wait_until(found)
    (job,) = found()
    requests.delete(f"{postroom.url}/jobs/{job}", timeout=10)
    assert postroom.finish(job)["kind"] == "report"


@pytest.mark.usefixtures("no_second_look")
def test_a_second_look_waits_until_a_job_is_twice_as_old(
    postroom: Postroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or each look would send one more message for each job that waits in a long queue."""
    monkeypatch.setattr(jobs, "store", postroom.redis)
    job, now = jobs.Job("a-job-of-this-test", "newsletter"), time.time()
    jobs.write_document(postroom.redis, job)
    postroom.redis.zadd("jobs", {job.id: now - 100})
    postroom.redis.zadd("jobs:open", {job.id: now - 1})
    assert job in jobs.to_look_after()
    assert job not in jobs.to_look_after()
    assert postroom.redis.zscore("jobs:open", job.id) >= now + 100
    postroom.redis.zadd("jobs:open", {job.id: now - 1})
    with lease.take(job.id, "a worker"):
        assert job not in jobs.to_look_after()  # somebody is on it
    postroom.redis.delete(f"job:{job.id}")
    for key in ("jobs", "jobs:open"):
        postroom.redis.zrem(key, job.id)


def test_a_job_that_was_sent_twice_runs_once(postroom: Postroom) -> None:
    """What a second delivery does, in the middle of the first and after its end."""
    postroom.faults(silent=True)
    first = postroom.send()
    wait_until(lambda: postroom.look_up(first)["state"] == "STARTED")
    second = postroom.send()
    wait_until(lambda: any(second in text for text in postroom.redis.lrange("mail", 0, -1)))
    (message,) = (text for text in postroom.redis.lrange("mail", 0, -1) if second in text)
    postroom.redis.rpush("mail", message, message)
    postroom.faults(silent=False)
    assert postroom.finish(second)["state"] == "SUCCESS"
    wait_until(lambda: not any(second in text for text in postroom.redis.lrange("mail", 0, -1)))
    assert postroom.finish(postroom.send())["state"] == "SUCCESS"  # after the copies
    assert postroom.mails(second) == RECIPIENTS
    assert postroom.look_up(second)["state"] == "SUCCESS"


def test_a_mail_server_that_stays_away_ends_the_job_after_six_attempts(
    postroom: Postroom,
) -> None:
    postroom.faults(drop_every=1)
    states = set()

    def ended() -> bool:
        states.add(postroom.look_up(job)["state"])
        return bool(states & set(ENDED))

    job = postroom.send()
    wait_until(ended)
    assert "RETRY" in states
    document = postroom.look_up(job)
    assert (document["state"], document["done"]) == ("FAILURE", 0)
    assert "0 of 3 mails were sent" in document["error"]
    assert postroom.redis.hget(f"job:{job}", "attempts") == "6"


@pytest.mark.usefixtures("no_second_look")
def test_attempts_that_get_on_do_not_count(postroom: Postroom) -> None:
    postroom.faults(drop_every=2)  # one mail in each attempt
    recipients = [f"reader{n}@example.com" for n in range(8)]
    job = postroom.finish(postroom.send(LETTER | {"recipients": recipients}))
    assert (job["state"], job["done"]) == ("SUCCESS", 8)
    assert postroom.mails(job["id"]) == recipients


@pytest.mark.usefixtures("no_second_look")
def test_refused_for_now_is_tried_again_and_refused_for_good_is_not(postroom: Postroom) -> None:
    postroom.faults(refuse_every=2, refuse_addresses=["bob@example.com"])
    job = postroom.finish(postroom.send())
    assert (job["state"], job["done"]) == ("SUCCESS", 3)
    assert (job["result"]["sent"], job["result"]["refused"]) == (2, 1)
    assert job["result"]["refusals"][0]["recipient"] == "bob@example.com"


def test_a_job_that_kills_its_workers_is_given_up(postroom: Postroom) -> None:
    postroom.faults(silent=True)
    first, second = postroom.send(), postroom.send()
    wait_until(lambda: postroom.look_up(first)["state"] == "STARTED")
    postroom.redis.hset(f"job:{second}", "attempts", 6)  # as six dead workers leave it
    postroom.faults(silent=False)
    document = postroom.finish(second)
    assert document["state"] == "FAILURE"
    assert "Given up" in document["error"]
    assert postroom.mails(second) == []


def test_a_lost_file_is_a_failure_that_says_so(postroom: Postroom) -> None:
    postroom.signal("report", signal.SIGSTOP)
    files = {"log": ("access.log", io.BytesIO(LOG))}
    answer = requests.post(f"{postroom.url}/reports", files=files, timeout=10)
    job = answer.json()["id"]
    (postroom.data / "uploads" / f"{job}.log").unlink()
    postroom.signal("report", signal.SIGCONT)
    document = postroom.finish(job)
    assert document["state"] == "FAILURE"
    assert "No such file" in document["error"]


def test_a_worker_has_the_slots_it_was_given_and_takes_no_more_than_them(
    postroom: Postroom,
) -> None:
    """As many tasks as MAIL_SLOTS and REPORT_SLOTS say, and no other message in its hands."""
    found: dict[str, Any] = {}

    def have_answered() -> bool:
        answers = theirs.control.inspect(timeout=0.5).stats() or {}
        found.update({name.partition("@")[0]: told for name, told in answers.items()})
        return len(found) == 2

    with Celery(broker=f"redis://127.0.0.1:{postroom.environment['REDIS_PORT']}/0") as theirs:
        wait_until(have_answered)
    slots = {"mail": 1, "report": 2}
    assert {name: told["pool"]["max-concurrency"] for name, told in found.items()} == slots
    assert {name: told["prefetch_count"] for name, told in found.items()} == slots


# --- Pushed from another process ------------------------------------------------------


def test_a_step_in_the_worker_reaches_who_watches_and_nobody_else(postroom: Postroom) -> None:
    watching, other = socketio_client.SimpleClient(), socketio_client.SimpleClient()
    for client in (watching, other):
        client.connect(postroom.url, transports=["websocket"])
    postroom.faults(silent=True, delay=0.12)  # longer than PUSH_INTERVAL: each step is pushed
    job = postroom.send()
    assert watching.call("watch", {"job": job})["done"] == 0
    assert other.call("watch", {"job": "nobody"}) == {"error": "There is no such job."}
    postroom.faults(silent=False)
    told: list[dict[str, Any]] = []
    while not told or told[-1]["state"] not in ENDED:
        told.append(watching.receive(timeout=10)[1])
    assert {document["id"] for document in told} == {job}
    assert [d["done"] for d in told if d["state"] == "PROGRESS"] == [1, 2, 3]
    correlation = postroom.redis.hget(f"job:{job}", "correlation")
    more = {"at": told[-1]["at"], "correlation": correlation}
    assert told[-1] == postroom.look_up(job) | more
    with pytest.raises(socketio_client.exceptions.TimeoutError):
        other.receive(timeout=0.2)
    for client in (watching, other):
        client.disconnect()


def test_many_mails_are_stored_one_by_one_and_pushed_ten_times_a_second(
    postroom: Postroom,
) -> None:
    client = socketio_client.SimpleClient()
    client.connect(postroom.url, transports=["websocket"])
    postroom.faults(silent=True, delay=0)
    begun = time.monotonic()
    job = postroom.send(LETTER | {"recipients": [f"reader{n}@example.com" for n in range(300)]})
    client.call("watch", {"job": job})
    postroom.faults(silent=False)
    told = [{"state": "PENDING"}]
    while told[-1]["state"] not in ENDED:
        told.append(client.receive(timeout=10)[1])
    client.disconnect()
    assert told[-1]["state"] == "SUCCESS"
    assert len(told) <= 4 + (time.monotonic() - begun) / 0.1
    assert postroom.redis.hlen(f"job:{job}:ledger") == 300


def test_an_event_that_fails_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert "failed" in events.event_failed(RuntimeError("of this test"))["error"]
    assert "RuntimeError: of this test" in caplog.text


def test_who_comes_back_is_told_of_the_rest_after_watching_again(postroom: Postroom) -> None:
    """A connection that was lost is another one when it is back: its rooms are forgotten."""
    watching, other = socketio_client.SimpleClient(), socketio_client.SimpleClient()
    for client in (watching, other):
        client.connect(postroom.url, transports=["websocket"])
    postroom.faults(silent=True)
    job = postroom.send()
    for client in (watching, other):
        assert client.call("watch", {"job": job})["id"] == job
        client.disconnect()
        client.connect(postroom.url, transports=["websocket"])
    assert watching.call("watch", {"job": job})["done"] == 0
    postroom.faults(silent=False)
    told: list[dict[str, Any]] = []
    while not told or told[-1]["state"] not in ENDED:
        told.append(watching.receive(timeout=10)[1])
    assert (told[-1]["state"], told[-1]["done"]) == ("SUCCESS", 3)
    with pytest.raises(socketio_client.exceptions.TimeoutError):
        other.receive(timeout=0.2)
    for client in (watching, other):
        client.disconnect()


def test_an_event_says_when_it_was_pushed(postroom: Postroom) -> None:
    """By the worker's clock: not when its job came or began, nor when the web process read it."""
    client = socketio_client.SimpleClient()
    client.connect(postroom.url, transports=["websocket"])
    postroom.faults(silent=True, delay=0.12)  # longer than PUSH_INTERVAL: each step is pushed
    job = postroom.send()
    client.call("watch", {"job": job})
    wait_until(lambda: postroom.look_up(job)["state"] == "STARTED")
    postroom.signal("web", signal.SIGSTOP)
    begun = time.time()
    postroom.faults(silent=False)
    wait_until(lambda: postroom.redis.hget(f"job:{job}", "state") == "SUCCESS")
    ended = time.time()
    postroom.signal("web", signal.SIGCONT)
    told: list[dict[str, Any]] = []
    while not told or told[-1]["state"] not in ENDED:
        told.append(client.receive(timeout=10)[1])
    client.disconnect()
    times = [event["at"] for event in told if event["state"] != "STARTED"]
    assert len(times) == 4
    assert times == sorted(set(times))
    assert begun < times[0]
    assert times[-2] < ended  # the last one may be pushed a little after it is stored
    received = [message["received"] for message in postroom.messages(job)]
    assert all(taken < at for taken, at in zip(received, times[:3], strict=True))


# --- Hurt (the whole table is in the repository's tests/test_faults.py) ---------------


def test_a_killed_mail_worker_loses_nothing_and_sends_nothing_twice(postroom: Postroom) -> None:
    postroom.faults(delay=0.2)
    recipients = [f"reader{n}@example.com" for n in range(12)]
    job = postroom.send(LETTER | {"recipients": recipients})
    wait_until(lambda: len(postroom.mails(job)) >= 3)
    postroom.signal("mail", signal.SIGKILL)
    postroom.processes["mail"].wait(10)
    assert postroom.look_up(job)["done"] < 12
    postroom.start("mail")
    assert postroom.finish(job)["state"] == "SUCCESS"
    mails = postroom.mails(job)
    assert list(dict.fromkeys(mails)) == recipients
    assert len(mails) <= 13  # killed between a mail and its note: see the README


def test_a_worker_that_is_told_to_stop_gives_its_job_back(postroom: Postroom) -> None:
    postroom.faults(delay=0.2)
    recipients = [f"reader{n}@example.com" for n in range(12)]
    job = postroom.send(LETTER | {"recipients": recipients})
    wait_until(lambda: len(postroom.mails(job)) >= 3)
    postroom.signal("mail", signal.SIGTERM)
    postroom.processes["mail"].wait(20)
    assert len(postroom.mails(job)) < 12  # it did not wait for the last mail
    postroom.start("mail")
    assert postroom.finish(job)["state"] == "SUCCESS"
    assert postroom.mails(job) == recipients


def test_a_worker_that_was_frozen_does_not_write_over_what_another_has_done(
    postroom: Postroom,
) -> None:
    postroom.faults(delay=0.2)
    recipients = [f"reader{n}@example.com" for n in range(12)]
    job = postroom.send(LETTER | {"recipients": recipients})
    wait_until(lambda: len(postroom.mails(job)) >= 3)
    frozen = postroom.processes["mail"].pid
    os.killpg(frozen, signal.SIGSTOP)
    postroom.start("mail")  # a second one
    assert postroom.finish(job)["state"] == "SUCCESS"
    done = postroom.look_up(job)
    os.killpg(frozen, signal.SIGCONT)
    wait_until(lambda: "LeaseLost" in (postroom.data / "mail.log").read_text())
    assert postroom.look_up(job) == done
    assert len(postroom.mails(job)) <= 13  # one was under way when it froze
    os.killpg(frozen, signal.SIGKILL)


def test_a_worker_killed_while_it_looks_for_lost_messages_does_not_end_the_search(
    postroom: Postroom,
) -> None:
    """One worker at a time looks, under a lock in Redis: for how long does a dead one hold it?"""
    with postroom.redis.monitor() as commands:
        said = (each["command"] for each in commands.listen())
        taken = next(text for text in said if text.startswith("SET unacked_mutex "))
    milliseconds = int(taken.split(" PX ")[1].split()[0])
    assert milliseconds <= 10_000  # visibility_timeout: no lost message waits much longer


@pytest.mark.parametrize(
    ("name", "seconds"), [("LEASE", "10"), ("LEASE", "0"), ("LONGEST_RETRY", "10")]
)
def test_a_worker_does_not_start_with_a_wait_as_long_as_the_visibility_timeout(
    name: str, seconds: str
) -> None:
    """It holds what waits, and Redis would deliver a copy each time."""
    environment = {**os.environ, name: seconds}
    command = [sys.executable, "-c", "import tasks"]
    started = subprocess.run(
        command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=60
    )
    assert started.returncode == 1
    assert f"{name} is {seconds} s. It must be more than 0, and less than" in started.stderr


def test_who_has_released_a_lease_does_not_take_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    taken: list[str] = []

    class ReleasedJustNow:
        def reacquire(self) -> None:
            over.set()
            raise LockError

        def acquire(self, blocking: bool, token: str) -> None:
            taken.append(token)

    monkeypatch.setattr(lease, "LEASE", 0.1)
    lease.renew(cast(Any, ReleasedJustNow()), "token", over)
    assert taken == []


def test_a_lease_is_one_workers_and_free_at_once(
    postroom: Postroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To let it run out instead would hold up every next attempt for five seconds."""
    monkeypatch.setattr(jobs, "store", postroom.redis)
    key = "job:of-this-test:lease"
    with lease.take("of-this-test", "one") as mine:
        assert mine
        with lease.take("of-this-test", "two") as theirs:
            assert not theirs
        assert postroom.redis.get(key) == "one"
        assert 0 < postroom.redis.pttl(key) <= 1000 * times.LEASE
    assert not postroom.redis.exists(key)


def test_a_lease_is_renewed_while_its_block_runs(
    postroom: Postroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "store", postroom.redis)
    left: list[int] = []

    def is_renewed() -> bool:
        left.append(postroom.redis.pttl("job:of-this-test:lease"))
        return left[-1] > min(left)

    with lease.take("of-this-test", "one"):
        wait_until(is_renewed, timeout=10)


# --- Redis, wherever it comes from ----------------------------------------------------


def test_a_server_on_the_path_is_taken_before_the_one_that_pip_brought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "falkordb" in redis_server.find_server()
    for name in ("valkey-server", "redis-server"):
        (tmp_path / name).touch(mode=0o755)
        assert redis_server.find_server() == str(tmp_path / name)


def test_redis_listens_on_this_machine_only_and_writes_down_each_change(
    postroom: Postroom,
) -> None:
    assert postroom.redis.config_get("bind")["bind"] == "127.0.0.1"
    assert postroom.redis.config_get("appendonly")["appendonly"] == "yes"
    assert postroom.redis.config_get("dir")["dir"] == str(postroom.data.resolve())


def test_a_redis_of_your_own_is_left_alone(tmp_path: Path) -> None:
    environment = os.environ | {"REDIS_URL": "redis://127.0.0.1:1/0", "DATA": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-u", "redis_server.py"],
        cwd=HERE,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "using that server" in process.stdout.readline()
    assert process.poll() is None  # it stays: honcho stops all when one process ends
    process.kill()
    process.wait(10)


def test_every_process_of_the_procfile_can_be_found() -> None:
    for line in (HERE / "Procfile").read_text().splitlines():
        words = line.split(": ", 1)[1].removeprefix("env ").split()
        program = next(word for word in words if "=" not in word)
        assert shutil.which(program, path=Path(sys.executable).parent), program
