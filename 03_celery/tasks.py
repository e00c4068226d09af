"""The tasks, and what keeps them safe. Workers and beat load this file; the web process does not.

The web process sends a task by its name. So nothing here is imported in a circle, and no task
needs the Flask application or its context.
"""

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from celery import Task
from celery.exceptions import Reject
from celery.schedules import crontab
from celery.signals import worker_shutting_down
from flask_socketio import SocketIO

import add  # noqa: F401  (its task must be known here, or: "Received unregistered task")
import events
import jobs
import lease
import work
from celery_app import celery
from contract import Report
from redis_server import DATA, REDIS_URL
from samples import sample_log
from times import LEASE, RETRY_AFTER, SOFT_SHUTDOWN, VISIBILITY_TIMEOUT

PUSH_INTERVAL = 0.1  # seconds: at most ten events a second for one job
MOST_ATTEMPTS = 5  # in a row that got the job no further
LOOK_EVERY = float(os.environ.get("LOOK_EVERY", "5"))  # seconds

celery.conf.update(
    # A message is acknowledged when its task has ended, not when it starts: what a killed
    # worker had in its hands comes back.
    task_acks_late=True,
    task_reject_on_worker_lost=True,  # at once, if only a process of the pool was killed
    worker_prefetch_multiplier=1,  # and no worker holds more than it can work on
    # Redis does not notice that a worker is gone. So what is not acknowledged in time is
    # delivered again, also if it is only slow: the lease keeps the copy waiting.
    broker_transport_options={
        "visibility_timeout": VISIBILITY_TIMEOUT,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        # One worker at a time looks for such messages. If it dies just then, another may after 5 s.
        "unacked_mutex_expire": 5,
    },
    worker_soft_shutdown_timeout=SOFT_SHUTDOWN,
    # A worker has time: it waits for Redis to come back.
    task_publish_retry=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    redis_socket_connect_timeout=10,
    redis_socket_timeout=10,
    result_backend_transport_options={},
    beat_schedule={
        "look after jobs": {
            "task": "look_after_jobs",
            "schedule": LOOK_EVERY,
            "options": {"expires": LOOK_EVERY},
        },
        "nightly report": {"task": "nightly_report", "schedule": crontab(hour="3", minute="0")},
    },
    beat_schedule_filename=str(DATA / "beat"),
)
DATA.mkdir(parents=True, exist_ok=True)
jobs.store = jobs.connect(timeout=10, tries=60)
outside = SocketIO(message_queue=REDIS_URL)  # it only writes; the web process reads and delivers
stopping = threading.Event()
log = logging.getLogger(__name__)


def is_news(record: logging.LogRecord) -> bool:
    """Whether a line is for people: what runs every five seconds would drown the rest."""
    return record.levelno > logging.INFO or "look_after_jobs" not in record.getMessage()


for name in ("celery.worker.strategy", "celery.app.trace"):
    logging.getLogger(name).addFilter(is_news)


class TryAgain(Exception):
    """The job could not be finished now, and may be later."""


@worker_shutting_down.connect
def stop(**_: Any) -> None:
    stopping.set()


# No end of retries for Celery (its default is three): `run` counts, and starts anew with each
# mail that got through.
@celery.task(bind=True, name="newsletter", max_retries=None)
def newsletter(task: Task, job_id: str) -> None:
    run(task, job_id, newsletter_steps)


@celery.task(bind=True, name="report", max_retries=None)
def report(task: Task, job_id: str) -> None:
    run(task, job_id, report_steps)


def newsletter_steps(job: jobs.Job, last_attempt: bool) -> Iterator[work.Step]:
    """Mail to everybody whom the ledger does not have yet, and note each answer in it."""
    letter, ledger = jobs.task_input(job), jobs.ledger(job)
    result: dict[str, Any] = {"sent": 0, "refused": 0, "refusals": []}
    for recipient, refused in ledger.items():
        count(result, recipient, refused)
    left = [recipient for recipient in letter["recipients"] if recipient not in ledger]
    done, put_off = len(ledger), 0
    try:
        for step in work.send_newsletter(job.id, letter["subject"], letter["body"], left):
            if step.refused and step.refused[0] < 500 and not last_attempt:
                put_off += 1  # 4xx: refused for now
            elif step.recipient:
                jobs.note(job, step.recipient, step.refused)
                count(result, step.recipient, step.refused)
                done += 1
            yield work.Step(done, job.total, result, step.recipient, step.refused)
    except work.MailServerAway as error:
        away = work.MailServerAway(result["sent"], job.total, error.__cause__)
        raise TryAgain(str(away)) from error
    if put_off:
        raise TryAgain(f"The mail server put off {put_off} of {job.total} mails.")


def count(result: dict[str, Any], recipient: str, refused: tuple[int, str] | None) -> None:
    if refused is None:
        result["sent"] += 1
        return
    result["refused"] += 1
    if len(result["refusals"]) < 20:
        code, reason = refused
        result["refusals"].append({"recipient": recipient, "code": code, "reason": reason})


def report_steps(job: jobs.Job, last_attempt: bool) -> Iterator[work.Step]:
    wanted = jobs.task_input(job)
    if wanted["log"] is None:
        yield from work.analyse_log(sample_log(wanted["lines"]), job.total)
        return
    with open(wanted["log"], "rb") as upload:
        yield from work.analyse_log(work.read_lines(upload), job.total)


def run(task: Task, job_id: str, steps: Callable[[jobs.Job, bool], Iterator[work.Step]]) -> None:
    """Run a job to its end, unless it has ended, or another worker is on it."""
    token = secrets.token_hex(8)
    with lease.take(job_id, token) as mine:
        if not mine:  # or the one who was is dead: then its lease has run out by then
            raise task.retry(countdown=LEASE)
        job, attempt = jobs.begin(job_id, token)
        if job is None:
            return
        try:
            if attempt > MOST_ATTEMPTS:
                raise RuntimeError(f"Given up: {MOST_ATTEMPTS} workers died of this job.")
            job.state = drain(job, steps(job, attempt == MOST_ATTEMPTS), token)
        except (jobs.LeaseLost, Reject):
            raise
        except TryAgain as error:
            job.state = "RETRY" if jobs.attempts(job) < MOST_ATTEMPTS else "FAILURE"
            job.error = str(error)
        except Exception as error:
            log.exception("Job %s failed", job.id)
            job.state, job.error = "FAILURE", str(error)
        jobs.save(job, token)
        events.push(job, outside)
    if job.state == "RETRY":
        raise task.retry(countdown=RETRY_AFTER)


def drain(job: jobs.Job, steps: Iterator[work.Step], token: str) -> str:
    """Take step after step; store how far the job is, then push it. Returns how it ended.

    Every mail is stored, and ten times a second the step of a report.
    """
    job.state, job.error = "STARTED", None
    cancelled = jobs.save(job, token)
    events.push(job, outside)
    pushed = time.monotonic()
    while not cancelled:
        if stopping.is_set():
            raise Reject("This worker is told to stop.", requeue=True)
        step = next(steps, None)
        if step is None:
            return "SUCCESS"
        job.state, job.done, job.result = "PROGRESS", step.done, step.result
        due = time.monotonic() - pushed >= PUSH_INTERVAL
        if due or step.recipient:
            cancelled = jobs.save(job, token)
        if due:
            events.push(job, outside)
            pushed = time.monotonic()
    return "REVOKED"


@celery.task(name="look_after_jobs")
def look_after_jobs() -> None:
    """Send the jobs whose start has come, and those whose message was lost."""
    for job in jobs.to_look_after():
        jobs.send(job)
    jobs.forget_old_uploads()


@celery.task(name="nightly_report")
def nightly_report() -> None:
    jobs.start_report(Report(lines=300_000))
