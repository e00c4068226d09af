"""What this chapter adds: metrics, logs, health, Flower; backoff, limits, dead letters."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import requests
import socketio as socketio_client
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

import events
import flower_server
import jobs
import monitoring
import tasks
import times
import work
from celery_app import QUEUES, celery
from test_chapter import (
    ENDED,
    HERE,
    LETTER,
    RECIPIENTS,
    Postroom,
    free_ports,
    is_open,
    letter_to,
    no_second_look,
    postroom,
    running,
    wait_until,
)

__all__ = ["no_second_look", "postroom", "running"]  # fixtures, which this file has its tests use
Samples = dict[tuple[str, ...], float]
MANY = [f"reader{n}@example.com" for n in range(20)]


def samples(postroom: Postroom, service: str) -> list[Sample]:
    if service == "web":
        text = postroom.get("/metrics").text
    else:
        port = postroom.metrics_ports[service]
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    families = text_string_to_metric_families(text)
    return [sample for family in families for sample in family.samples]


def scrape(postroom: Postroom, service: str = "web") -> Samples:
    """Each sample by its name, then the values of its labels."""
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for sample in samples(postroom, service)
    }


def grown(postroom: Postroom, service: str, before: Samples, *name: str) -> float:
    key = (name[0], *sorted(name[1:]))
    return scrape(postroom, service).get(key, 0) - before.get(key, 0)


def lines(postroom: Postroom, *services: str) -> list[dict[str, Any]]:
    """What these services have logged as JSON."""
    found = []
    for service in services:
        text = (postroom.data / f"{service}.log").read_text()
        found += [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return found


def fail(postroom: Postroom) -> str:
    """A newsletter that is given up: the mail server drops every second mail, then every one."""
    postroom.faults(drop_every=2)
    job = postroom.send(LETTER | {"recipients": MANY})
    wait_until(lambda: postroom.look_up(job)["done"] >= 2)
    postroom.faults(drop_every=1)
    assert postroom.finish(job)["state"] == "FAILURE"
    return job


def dead(postroom: Postroom) -> dict[str, dict[str, Any]]:
    return {letter["id"]: letter for letter in postroom.get("/dead-letters").json()}


# --- See it ---------------------------------------------------------------------------


def test_the_web_process_counts_requests_by_route_and_status(postroom: Postroom) -> None:
    before = scrape(postroom)
    postroom.get("/jobs/never-was")
    postroom.get("/jobs/never-was-either")
    assert grown(postroom, "web", before, "postroom_requests_total", "GET", "get_job", "404") == 2
    assert grown(postroom, "web", before, "postroom_request_seconds_count", "get_job") == 2
    seconds = ("postroom_request_seconds_sum", "monitoring.workers")
    took = postroom.get("/health/workers").elapsed.total_seconds()  # it waits half a second
    assert 0.5 <= grown(postroom, "web", before, *seconds) <= took
    requests.request("NONSENSE", f"{postroom.url}/jobs", timeout=10)
    assert grown(postroom, "web", before, "postroom_requests_total", "other", "none", "405") == 1


def test_workers_count_mails_tasks_and_their_times(postroom: Postroom) -> None:
    before = scrape(postroom, "mail")
    postroom.faults(refuse_addresses=["bob@example.com"], delay=0.2)
    postroom.finish(postroom.send())
    wait_until(
        lambda: grown(
            postroom, "mail", before, "postroom_task_run_seconds_count", "newsletter", "SUCCESS"
        )
    )
    assert grown(postroom, "mail", before, "postroom_mails_total", "taken") == 2
    assert grown(postroom, "mail", before, "postroom_mails_total", "550") == 1
    ran = grown(postroom, "mail", before, "postroom_task_run_seconds_sum", "newsletter", "SUCCESS")
    assert 0.4 < ran < 20
    assert grown(postroom, "mail", before, "postroom_task_wait_seconds_count", "newsletter") == 1


def test_every_number_is_on_the_dashboard(postroom: Postroom) -> None:
    panels = json.loads((HERE / "dashboard.json").read_text())["panels"]
    asked = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    postroom.finish(postroom.send())
    postroom.finish(postroom.post("/reports", {"lines": 10}).json()["id"])
    services = ("web", "mail", "report")
    told = " ".join(each.name for service in services for each in samples(postroom, service))
    ending = "(_(bucket|count|sum|total|created))?"
    shown, known = (
        {found[0] for found in re.findall(rf"(postroom_\w+?){ending}\b", text)}
        for text in (asked, told)
    )
    assert len(known) > 12
    assert known <= shown


LABELS = {
    "answer": r"taken|\d{3}",
    "endpoint": r"[a-z_.]+",
    "kind": "newsletter|report",
    "le": r"[\d.]+|\+Inf",
    "method": "[A-Z]+|other",
    "queue": "|".join(QUEUES),
    "state": "[A-Z]+",
    "status": r"\d{3}",
    "task": r"[a-z_.]+",
}


def test_each_label_has_values_of_its_kind(postroom: Postroom) -> None:
    """Had two changed places, every query would find something, and it would mean nothing."""
    postroom.finish(postroom.post("/reports", {"lines": 10}).json()["id"])
    postroom.faults(refuse_every=2)
    postroom.finish(postroom.send())
    found = [each for service in ("web", "mail", "report") for each in samples(postroom, service)]
    assert {name for sample in found for name in sample.labels} == set(LABELS)
    for sample in found:
        for name, value in sample.labels.items():
            assert re.fullmatch(LABELS[name], value), sample


def test_only_mails_that_were_taken_are_counted_as_such(postroom: Postroom) -> None:
    before = scrape(postroom, "mail")
    postroom.faults(drop_every=4, refuse_every=3)  # lost on its way; refused for now
    job = postroom.finish(postroom.send(letter_to(6)))
    assert (job["state"], job["result"]["sent"]) == ("SUCCESS", 6)
    assert len(postroom.mails(job["id"])) == 6
    assert grown(postroom, "mail", before, "postroom_mails_total", "taken") == 6
    assert grown(postroom, "mail", before, "postroom_mails_total", "451") >= 1


def test_the_wait_of_a_task_counts_from_when_it_was_sent(postroom: Postroom) -> None:
    postroom.faults(silent=True)
    first = postroom.send()
    wait_until(lambda: postroom.look_up(first)["state"] == "STARTED")
    before = scrape(postroom, "mail")
    begun = time.time()
    second = postroom.send()
    sent = time.time()
    oldest = ("postroom_queue_oldest_seconds", "mail")
    wait_until(lambda: scrape(postroom).get(oldest, 0) > 0.5)
    released = time.time()
    postroom.faults(silent=False)
    for job in (first, second):
        assert postroom.finish(job)["state"] == "SUCCESS"
    waited = ("postroom_task_wait_seconds_sum", "newsletter")
    seconds = grown(postroom, "mail", before, *waited)
    assert released - sent < seconds < time.time() - begun


def test_a_pool_of_processes_is_counted_as_one(postroom: Postroom) -> None:
    before = scrape(postroom, "report")
    for job in [postroom.post("/reports", {"lines": 3000}).json()["id"] for _ in range(6)]:
        postroom.finish(job)
    name = ("postroom_task_run_seconds_count", "report", "SUCCESS")
    wait_until(lambda: grown(postroom, "report", before, *name) >= 6)
    assert scrape(postroom, "report")["postroom_slots", "reports"] == 2


def test_a_killed_process_is_not_at_work_any_more(postroom: Postroom) -> None:
    job = postroom.post("/reports", {"lines": 400_000}).json()["id"]
    busy = ("postroom_slots_busy", "reports")
    wait_until(lambda: scrape(postroom, "report").get(busy) == 1)
    for child in psutil.Process(postroom.processes["report"].pid).children():
        child.kill()
    requests.delete(f"{postroom.url}/jobs/{job}", timeout=10)
    postroom.finish(job)  # by another process
    wait_until(lambda: scrape(postroom, "report").get(busy, 0) == 0)


def test_the_depth_of_a_queue_and_the_age_of_its_first_message(postroom: Postroom) -> None:
    postroom.faults(silent=True)
    begun = time.time()
    first = postroom.send()
    wait_until(lambda: postroom.look_up(first)["state"] == "STARTED")
    second = postroom.send()
    age, depth = ("postroom_queue_oldest_seconds", "mail"), "postroom_queue_messages"
    wait_until(lambda: scrape(postroom).get(age, 0) > 1)
    assert time.time() - begun > 1
    wait_until(lambda: scrape(postroom).get((depth, "mail"), 0) >= 1)
    wait_until(lambda: scrape(postroom).get((depth, "reports"), 9) <= 1)  # a canary, now and then
    postroom.faults(silent=False)
    for job in (first, second):
        assert postroom.finish(job)["state"] == "SUCCESS"
    wait_until(lambda: scrape(postroom).get(age, 9) < 1)


def test_sockets_and_pushes_are_counted(postroom: Postroom) -> None:
    client = socketio_client.SimpleClient()
    before = scrape(postroom)
    client.connect(postroom.url, transports=["websocket"])
    wait_until(lambda: grown(postroom, "web", before, "postroom_sockets") == 1)
    assert client.call("seen", {"at": time.time() - 0.2}) == {}
    assert grown(postroom, "web", before, "postroom_push_seconds_count") == 1
    assert 0.2 <= grown(postroom, "web", before, "postroom_push_seconds_sum") < 5
    for wrong in ({"at": 0.0}, {"at": time.time() + 60}, {"at": 1.0}, {}, None, {"at": "now"}):
        assert "error" in client.call("seen", wrong), wrong
    assert grown(postroom, "web", before, "postroom_push_seconds_count") == 1
    client.disconnect()
    wait_until(lambda: grown(postroom, "web", before, "postroom_sockets") == 0)


def test_the_sockets_of_a_killed_process_do_not_count_for_ever(postroom: Postroom) -> None:
    before = scrape(postroom)
    client = socketio_client.SimpleClient(reconnection=False)
    client.connect(postroom.url, transports=["websocket"])
    wait_until(lambda: grown(postroom, "web", before, "postroom_sockets") == 1)
    for child in psutil.Process(postroom.processes["web"].pid).children():
        child.kill()
    wait_until(lambda: not client.connected)
    wait_until(postroom.ready)
    wait_until(lambda: scrape(postroom).get(("postroom_sockets",), 0) == 0, timeout=10)


def test_one_id_from_the_request_to_the_last_push(postroom: Postroom) -> None:
    """Through the web process, a worker, its retries, and a second worker after a lost message."""
    client = socketio_client.SimpleClient()
    client.connect(postroom.url, transports=["websocket"])
    postroom.faults(drop_every=1)
    given = {"X-Request-ID": f"learner-{random.randrange(10**9)}"}  # noqa: S311
    answer = requests.post(f"{postroom.url}/newsletters", json=LETTER, headers=given, timeout=10)
    assert answer.headers["X-Request-ID"] == given["X-Request-ID"]
    job = answer.json()["id"]
    client.call("watch", {"job": job})
    wait_until(lambda: postroom.look_up(job)["state"] == "RETRY")
    postroom.faults(drop_every=0)
    told: list[dict[str, Any]] = []
    while not told or told[-1]["state"] not in ENDED:
        told.append(client.receive(timeout=20)[1])
    client.disconnect()
    assert {event["correlation"] for event in told} == {given["X-Request-ID"]}

    def mine() -> list[dict[str, Any]]:
        found = lines(postroom, "web", "mail")
        return [line for line in found if line.get("correlation") == given["X-Request-ID"]]

    wait_until(lambda: "newsletter SUCCESS, 3 of 3" in [line["event"] for line in mine()])
    assert {line["service"] for line in mine()} == {"web", "mail"}
    assert {line["job"] for line in mine()} == {job}
    said = [line["event"] for line in mine()]
    assert "POST /newsletters" in said
    assert any("newsletter RETRY" in text for text in said)
    # And not a request longer: the same thread answers others.
    others = [line for line in lines(postroom, "web") if line["event"] == "GET /jobs/<job_id>"]
    assert not any("job" in line for line in others)


def test_a_job_sent_again_keeps_its_id(postroom: Postroom) -> None:
    postroom.faults(silent=True)
    first = postroom.send()
    wait_until(lambda: postroom.look_up(first)["state"] == "STARTED")
    second = postroom.send()
    correlation = postroom.redis.hget(f"job:{second}", "correlation")
    wait_until(lambda: any(second in text for text in postroom.redis.lrange("mail", 0, -1)))
    postroom.redis.delete("mail")
    postroom.faults(silent=False)
    postroom.finish(second)
    wait_until(
        lambda: any(
            line["event"] == "newsletter SUCCESS, 3 of 3" and line["correlation"] == correlation
            for line in lines(postroom, "mail")
        )
    )


@pytest.mark.parametrize("given", ["short", "x" * 65, "two words here", "evil\tnews-paper", ""])
def test_an_id_that_is_no_id_is_not_taken_over(postroom: Postroom, given: str) -> None:
    answer = requests.get(f"{postroom.url}/jobs", headers={"X-Request-ID": given}, timeout=10)
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["X-Request-ID"])


def test_no_log_names_a_subscriber(postroom: Postroom) -> None:
    """Neither when mails are refused, nor when a job fails."""
    postroom.faults(refuse_addresses=["bob@example.com"])
    postroom.finish(postroom.send())
    fail(postroom)
    services = ("web", "mail", "report", "beat", "flower")
    for service in services:
        text = (postroom.data / f"{service}.log").read_text()
        assert "@example.com" not in text.replace("***@example.com", ""), service
    assert lines(postroom, "web")
    assert lines(postroom, "mail")
    assert lines(postroom, "beat")


LOG_AN_ADDRESS = """
import logging, logs
logs.configure()
log = logging.getLogger("test")
log.warning("Refused: <%s>", "o'ann@EXAMPLE.COM")
bob = "bob@mail.example.com"  # apart: from Python 3.13 on, a traceback shows the line that raises
try:
    raise ValueError(bob)
except ValueError:
    log.exception("It failed")
logs.log.info("structured", reader="cas@example.com", worker="mail@host")
log.info("To ann@example.com, bob@example.com")
"""


@pytest.mark.parametrize("form", ["json", "text"])
def test_an_address_in_a_message_or_an_exception_is_masked(form: str) -> None:
    environment = os.environ | {"LOG_FORMAT": form}
    command = [sys.executable, "-c", LOG_AN_ADDRESS]
    printed = subprocess.run(
        command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    for name in ("ann", "bob", "cas"):
        assert f"{name}@" not in printed
    assert printed.count("***@") == 5
    assert "mail@host" in printed  # the name of a worker is not an address


def test_a_worker_that_answers_and_takes_nothing_is_not_well(postroom: Postroom) -> None:
    seen: dict[str, Any] = {}

    def is_told(code: int, reports: str) -> bool:
        """All in one answer: the next one may be another."""
        answer = postroom.get("/health/workers")
        seen.update(answer.json())
        states = {queue: found["state"] for queue, found in seen["queues"].items()}
        alive = any(worker.startswith("report@") for worker in seen["alive"])
        apart = states.pop("reports") == reports and set(states.values()) == {"consuming"}
        return answer.status_code == code and alive and apart

    wait_until(lambda: is_told(200, "consuming"))
    worker = next(name for name in seen["alive"] if name.startswith("report@"))
    with Celery(broker=f"redis://127.0.0.1:{postroom.environment['REDIS_PORT']}/0") as theirs:
        theirs.control.cancel_consumer("reports", destination=[worker], reply=True)
        wait_until(lambda: is_told(503, "stalled"), timeout=25)
        theirs.control.add_consumer("reports", destination=[worker], reply=True)
    wait_until(lambda: postroom.get("/health/workers").status_code == 200)


def test_a_worker_with_all_its_slots_at_work_is_well(postroom: Postroom) -> None:
    jobs = [postroom.post("/reports", {"lines": 5_000_000}).json()["id"] for _ in range(2)]
    answers: list[requests.Response] = []

    def busy() -> bool:
        answers.append(postroom.get("/health/workers"))
        queues = answers[-1].json()["queues"]
        states = {queue: found["state"] for queue, found in queues.items()}
        return states.pop("reports") == "busy" and set(states.values()) == {"consuming"}

    wait_until(busy)
    assert answers[-1].status_code == 200, answers[-1].text
    for job in jobs:
        requests.delete(f"{postroom.url}/jobs/{job}", timeout=10)
        postroom.finish(job)


@pytest.mark.parametrize(
    ("ago", "waiting", "busy", "state", "code"),
    [
        (1, 0, 0, "consuming", 200),
        (99, 1, 2, "busy", 200),
        (99, 1, 1, "stalled", 503),
        (99, 0, 1, "unproven", 503),  # not even a canary comes
        (None, 0, 2, "busy", 200),
        (None, 0, None, "unproven", 503),  # no worker answers
    ],
)
def test_health_is_what_is_proven(
    ago: float | None,
    waiting: int,
    busy: int | None,
    state: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {} if busy is None else {"all@here": {"slots": 2, "busy": busy, "queues": QUEUES}}
    monkeypatch.setattr(celery.control, "broadcast", lambda *_, **__: [found])
    last = None if ago is None else str(time.time() - ago * monitoring.STALE / 50)
    store = SimpleNamespace(ping=bool, hget=lambda *_: last, llen=lambda _: waiting)
    monkeypatch.setattr(jobs, "store", store)
    with Flask("of this test").app_context():
        answer = monitoring.workers()
    assert answer.status_code == code
    told = answer.get_json()
    assert {queue["state"] for queue in told["queues"].values()} == {state}
    assert told["status"] == ("ok" if code == 200 else "failing")


def test_live_without_redis_but_not_ready(postroom: Postroom) -> None:
    assert postroom.get("/health/ready").status_code == 200
    postroom.signal("redis", signal.SIGSTOP)
    try:
        assert postroom.get("/health/live").status_code == 200
        assert postroom.get("/health/ready").status_code == 503
        assert scrape(postroom)[("postroom_redis_up",)] == 0
    finally:
        postroom.signal("redis", signal.SIGCONT)
    wait_until(lambda: postroom.get("/health/ready").status_code == 200)
    wait_until(lambda: scrape(postroom)[("postroom_redis_up",)] == 1)


# --- Flower ---------------------------------------------------------------------------


def login(postroom: Postroom) -> tuple[str, str]:
    """The name and password that Flower printed when it started last."""
    text = (postroom.data / "flower.log").read_text()
    name, password = re.findall(r"name and password: (\S+):(\S+)\)", text)[-1]
    return name, password


def flower(postroom: Postroom, path: str, **more: Any) -> requests.Response:
    return requests.get(postroom.flower + path, timeout=10, **more)


def flower_answers(postroom: Postroom) -> bool:
    try:
        return flower(postroom, "/healthcheck").ok
    except requests.ConnectionError:
        return False


def wait_until_flower_listens(postroom: Postroom) -> None:
    """Until it hears one more heartbeat of a worker: what comes from now on, it will hear too."""

    def heard() -> int:
        answer = flower(postroom, "/workers?json=1", auth=login(postroom))
        return sum(worker.get("worker-heartbeat", 0) for worker in answer.json()["data"])

    wait_until(lambda: flower_answers(postroom))
    before = heard()
    wait_until(lambda: heard() != before)


def rows(postroom: Postroom, *jobs: str) -> list[dict[str, Any]]:
    """What Flower shows of these newsletters."""
    answer = flower(postroom, "/api/tasks", auth=login(postroom), params={"limit": 10_000})
    tasks: dict[str, dict[str, Any]] = answer.json() if answer.ok else {}
    return [task for task in tasks.values() if any(job in str(task["args"]) for job in jobs)]


def test_flower_wants_its_password_and_knows_the_tasks_after_a_kill(postroom: Postroom) -> None:
    wait_until_flower_listens(postroom)
    for path in ("/", "/tasks", "/api/tasks", "/api/workers"):
        assert flower(postroom, path).status_code == 401, path
        assert flower(postroom, path, auth=("postroom", "postroom")).status_code == 401, path
    assert len(login(postroom)[1]) >= 16

    job = postroom.send()
    wait_until(lambda: [row["state"] for row in rows(postroom, job)] == ["SUCCESS"])
    assert rows(postroom, job)[0]["name"] == "newsletter"
    assert not any(address in json.dumps(rows(postroom, job)) for address in RECIPIENTS)
    begun = time.time()

    def saved() -> bool:
        """Written under another name, then put in the place of the last one."""
        files = [path for path in postroom.data.glob("flower*") if path.suffix != ".log"]
        times = [path.stat().st_mtime for path in files if ".tmp" not in path.suffixes]
        return bool(times) and min(times) > begun

    wait_until(saved)
    old = login(postroom)
    postroom.signal("flower", signal.SIGKILL)
    postroom.processes["flower"].wait(10)
    postroom.start("flower")
    wait_until(lambda: login(postroom) != old and flower_answers(postroom))
    wait_until(lambda: len(rows(postroom, job)) == 1)


@contextmanager
def mail_slots(postroom: Postroom, count: int) -> Iterator[None]:
    """For a while the mail worker has more than one slot."""

    def restart(count: int) -> None:
        postroom.signal("mail", signal.SIGTERM)
        postroom.processes["mail"].wait(30)
        postroom.environment["MAIL_SLOTS"] = str(count)
        postroom.start("mail")
        wait_until(lambda: is_open(postroom.metrics_ports["mail"]))

    restart(count)
    try:
        yield
    finally:
        restart(1)


def test_flower_shows_the_start_and_the_end_of_each_of_many_newsletters(
    postroom: Postroom,
) -> None:
    wait_until_flower_listens(postroom)
    with mail_slots(postroom, 16):
        jobs = [postroom.send(LETTER | {"recipients": RECIPIENTS[:1]}) for _ in range(40)]
        for job in jobs:
            assert postroom.finish(job)["state"] == "SUCCESS"

        def complete() -> bool:
            shown = rows(postroom, *jobs)
            well = [row for row in shown if row["state"] == "SUCCESS" and row["started"]]
            return len(shown) == len(well) == len(jobs) and all(row["received"] for row in shown)

        wait_until(complete, timeout=20)


class Wire:
    """In the place of Redis: what is published, and what happens while it is."""

    def __init__(self, *meanwhile: Callable[[], None]) -> None:
        self.meanwhile = list(meanwhile)
        self.published: list[str] = []

    def publish(self, events: list[dict[str, Any]], **_: Any) -> None:
        sent = [event["type"] for event in events]
        if self.meanwhile:
            self.meanwhile.pop(0)()
        self.published += sent


def test_an_event_that_comes_while_others_are_published_is_published_next() -> None:
    dispatcher = celery.events.Dispatcher(celery.connection_for_write(), buffer_group=["task"])

    def another_slot() -> None:
        thread = threading.Thread(target=dispatcher.send, args=("task-succeeded",))
        thread.start()
        thread.join(10)
        assert not thread.is_alive()  # a slot does not wait for Redis

    dispatcher.producer = wire = Wire(another_slot)
    dispatcher.send("task-started")
    dispatcher.flush()
    assert wire.published == ["task-started"]
    dispatcher.flush()
    assert wire.published == ["task-started", "task-succeeded"]


def test_an_event_that_could_not_be_published_is_published_next() -> None:
    dispatcher = celery.events.Dispatcher(celery.connection_for_write(), buffer_group=["task"])

    def redis_is_away() -> None:
        raise ConnectionError

    dispatcher.producer = wire = Wire(redis_is_away)
    dispatcher.send("task-started")
    dispatcher.flush()
    assert wire.published == []
    dispatcher.flush()
    assert wire.published == ["task-started"]


@contextmanager
def lone_flower(postroom: Postroom, data: Path) -> Iterator[tuple[str, str]]:
    """A Flower beside a database of Redis that nobody else uses; gives its URL and that broker's.

    Its name and password are `me` and `secret`.
    """
    (port,) = free_ports(1)
    broker = f"redis://127.0.0.1:{postroom.environment['REDIS_PORT']}/1"
    settings = {"FLOWER_PORT": str(port), "FLOWER_BASIC_AUTH": "me:secret"}
    settings |= {"REDIS_URL": broker, "DATA": str(data)}
    command = [sys.executable, "flower_server.py"]
    with subprocess.Popen(command, cwd=HERE, env=postroom.environment | settings) as process:
        try:
            wait_until(lambda: is_open(port))
            yield f"http://127.0.0.1:{port}", broker
        finally:
            process.kill()


def test_flower_forgets_the_oldest_of_too_many_tasks(postroom: Postroom, tmp_path: Path) -> None:
    too_many = flower_server.MOST_TASKS + 500
    with lone_flower(postroom, tmp_path) as (url, broker), Celery(broker=broker) as theirs:
        lists = {"buffer_group": ["task"], "buffer_limit": 1000}
        dispatcher = theirs.events.Dispatcher(theirs.connection_for_write(), "made@up", **lists)

        def get(path: str) -> requests.Response:
            return requests.get(url + path, auth=("me", "secret"), timeout=30)

        def listens() -> bool:
            dispatcher.send("worker-heartbeat")
            return len(get("/workers?json=1").json()["data"]) == 1

        wait_until(listens)
        for n in range(too_many):
            dispatcher.send("task-received", uuid=f"task-{n}", name="made up")
        dispatcher.flush()
        wait_until(lambda: get(f"/api/task/info/task-{too_many - 1}").ok)
        assert get("/api/task/info/task-0").status_code == 404
        assert len(get("/api/tasks?limit=10000").json()) == flower_server.MOST_TASKS


def test_flower_says_what_goes_wrong(postroom: Postroom) -> None:
    wait_until(lambda: flower_answers(postroom))
    asked = {"refresh": "1", "workername": "nobody"}
    flower(postroom, "/api/workers", auth=login(postroom), params=asked)
    log = postroom.data / "flower.log"
    wait_until(lambda: "Inspect method stats failed" in log.read_text())


def test_flower_listens_on_this_machine_only_and_hides_its_password(postroom: Postroom) -> None:
    wait_until(lambda: flower_answers(postroom))
    process = psutil.Process(postroom.processes["flower"].pid)
    listening = {c.laddr.ip for c in process.net_connections() if c.status == "LISTEN"}
    assert listening == {"127.0.0.1"}
    assert login(postroom)[1] not in " ".join(process.cmdline())


# --- Keep it standing -----------------------------------------------------------------


def test_waits_double_up_to_a_bound_and_no_two_are_alike() -> None:
    """RETRY_AFTER is 2 s where nobody says otherwise."""
    for tries, most in [(0, 2), (1, 2), (2, 4), (3, 8), (4, 8), (50, 8)]:
        waits = [tasks.backoff(tries) for _ in range(200)]
        assert most / 2 <= min(waits) < 0.6 * most
        assert 0.9 * most < max(waits) <= most
        assert len(set(waits)) == 200
    visibility: float = celery.conf.broker_transport_options["visibility_timeout"]
    assert visibility > times.LONGEST_RETRY


@pytest.mark.usefixtures("no_second_look")
def test_a_retry_says_when(postroom: Postroom) -> None:
    before = scrape(postroom, "mail")
    client = socketio_client.SimpleClient()
    client.connect(postroom.url, transports=["websocket"])
    postroom.faults(silent=True, drop_every=1)
    job = postroom.send()
    client.call("watch", {"job": job})
    postroom.faults(silent=False)
    told: list[dict[str, Any]] = []
    while not told or told[-1]["state"] not in ENDED:
        told.append(client.receive(timeout=20)[1])
    client.disconnect()
    tries = [event for event in told if event["state"] == "RETRY"]
    assert all("0 of 3 mails" in event["error"] for event in tries)
    waits = [event["retry_at"] - event["at"] for event in tries]
    assert len(waits) == 5
    assert all(wait <= 0.1 * 2**n for n, wait in enumerate(waits)), waits
    assert waits[-1] > waits[0]  # 0.1 s, then twice as much, and again
    begun = [event["at"] for event in told if event["state"] == "STARTED"][-len(tries) :]
    assert all(at > event["retry_at"] for at, event in zip(begun, tries, strict=True))
    assert postroom.look_up(job)["retry_at"] is None
    assert grown(postroom, "mail", before, "postroom_retries_total", "newsletter") == 5
    assert grown(postroom, "mail", before, "postroom_task_wait_seconds_count", "newsletter") == 1


def test_what_cannot_pass_is_not_tried_again(postroom: Postroom) -> None:
    before = scrape(postroom, "mail")
    postroom.faults(refuse_addresses=RECIPIENTS)
    job = postroom.finish(postroom.send())
    assert (job["state"], job["result"]["refused"]) == ("SUCCESS", 3)
    assert grown(postroom, "mail", before, "postroom_retries_total", "newsletter") == 0


@pytest.mark.usefixtures("no_second_look")
def test_a_dead_letter_has_its_reason_and_is_replayed_without_a_second_mail(
    postroom: Postroom,
) -> None:
    before = scrape(postroom, "mail")
    job = fail(postroom)
    letter = dead(postroom)[job]
    failed = ("postroom_task_run_seconds_count", "newsletter", "FAILURE")
    wait_until(lambda: grown(postroom, "mail", before, *failed) == 1)  # for Celery too
    assert "mails were sent" in letter["error"]
    assert "MailServerAway" in letter["trace"]
    assert abs(letter["given_up_at"] - time.time()) < 30
    for key in (f"job:{job}", f"job:{job}:input", f"job:{job}:ledger"):
        assert postroom.redis.ttl(key) == -1, key  # kept until somebody decides
    assert scrape(postroom)[("postroom_dead_letters",)] == len(dead(postroom))
    postroom.faults(drop_every=0)
    postroom.redis.hset(f"job:{job}", "cancelled", "1")  # too late then, and void now
    answer = postroom.post(f"/dead-letters/{job}/replay", None)
    assert answer.headers["X-Request-ID"] != postroom.redis.hget(f"job:{job}", "correlation")
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/jobs/{job}")
    assert answer.json()["state"] == "PENDING"
    assert postroom.post(f"/dead-letters/{job}/replay", None).status_code == 404
    document = postroom.finish(job)
    assert (document["state"], document["error"]) == ("SUCCESS", None)
    assert sorted(postroom.mails(job)) == sorted(MANY)
    assert job not in dead(postroom)
    assert 0 < postroom.redis.ttl(f"job:{job}") <= 3600


def test_a_discarded_dead_letter_is_gone_and_its_record_expires(postroom: Postroom) -> None:
    job = fail(postroom)
    url = f"{postroom.url}/dead-letters/{job}"
    assert requests.delete(url, timeout=10).status_code == 204
    assert requests.delete(url, timeout=10).status_code == 404
    assert job not in dead(postroom)
    assert postroom.look_up(job)["state"] == "FAILURE"
    assert 0 < postroom.redis.ttl(f"job:{job}") <= 3600
    assert not postroom.redis.exists(f"job:{job}:input")


def test_all_dead_letters_at_once(postroom: Postroom) -> None:
    requests.delete(f"{postroom.url}/dead-letters", timeout=10)
    assert dead(postroom) == {}
    kept = [fail(postroom), fail(postroom)]
    assert list(dead(postroom)) == kept[::-1]  # newest first
    postroom.faults(drop_every=0)
    replayed = postroom.post("/dead-letters/replay", None)
    assert (replayed.status_code, [job["id"] for job in replayed.json()]) == (202, kept)
    for job in kept:
        assert postroom.finish(job)["state"] == "SUCCESS"
        assert len(postroom.mails(job)) == len(MANY)


def test_dead_letters_do_not_pile_up_for_ever(postroom: Postroom) -> None:
    oldest = {f"old-{n}": n for n in range(10)}
    postroom.redis.zadd("dead", oldest)
    kept = fail(postroom)
    wait_until(lambda: postroom.redis.zcard("dead") == 8)
    assert postroom.redis.zrevrange("dead", 0, 0) == [kept]
    assert not postroom.redis.zscore("dead", "old-0")
    requests.delete(f"{postroom.url}/dead-letters", timeout=10)


def test_an_upload_of_a_dead_letter_is_kept_for_its_replay(postroom: Postroom) -> None:
    postroom.signal("report", signal.SIGSTOP)
    log = (b'192.0.2.1 - - [02/Nov/2026:09:00:00 +0000] "GET / HTTP/1.1" 200 1\n') * 5
    answer = requests.post(f"{postroom.url}/reports", files={"log": ("a.log", log)}, timeout=10)
    job = answer.json()["id"]
    postroom.redis.hset(f"job:{job}", "attempts", 6)
    postroom.signal("report", signal.SIGCONT)
    assert postroom.finish(job)["state"] == "FAILURE"
    assert "workers died" in dead(postroom)[job]["error"]
    uploads = postroom.data / "uploads"

    def old_files_are_forgotten() -> None:
        (uploads / "forgotten.log").touch()
        os.utime(uploads / "forgotten.log", (1, 1))
        wait_until(lambda: not (uploads / "forgotten.log").exists())

    os.utime(uploads / f"{job}.log", (1, 1))  # as if it had been dead for longer than JOB_TTL
    old_files_are_forgotten()
    postroom.signal("report", signal.SIGSTOP)
    assert postroom.post(f"/dead-letters/{job}/replay", None).status_code == 202
    old_files_are_forgotten()
    postroom.signal("report", signal.SIGCONT)
    assert postroom.finish(job)["result"]["lines"] == 5
    wait_until(lambda: not list((postroom.data / "uploads").glob(f"{job}*")))


def test_a_discarded_report_leaves_no_file(postroom: Postroom) -> None:
    postroom.signal("report", signal.SIGSTOP)
    files = {"log": ("a.log", b"no line of a log\n")}
    job = requests.post(f"{postroom.url}/reports", files=files, timeout=10).json()["id"]
    postroom.redis.hset(f"job:{job}", "attempts", 6)
    postroom.signal("report", signal.SIGCONT)
    assert postroom.finish(job)["state"] == "FAILURE"
    path = postroom.data / "uploads" / f"{job}.log"
    assert path.exists()
    requests.delete(f"{postroom.url}/dead-letters/{job}", timeout=10)
    assert not path.exists()


def test_a_task_that_kills_its_worker_again_and_again_is_stopped(postroom: Postroom) -> None:
    """The poison is in the test: whoever begins this report is killed."""
    job = postroom.post("/reports", {"lines": 5_000_000}).json()["id"]
    record, seen = f"job:{job}", [0]

    def attempts() -> int:
        return int(postroom.redis.hget(record, "attempts") or 0)

    def given_up() -> bool:
        if seen[-1] < (tried := attempts()) <= 6:  # the seventh only says so: it may live
            seen.append(tried)
            for child in psutil.Process(postroom.processes["report"].pid).children():
                child.kill()
        return postroom.look_up(job)["state"] in ENDED

    wait_until(lambda: attempts() == 1)
    postroom.redis.hset(record, "attempts", 4)  # as if three more had died: to save time
    wait_until(given_up, timeout=60)
    assert postroom.look_up(job)["error"] == "Given up: 6 workers died of this job."
    assert seen == [0, 4, 5, 6]
    assert attempts() == 7
    assert job in dead(postroom)
    requests.delete(f"{postroom.url}/dead-letters/{job}", timeout=10)


def test_a_report_at_its_soft_limit_tidies_up(postroom: Postroom) -> None:
    job = postroom.finish(postroom.post("/reports", {"lines": 10_000_000}).json()["id"])
    assert (job["state"], job["error"]) == ("FAILURE", "Stopped: it took longer than 6 s.")
    assert 0 < job["done"] < job["total"]
    assert "SoftTimeLimitExceeded" in dead(postroom)[job["id"]]["trace"]
    assert any("Soft time limit (6.0s)" in line["event"] for line in lines(postroom, "report"))
    requests.delete(f"{postroom.url}/dead-letters/{job['id']}", timeout=10)


def test_a_report_that_does_not_obey_is_killed_at_its_hard_limit(postroom: Postroom) -> None:
    """A frozen process cannot hear of the soft limit. Its job is begun again by another.

    The report is short, so that the second attempt keeps the limit on a slow machine too.
    """
    frozen = psutil.Process(postroom.processes["report"].pid).children()
    begun: list[str] = []

    def frozen_in_the_middle() -> bool:
        for child in frozen:
            child.resume()
        begun.append(postroom.post("/reports", {"lines": 20_000}).json()["id"])
        wait_until(lambda: postroom.look_up(begun[-1])["state"] != "PENDING")
        for child in frozen:
            child.suspend()
        return postroom.look_up(begun[-1])["state"] not in ENDED

    wait_until(frozen_in_the_middle)
    job = begun[-1]
    wait_until(lambda: not all(child.is_running() for child in frozen), timeout=20)
    for child in frozen:
        if child.is_running():
            child.resume()
    ended = postroom.finish(job)
    assert ended["state"] == "SUCCESS", ended


@pytest.mark.parametrize("kind", ["newsletter", "report"])
def test_a_task_looks_at_the_clock_itself(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can interrupt a thread; and Celery's exception may be caught by a library."""
    taken: list[str] = []

    def steps() -> Iterator[work.Step]:
        for n in range(1, 100):
            taken.append("step")
            yield work.Step(n, 100, None)

    monkeypatch.setattr(jobs, "save", lambda *_: False)
    monkeypatch.setattr(events, "push", lambda *_: None)
    clock = SimpleNamespace(monotonic=lambda: len(taken))  # each step takes a second
    monkeypatch.setattr(tasks, "time", clock)
    with pytest.raises(SoftTimeLimitExceeded):
        tasks.drain(jobs.Job("id", kind), steps(), "token", limit=10)
    assert len(taken) == 11


def test_the_procfile_names_a_queue_for_every_route() -> None:
    """A queue that nobody consumes keeps its tasks for ever."""
    procfile = (HERE / "Procfile").read_text()
    consumed = set(",".join(re.findall(r"--queues (\S+)", procfile)).split(","))
    routed = {route["queue"] for route in celery.conf.task_routes.values()}
    assert routed | {celery.conf.task_default_queue} == consumed == set(QUEUES)
