"""What this chapter adds: long newsletters in batches, bounded queues, several web processes."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import socketio
from celery import Celery
from celery.exceptions import Reject
from werkzeug.exceptions import TooManyRequests

import events
import jobs
import lease
import mailserver
import queues
import redis_server
import tasks
import work
from test_chapter import ENDED, LETTER, Postroom, hold, no_second_look, wait_until
from test_chapter import letter_to as letter
from test_monitoring import grown, lines, scrape

__all__ = ["no_second_look"]  # a fixture, which this file has its tests use
BATCH = 5


@pytest.fixture(scope="module")
def spreading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postroom]:
    more: dict[str, Any] = {"BATCH": BATCH, "MAIL_SLOTS": 2, "LONGEST_WAIT": 3, "WORKERS": 2}
    postroom = Postroom(tmp_path_factory.mktemp("data"), **more, REPORT_LIMIT=60)
    wait_until(lambda: is_at_rest(postroom))
    yield postroom
    postroom.stop()


@pytest.fixture
def postroom(spreading: Postroom) -> Iterator[Postroom]:
    yield spreading
    requests.delete(f"{spreading.door}/faults", timeout=10)
    # What a killed worker had in its hands comes back later: not into the next test.
    wait_until(lambda: is_at_rest(spreading))


def is_at_rest(postroom: Postroom) -> bool:
    """Looked at at once: a message on its way to a worker is in no list, its job is still open."""
    with postroom.redis.pipeline() as look:
        look.zcard("jobs:open")
        look.hlen("unacked")
        look.llen("mail")
        look.llen("bulk")
        return not any(look.execute())


def depth(postroom: Postroom, queue: str) -> int:
    """Tasks of jobs in a queue: canaries do not count."""
    messages = (json.loads(text) for text in postroom.redis.lrange(queue, 0, -1))
    return sum(
        message["headers"]["task"] not in ("canary", "look_after_jobs") for message in messages
    )


# --- Batches --------------------------------------------------------------------------


def ended(postroom: Postroom, job: str, task: str) -> int:
    """How often this job's task has ended, by the log. The metrics tell no job from another: they
    count the batches of an earlier one, too, that come back from a killed worker."""
    return sum(
        line.get("job") == job and line.get("task") == task and " succeeded in " in line["event"]
        for line in lines(postroom, "mail")
    )


def test_a_long_newsletter_is_sent_in_batches_and_ends_once(postroom: Postroom) -> None:
    client = socketio.SimpleClient()
    client.connect(postroom.url, transports=["websocket"])
    postroom.faults(delay=0.1)
    begun = time.monotonic()
    job = postroom.send(letter(22))
    client.call("watch", {"job": job})
    told: list[dict[str, Any]] = []
    while not told or told[-1]["state"] not in ENDED:
        told.append(client.receive(timeout=20)[1])
    seconds = time.monotonic() - begun
    client.disconnect()
    document = postroom.look_up(job)
    assert (document["state"], document["done"], document["total"]) == ("SUCCESS", 22, 22)
    assert document["result"] == {"sent": 22, "refused": 0, "refusals": []}
    assert sorted(postroom.mails(job)) == sorted(letter(22)["recipients"])
    wait_until(lambda: ended(postroom, job, "batch") == 5)  # 5, 5, 5, 5 and 2 mails
    assert [event["state"] for event in told].count("SUCCESS") == 1
    done = [event["done"] for event in told]
    assert done == sorted(done)
    assert len(told) <= 10 * seconds + 4  # ten a second, and the start and the end
    assert len({number for number in done if 0 < number < 22}) >= 3  # and some in between


@pytest.mark.usefixtures("no_second_look")
@pytest.mark.parametrize("first", [25, 23, 0])
def test_of_a_long_newsletter_everybody_gets_one_mail_and_the_job_counts_them(
    postroom: Postroom, first: int
) -> None:
    """From the `first` recipient on, they are refused; twenty of those are named."""
    before = scrape(postroom, "mail")
    taken, refused = letter(25)["recipients"][:first], letter(25)["recipients"][first:]
    postroom.faults(delay=0, refuse_addresses=refused)
    job = postroom.finish(postroom.send(letter(25)))
    assert sorted(postroom.mails(job["id"])) == sorted(taken)
    assert (job["state"], job["done"], job["total"]) == ("SUCCESS", 25, 25)
    assert (job["result"]["sent"], job["result"]["refused"]) == (len(taken), len(refused))
    named = {each["recipient"] for each in job["result"]["refusals"]}
    assert named <= set(refused)
    assert len(named) == len(job["result"]["refusals"]) == min(20, len(refused))
    assert grown(postroom, "mail", before, "postroom_mails_total", "taken") == len(taken)
    assert grown(postroom, "mail", before, "postroom_mails_total", "550") == len(refused)


def test_a_long_newsletter_says_how_far_it_is_and_all_that_names_it_expires(
    postroom: Postroom,
) -> None:
    job = postroom.send(letter(40))
    hold(postroom, job, mails=3)
    wait_until(lambda: postroom.look_up(job)["done"] == len(postroom.mails(job)), timeout=10)
    document = postroom.look_up(job)
    assert (document["state"], document["total"]) == ("PROGRESS", 40)
    assert 3 <= document["done"] < 40
    assert set(postroom.redis.hkeys(f"job:{job}:ledger")) == set(postroom.mails(job))
    keys = set(postroom.redis.scan_iter(f"job:{job}*"))
    assert keys >= {f"job:{job}{more}" for more in ("", ":input", ":ledger", ":batches")}
    assert any(key.endswith(":lease") for key in keys)
    for key in keys:
        assert postroom.redis.ttl(key) in (-2, *range(3601)), key  # -2: just gone
    postroom.faults(silent=False, delay=0)
    assert postroom.finish(job)["done"] == 40


def test_a_short_one_is_not_spread(postroom: Postroom) -> None:
    job = postroom.send(letter(BATCH))
    assert postroom.finish(job)["state"] == "SUCCESS"
    wait_until(lambda: ended(postroom, job, "newsletter") == 1)
    assert ended(postroom, job, "batch") == 0


def test_a_short_newsletter_passes_by_the_batches_of_a_long_one(postroom: Postroom) -> None:
    postroom.faults(delay=0.1)
    long = postroom.send(letter(60))
    wait_until(lambda: postroom.look_up(long)["done"] > 0)
    short = postroom.send()
    for job in (short, long):
        assert postroom.finish(job)["state"] == "SUCCESS"
    assert max(postroom.received(short)) < max(postroom.received(long))


@pytest.mark.parametrize("moment", [1, 13, 29])
def test_a_killed_worker_loses_no_batch_and_sends_none_twice(
    postroom: Postroom, moment: int
) -> None:
    postroom.faults(delay=0.1)
    job = postroom.send(letter(30))
    wait_until(lambda: len(postroom.mails(job)) >= moment)
    postroom.signal("mail", signal.SIGKILL)
    postroom.start("mail")
    document = postroom.finish(job)
    assert (document["state"], document["result"]["sent"]) == ("SUCCESS", 30)
    assert set(postroom.mails(job)) == set(letter(30)["recipients"])
    assert len(postroom.mails(job)) <= 32  # in each slot, one between a mail and its note


def test_the_last_mails_of_a_long_newsletter_are_sent_in_batches_too(postroom: Postroom) -> None:
    """Else a batch that comes back from a dead worker would send them at the same time."""
    postroom.faults(refuse_every=12)  # for now: the last of the first round
    job = postroom.send(letter(12))
    assert postroom.finish(job)["result"]["sent"] == 12
    wait_until(lambda: ended(postroom, job, "batch") == 3 + 1)


def test_a_newsletter_stores_how_far_it_is_before_its_batches_count_further(
    postroom: Postroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spread(*_: Any) -> str:
        raise tasks.Spread([])

    order: list[str] = []
    job = jobs.Job("another-job-of-this-test", "newsletter", total=20)
    monkeypatch.setattr(jobs, "store", postroom.redis)
    monkeypatch.setattr(jobs, "begin", lambda *_: (job, 1))
    monkeypatch.setattr(jobs, "save", lambda *_: order.append("stored"))
    monkeypatch.setattr(tasks, "drain", spread)
    monkeypatch.setattr(tasks, "chord", lambda _: lambda _: order.append("sent"))
    tasks.run(tasks.newsletter, job.id, tasks.newsletter_steps, 60)
    assert order == ["stored", "sent"]


@pytest.mark.usefixtures("no_second_look")
def test_what_is_refused_for_now_is_sent_in_the_next_round(postroom: Postroom) -> None:
    postroom.faults(refuse_every=4, refuse_addresses=["reader3@example.com"])
    document = postroom.finish(postroom.send(letter(24)))
    assert document["state"] == "SUCCESS"
    assert (document["result"]["sent"], document["result"]["refused"]) == (23, 1)
    assert document["result"]["refusals"][0]["recipient"] == "reader3@example.com"


def test_a_mail_server_that_stays_away_ends_a_long_newsletter_too(postroom: Postroom) -> None:
    before = scrape(postroom, "mail")
    postroom.faults(drop_every=1)
    job = postroom.send(letter(12))
    assert postroom.finish(job)["state"] == "FAILURE"
    # Six rounds: to have put batches into their queue is no attempt.
    assert grown(postroom, "mail", before, "postroom_retries_total", "newsletter") == 5
    assert "12 of 12" in postroom.look_up(job)["error"]
    postroom.faults(drop_every=0)
    assert postroom.post(f"/dead-letters/{job}/replay", {}).status_code == 202
    assert postroom.finish(job)["result"]["sent"] == 12


def test_a_cancelled_long_newsletter_stops_in_all_its_batches(postroom: Postroom) -> None:
    postroom.faults(delay=0.2)
    job = postroom.send(letter(40))
    wait_until(lambda: postroom.look_up(job)["done"] > 2)
    requests.delete(f"{postroom.url}/jobs/{job}", timeout=10)
    assert postroom.finish(job)["state"] == "REVOKED"
    sent = len(postroom.mails(job))
    wait_until(lambda: depth(postroom, "bulk") == 0)
    assert len(postroom.mails(job)) == sent < 40  # REVOKED means: not one more


def at_work(postroom: Postroom) -> list[int]:
    """The busy slots of each mail worker that answers. Two of them have the same name here."""
    with Celery(broker=f"redis://127.0.0.1:{postroom.environment['REDIS_PORT']}/0") as theirs:
        answers = theirs.control.broadcast("slots", reply=True, timeout=0.5) or []
    found = [item for answer in answers for item in answer.items()]
    return [told["busy"] for name, told in found if name.startswith("mail@")]


def test_a_worker_that_was_frozen_stops_after_the_mail_in_its_hands(postroom: Postroom) -> None:
    """The mail server takes each copy: what holds the others back is the token of the batch."""
    postroom.faults(delay=0.2)
    job = postroom.send(letter(20))
    wait_until(lambda: len(postroom.mails(job)) >= 3)
    postroom.signal("mail", signal.SIGSTOP)
    other = postroom.processes["mail"]
    postroom.start("mail")  # a second worker, while the first one sleeps
    try:
        assert postroom.finish(job)["result"]["sent"] == 20
        other.send_signal(signal.SIGCONT)
        wait_until(lambda: at_work(postroom) == [0, 0])
        assert set(postroom.mails(job)) == set(letter(20)["recipients"])
        assert len(postroom.mails(job)) <= 22  # one in each of its two slots
    finally:
        other.kill()
        other.wait(30)


@pytest.fixture
def batch_of_five(postroom: Postroom, monkeypatch: pytest.MonkeyPatch) -> Iterator[jobs.Job]:
    """A job whose first batch can be sent from here: `work.send_newsletter` is the test's."""
    monkeypatch.setattr(jobs, "store", postroom.redis)
    monkeypatch.setattr(tasks, "BATCH", 5)
    monkeypatch.setattr(events, "push", lambda *_: None)
    job = jobs.Job("a-batch-of-this-test", "newsletter", total=20)
    jobs.write_document(postroom.redis, job)
    postroom.redis.set(f"job:{job.id}:input", json.dumps(letter(20)))
    yield job
    postroom.redis.delete(*postroom.redis.scan_iter(f"job:{job.id}*"))


def sending(meanwhile: Callable[[], object]) -> Callable[..., Iterator[work.Step]]:
    """Sends like `work.send_newsletter`; something happens while the second mail is under way."""

    def send(job_id: str, subject: str, body: str, recipients: list[str]) -> Iterator[work.Step]:
        for done, recipient in enumerate(recipients, start=1):
            if done == 2:
                meanwhile()
            yield work.Step(done, len(recipients), None, recipient)

    return send


def ledger_after(job: jobs.Job, meanwhile: Callable[[], object]) -> list[str]:
    """Who is in the ledger after a batch in the middle of which something happened."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "send_newsletter", sending(meanwhile))
        tasks.send_batch(job, 0, "mine", last_attempt=False)
    return [recipient.partition("@")[0] for recipient in jobs.ledger(job)]


@pytest.mark.parametrize(("first", "sent"), [(0, 2), (5, 5)])
def test_a_batch_is_left_after_the_mail_in_hand_once_it_is_another_workers(
    batch_of_five: jobs.Job, first: int, sent: int
) -> None:
    ledger = ledger_after(batch_of_five, lambda: jobs.begin_batch(batch_of_five, first, "its"))
    assert ledger == [f"reader{n}" for n in range(sent)]


def test_a_batch_is_left_after_the_mail_in_hand_if_the_job_is_cancelled(
    batch_of_five: jobs.Job,
) -> None:
    record = f"job:{batch_of_five.id}"
    sent = ledger_after(batch_of_five, lambda: jobs.store.hset(record, "cancelled", "1"))
    assert sent == ["reader0", "reader1"]


def test_a_batch_is_given_back_after_the_mail_in_hand_if_the_worker_is_to_stop(
    batch_of_five: jobs.Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "stopping", threading.Event())
    with pytest.raises(Reject):
        ledger_after(batch_of_five, tasks.stopping.set)
    assert list(jobs.ledger(batch_of_five)) == ["reader0@example.com", "reader1@example.com"]


def test_one_of_several_batches_pushes_at_a_time(batch_of_five: jobs.Job) -> None:
    assert jobs.may_push(batch_of_five, 5.0)
    assert not jobs.may_push(batch_of_five, 5.0)
    assert 0 < jobs.store.pttl(f"job:{batch_of_five.id}:pushed") <= 5000


def test_a_batch_that_gets_on_puts_the_second_look_off(batch_of_five: jobs.Job) -> None:
    begun = time.time()
    jobs.store.zadd("jobs:open", {batch_of_five.id: 1})
    jobs.begin_batch(batch_of_five, 0, "mine")
    assert jobs.note_in_batch(batch_of_five, 0, "mine", "reader0@example.com", None)
    assert jobs.store.zscore("jobs:open", batch_of_five.id) >= begun + jobs.RESEND_AFTER
    jobs.store.zrem("jobs:open", batch_of_five.id)  # it has ended
    assert jobs.note_in_batch(batch_of_five, 0, "mine", "reader1@example.com", None)
    assert jobs.store.zscore("jobs:open", batch_of_five.id) is None


def test_a_batch_passes_by_whoever_has_an_answer(batch_of_five: jobs.Job) -> None:
    for n in (0, 3):
        jobs.note(batch_of_five, f"reader{n}@example.com", None)
    left: list[str] = []

    def send(job_id: str, subject: str, body: str, recipients: list[str]) -> Iterator[work.Step]:
        left.extend(recipients)
        yield from ()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "send_newsletter", send)
        tasks.send_batch(batch_of_five, 0, "mine", last_attempt=False)
    assert left == [f"reader{n}@example.com" for n in (1, 2, 4)]


def test_who_was_away_does_not_go_on_with_a_batch_that_another_has_done(
    postroom: Postroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is free by then, and whoever was away takes it again: so it proves nothing."""
    monkeypatch.setattr(jobs, "store", postroom.redis)
    job = jobs.Job("a-job-of-this-test", "newsletter", total=20)
    for first in (0, 5):
        jobs.begin_batch(job, first, "away")
    assert jobs.note_in_batch(job, 0, "away", "reader0@example.com", None)
    with lease.take(f"{job.id}:0", "other") as mine:
        assert mine
        jobs.begin_batch(job, 0, "other")
        assert jobs.note_in_batch(job, 0, "other", "reader1@example.com", None)
    with lease.take(f"{job.id}:0", "away") as mine:
        assert mine
        assert not jobs.note_in_batch(job, 0, "away", "reader1@example.com", None)
    assert jobs.note_in_batch(job, 5, "away", "reader5@example.com", None)
    assert set(jobs.ledger(job)) == {f"reader{n}@example.com" for n in (0, 1, 5)}


# --- A bounded queue ------------------------------------------------------------------


def test_a_short_newsletter_is_not_turned_away_while_all_slots_send_batches() -> None:
    """A slot is free again after one batch: that must be sooner than the bound."""
    assert tasks.BATCH * mailserver.Faults().delay <= queues.LONGEST_WAIT / 2


def test_a_full_queue_says_when_to_come_again_and_takes_nothing(postroom: Postroom) -> None:
    others = {job["id"] for job in postroom.get("/jobs").json()}
    postroom.faults(silent=True)
    taken = [postroom.send() for _ in range(3)]  # two in the slots, one in the queue
    wait_until(lambda: postroom.post("/newsletters", LETTER).status_code == 429, timeout=20)
    known = [job["id"] for job in postroom.get("/jobs").json()]
    answer = postroom.post("/newsletters", LETTER)
    assert answer.status_code == 429
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert 3 <= int(answer.headers["Retry-After"]) <= 60
    assert "mail" in answer.json()["detail"]
    assert [job["id"] for job in postroom.get("/jobs").json()] == known
    report = postroom.post("/reports", {"lines": 10})  # another queue, another bound
    assert report.status_code == 202
    postroom.faults(silent=False)
    for job in {*taken, *known} - others:
        assert postroom.finish(job)["state"] == "SUCCESS"
    # The canaries of all this time stand in the queue, and are old as well.
    wait_until(lambda: postroom.post("/newsletters", LETTER).status_code == 202)


def test_a_queue_may_also_be_too_deep(postroom: Postroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "store", postroom.redis)
    monkeypatch.setattr(queues, "MOST_WAITING", 3)
    queues.let_in("nobody reads this")
    for _ in range(3):
        postroom.redis.lpush("nobody reads this", json.dumps({"headers": {}}))
    with pytest.raises(TooManyRequests):
        queues.let_in("nobody reads this")
    postroom.redis.delete("nobody reads this")


@pytest.mark.parametrize(
    ("depth", "age", "seconds"),
    [(0, 0.0, None), (999, 3.9, None), (1000, 0.0, 1), (1, 4.0, 4), (5, 7.2, 8), (5, 41.0, 41)],
)
def test_the_time_to_come_again_is_what_the_first_has_waited(
    depth: int, age: float, seconds: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "look", lambda _: (depth, age))
    if seconds is None:
        queues.let_in("mail")
        return
    with pytest.raises(TooManyRequests) as refused:
        queues.let_in("mail")
    assert refused.value.retry_after == seconds


@pytest.mark.parametrize(
    ("kind", "spread", "queue"),
    [("newsletter", False, "mail"), ("newsletter", True, "bulk"), ("report", False, "reports")],
)
def test_a_job_is_in_line_where_its_tasks_are(
    kind: str, spread: bool, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = time.time() - 60
    monkeypatch.setattr(jobs, "sent", lambda _: (sent, spread))
    depths = {queue: (1, 61.0)}  # the first there has come before it
    monkeypatch.setattr(queues, "look", lambda name: depths.get(name, (0, 0.0)))
    assert queues.in_line(jobs.Job("a-job-of-this-test", kind))
    depths[queue] = (1, 50.0)  # and now after it
    assert not queues.in_line(jobs.Job("a-job-of-this-test", kind))


def test_a_task_that_is_still_in_line_is_not_sent_again(postroom: Postroom) -> None:
    """The second look comes after one second here, and the task waits for longer."""
    busy = [postroom.post("/reports", {"lines": 5_000_000}).json()["id"] for _ in range(2)]
    wait_until(lambda: all(postroom.look_up(job)["state"] == "PROGRESS" for job in busy))
    waiting = postroom.post("/reports", {"lines": 10}).json()["id"]
    looks = {postroom.redis.zscore("jobs:open", waiting)}

    def looked_at_twice() -> bool:
        looks.add(postroom.redis.zscore("jobs:open", waiting))
        return len(looks) > 2

    wait_until(looked_at_twice)  # with the second, the first is over
    # (Copies of the long ones may come meanwhile: they take longer than the visibility timeout.)
    assert sum(waiting in text for text in postroom.redis.lrange("reports", 0, -1)) == 1
    for job in busy:
        requests.delete(f"{postroom.url}/jobs/{job}", timeout=10)
    assert postroom.finish(waiting)["state"] == "SUCCESS"


# --- Several web processes ------------------------------------------------------------


def processes_with_clients(postroom: Postroom) -> int:
    web = psutil.Process(postroom.processes["web"].pid)
    port = int(postroom.environment["PORT"])
    return sum(
        any(each.laddr.port == port and each.status == "ESTABLISHED" for each in held)
        for held in (child.net_connections() for child in web.children())
    )


def test_rooms_work_behind_several_web_processes(postroom: Postroom) -> None:
    """Clients come until both processes have one; each of them is told of the end."""
    clients: list[socketio.SimpleClient] = []
    while processes_with_clients(postroom) < 2:
        assert len(clients) < 90
        clients.append(socketio.SimpleClient())
        clients[-1].connect(postroom.url, transports=["websocket"])
    postroom.faults(silent=True)
    job = postroom.send(letter(4))
    for client in clients:
        assert client.call("watch", {"job": job})["id"] == job
    postroom.faults(silent=False)
    for client in clients:
        event: dict[str, Any] = {"state": ""}
        while event["state"] != "SUCCESS":
            event = client.receive(timeout=20)[1]
        client.disconnect()


def test_polling_is_refused_where_it_could_not_work(postroom: Postroom) -> None:
    url = f"{postroom.url}/socket.io/?EIO=4&transport=polling"
    answers = [requests.get(url, timeout=10) for _ in range(4)]
    assert {answer.status_code for answer in answers} == {400}
    assert all("transport" in answer.text.lower() for answer in answers)


def test_nobody_else_may_read_the_password_of_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_server, "DATA", tmp_path)
    monkeypatch.setattr(redis_server, "REDIS_PASSWORD", 'pass "word"')
    command = " ".join(redis_server.command())
    assert "word" not in command  # which everybody may read
    secret = tmp_path / "redis.conf"
    assert str(secret) in command
    assert secret.read_text() == 'requirepass "pass \\"word\\""\n'
    assert secret.stat().st_mode & 0o077 == 0
