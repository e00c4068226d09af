"""The tasks, and what keeps them safe. Workers and beat load this file; the web process does not.

The web process sends a task by its name. So nothing here is imported in a circle, and no task
needs the Flask application or its context.
"""

import logging
import os
import random
import secrets
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from celery import Task, chord
from celery.canvas import Signature
from celery.exceptions import Reject, SoftTimeLimitExceeded
from celery.schedules import crontab
from celery.signals import worker_shutting_down
from flask_socketio import SocketIO
from structlog.contextvars import bind_contextvars, bound_contextvars

import add  # noqa: F401  (its task must be known here, or: "Received unregistered task")
import dead_letters
import events
import jobs
import lease
import logs  # noqa: F401  (a worker's log lines are JSON)
import metrics
import queues
import watching  # noqa: F401  (a worker's metrics)
import work
from celery_app import LOOK_EVERY, QUEUES, celery
from contract import Report
from redis_server import DATA, REDIS_URL
from samples import sample_log
from times import LEASE, LONGEST_RETRY, RETRY_AFTER, SOFT_SHUTDOWN, VISIBILITY_TIMEOUT

PUSH_INTERVAL = 0.1  # seconds: at most ten events a second for one job
BATCH = int(os.environ.get("BATCH", "10"))  # mails; a longer newsletter is spread over the slots
MOST_ATTEMPTS = 6  # in a row that got the job no further
NEWSLETTER_LIMIT = float(os.environ.get("NEWSLETTER_LIMIT", "3600"))  # seconds
REPORT_LIMIT = float(os.environ.get("REPORT_LIMIT", "300"))  # seconds
TO_TIDY_UP = float(os.environ.get("TO_TIDY_UP", "10"))  # seconds from the soft limit to the hard

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
        # The queues in the order of `--queues`: short newsletters pass by the batches of long ones.
        "queue_order_strategy": "priority",
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
        **{
            f"canary in {queue}": {
                "task": "canary",
                "args": [queue],
                "schedule": LOOK_EVERY,
                "options": {"queue": queue, "expires": 3 * LOOK_EVERY},
            }
            for queue in QUEUES
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
    text = record.getMessage()
    return record.levelno > logging.INFO or not ("look_after_jobs" in text or "canary" in text)


for name in ("celery.beat", "celery.worker.strategy", "celery.app.trace"):
    logging.getLogger(name).addFilter(is_news)


class TryAgain(Exception):
    """The job could not be finished now, and may be later."""


class Spread(Exception):
    """The job goes on in these batches; their end begins it again."""

    def __init__(self, batches: list[Signature]) -> None:
        super().__init__(f"{len(batches)} batches")
        self.batches = batches


class GivenUp(Exception):
    """The job is among the dead letters now. Raised so that Flower and metrics see a failure."""


@worker_shutting_down.connect
def stop(**_: Any) -> None:
    stopping.set()


# No end of retries for Celery (its default is three): `run` counts, and starts anew with each
# mail that got through.
@celery.task(bind=True, name="newsletter", max_retries=None, throws=(GivenUp, jobs.LeaseLost))
def newsletter(task: Task, job_id: str) -> None:
    run(task, job_id, newsletter_steps, NEWSLETTER_LIMIT)


# At the soft limit Celery raises SoftTimeLimitExceeded in the task, at the hard one it kills the
# process. Both need a pool of processes: nobody can interrupt a thread.
@celery.task(
    bind=True,
    name="report",
    max_retries=None,
    throws=(GivenUp, jobs.LeaseLost),
    soft_time_limit=REPORT_LIMIT,
    time_limit=REPORT_LIMIT + TO_TIDY_UP,
)
def report(task: Task, job_id: str) -> None:
    run(task, job_id, report_steps, REPORT_LIMIT)


def newsletter_steps(job: jobs.Job, last_attempt: bool) -> Iterator[work.Step]:
    """Mail to everybody whom the ledger does not have yet, and note each answer in it."""
    letter, ledger = jobs.task_input(job), jobs.ledger(job)
    result: dict[str, Any] = {"sent": 0, "refused": 0, "refusals": []}
    for recipient, refused in ledger.items():
        count(result, recipient, refused)
    left = [recipient for recipient in letter["recipients"] if recipient not in ledger]
    if jobs.end_spread(job) and left:
        raise TryAgain(f"The mail server did not take {len(left)} of {job.total} mails.")
    if left and job.total > BATCH:
        raise Spread(batches_left(job, letter["recipients"], ledger, last_attempt))
    if not left:
        yield work.Step(job.total, job.total, result)
        return
    done, put_off = len(ledger), 0
    try:
        for step in work.send_newsletter(job.id, letter["subject"], letter["body"], left):
            if step.recipient:
                metrics.MAILS.labels(str(step.refused[0]) if step.refused else "taken").inc()
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


def batches_left(
    job: jobs.Job, recipients: list[str], ledger: Any, last_attempt: bool
) -> list[Signature]:
    """Those in which somebody is left."""
    return [
        batch.si(job.id, first, last_attempt)
        for first in range(0, job.total, BATCH)
        if any(recipient not in ledger for recipient in recipients[first : first + BATCH])
    ]


def spread(job: jobs.Job, batches: list[Signature]) -> None:
    """Put the batches into their queue. When all have ended, the newsletter begins again: to
    sum up, or to try once more what is left."""
    jobs.spread(job)
    chord(batches)(newsletter.si(job.id))


@celery.task(
    bind=True, name="batch", max_retries=None, ignore_result=False
)  # a chord counts results
def batch(task: Task, job_id: str, first: int, last_attempt: bool) -> None:
    """One batch of a long newsletter, from its `first` recipient on. It never fails: whatever it
    cannot send is left to the newsletter's next round."""
    bind_contextvars(job=job_id)
    token = secrets.token_hex(8)
    with lease.take(f"{job_id}:{first}", token) as mine:
        if not mine:
            raise task.retry(countdown=LEASE)
        job = jobs.find(job_id)
        if job is None or job.state in jobs.ENDED:
            return
        try:
            send_batch(job, first, token, last_attempt)
        except work.MailServerAway as error:
            log.warning("Batch %s of job %s: %s", first, job_id, error)


def send_batch(job: jobs.Job, first: int, token: str, last_attempt: bool) -> None:
    jobs.begin_batch(job, first, token)
    letter = jobs.task_input(job)
    recipients = letter["recipients"][first : first + BATCH]
    noted = jobs.ledger_of(job, recipients)
    left = [recipient for recipient in recipients if recipient not in noted]
    for step in work.send_newsletter(job.id, letter["subject"], letter["body"], left):
        assert step.recipient is not None  # noqa: S101  (for the types)
        metrics.MAILS.labels(str(step.refused[0]) if step.refused else "taken").inc()
        for_now = step.refused is not None and step.refused[0] < 500 and not last_attempt
        if not for_now and not jobs.note_in_batch(job, first, token, step.recipient, step.refused):
            return
        if stopping.is_set():
            raise Reject("This worker is told to stop.", requeue=True)
        found = jobs.find(job.id) if jobs.may_push(job, PUSH_INTERVAL) else None
        if found is not None:
            events.push(found, outside)


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


Steps = Callable[[jobs.Job, bool], Iterator[work.Step]]


def run(task: Task, job_id: str, steps: Steps, limit: float) -> None:
    """Run a job to its end, unless it has ended, or another worker is on it."""
    bind_contextvars(job=job_id)
    token, trace, wait = secrets.token_hex(8), "", 0.0
    with lease.take(job_id, token) as mine:
        if not mine:  # or the one who was is dead: then its lease has run out by then
            raise task.retry(countdown=LEASE)
        job, attempt = jobs.begin(job_id, token)
        if job is None:
            return
        try:
            if attempt > MOST_ATTEMPTS:
                raise RuntimeError(f"Given up: {MOST_ATTEMPTS} workers died of this job.")
            job.state = drain(job, steps(job, attempt == MOST_ATTEMPTS), token, limit)
        except (jobs.LeaseLost, Reject):
            raise
        except Spread as wanted:
            job.state = "PROGRESS"
            jobs.save(job, token)  # before the batches, which count further
            spread(job, wanted.batches)
            return
        except TryAgain as error:
            tries, trace = jobs.attempts(job), traceback.format_exc()
            job.state = "RETRY" if tries < MOST_ATTEMPTS else "FAILURE"
            job.error, wait = str(error), backoff(tries)
        except SoftTimeLimitExceeded:
            trace = traceback.format_exc()
            job.state, job.error = "FAILURE", f"Stopped: it took longer than {limit:g} s."
        except Exception as error:
            trace = traceback.format_exc()
            job.state, job.error = "FAILURE", str(error)
        job.retry_at = time.time() + wait if job.state == "RETRY" else None
        if job.retry_at:
            metrics.RETRIES.labels(job.kind).inc()
        jobs.save(job, token, trace)
        events.push(job, outside)
        tell(job)
    if job.state == "RETRY":
        raise task.retry(countdown=wait)
    if job.state == "FAILURE":
        raise GivenUp(job.error)


def backoff(tries: int) -> float:
    """Seconds to wait after so many tries: doubling, bounded, and never the same for two jobs.

    All jobs that met a server's failure would come back together without the random part.
    """
    wait = min(LONGEST_RETRY, RETRY_AFTER * 2.0 ** max(0, tries - 1))
    return wait * random.uniform(0.5, 1)  # noqa: S311  (no secret)


def tell(job: jobs.Job) -> None:
    level = logging.ERROR if job.state == "FAILURE" else logging.INFO
    because = f": {job.error}" if job.error else ""
    log.log(level, "%s %s, %s of %s%s", job.kind, job.state, job.done, job.total, because)


def drain(job: jobs.Job, steps: Iterator[work.Step], token: str, limit: float) -> str:
    """Take step after step; store how far the job is, then push it. Returns how it ended.

    Every mail is stored, and ten times a second the step of a report.
    """
    job.state, job.error, job.retry_at = "STARTED", None, None
    cancelled = jobs.save(job, token)
    events.push(job, outside)
    begun = pushed = time.monotonic()
    while not cancelled:
        if stopping.is_set():
            raise Reject("This worker is told to stop.", requeue=True)
        # What Celery does to a process of a pool. But not to a thread; and if a push is under way
        # then, the library that pushes takes the exception for one of its own.
        if time.monotonic() - begun > limit:
            raise SoftTimeLimitExceeded
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


@celery.task(name="look_after_jobs", send_events=False)  # or Flower shows little else
def look_after_jobs() -> None:
    """Send the jobs whose start has come, and those whose message was lost."""
    for job in jobs.to_look_after():
        if not queues.in_line(job):
            with bound_contextvars(correlation=jobs.correlation(job), job=job.id):
                jobs.send_again(job)
    jobs.forget_old_uploads()
    dead_letters.discard_oldest()


@celery.task(name="canary", send_events=False)
def canary(queue: str) -> None:
    """Sent into every queue again and again, so that there always is something to take."""


@celery.task(name="nightly_report")
def nightly_report() -> None:
    jobs.start_report(Report(lines=300_000))
