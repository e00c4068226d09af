"""One record for each job, in Redis, where every process finds it.

    job:<id>          the job document, and what only the workers need to know
    job:<id>:input    what to do; the task's message carries nothing but the id
    job:<id>:ledger   recipients, and what the mail server said of each
    job:<id>:lease    the worker that is on it now (see lease.py)
    jobs              ids, by the time at which they came
    jobs:open         ids, by the time at which somebody should look whether they go on

The record is written before the task is sent, so a lost message is not a lost job.
"""

import json
import logging
import os
import secrets
import time
from dataclasses import asdict, dataclass
from typing import IO, Any

from kombu.exceptions import OperationalError
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from celery_app import celery
from contract import Newsletter, Report
from redis_server import DATA, REDIS_TIMEOUT, REDIS_URL

JOB_TTL = int(os.environ.get("JOB_TTL", "86400"))  # seconds until a record is forgotten
RESEND_AFTER = float(os.environ.get("RESEND_AFTER", "30"))  # seconds
MOST_LISTED = 1000
ENDED = ("SUCCESS", "FAILURE", "REVOKED")
UPLOADS = DATA / "uploads"
log = logging.getLogger(__name__)


def connect(timeout: float, tries: int) -> Any:
    """A Redis client that waits `timeout` seconds for an answer, and asks `tries` times more.

    (Typed as Any, since redis-py's types do not know that answers are decoded to text.)
    """
    return Redis.from_url(
        REDIS_URL,
        decode_responses=True,
        socket_connect_timeout=timeout,
        socket_timeout=timeout,
        retry=Retry(ConstantBackoff(0.5), tries),
    )


store = connect(REDIS_TIMEOUT, tries=0)  # a worker takes a more patient one: see tasks.py


@dataclass
class Job:
    """The job document. `state` is one of Celery's words: see the README."""

    id: str
    kind: str
    state: str = "PENDING"
    done: int = 0
    total: int = 0
    result: dict[str, Any] | None = None
    error: str | None = None

    def document(self) -> dict[str, Any]:
        return asdict(self)


# --- The web process: accept, look up, cancel -----------------------------------------


def start_newsletter(newsletter: Newsletter, countdown: float = 0) -> Job:
    """Accept a newsletter; it starts at once, or in `countdown` seconds."""
    job = Job(secrets.token_urlsafe(16), "newsletter", total=len(newsletter.recipients))
    return accept(job, newsletter.model_dump(), countdown)


def start_report(report: Report, countdown: float = 0) -> Job:
    """Accept a report. An upload is stored once, as a file; the input says where."""
    job = Job(secrets.token_urlsafe(16), "report", total=report.lines)
    path = keep(job.id, report.log) if report.log else None
    return accept(job, {"lines": report.lines, "log": path}, countdown)


def keep(job_id: str, upload: IO[bytes]) -> str:
    store.ping()
    UPLOADS.mkdir(parents=True, exist_ok=True)
    path = UPLOADS / f"{job_id}.log"
    with path.open("wb") as copy:
        while block := upload.read(1 << 20):
            copy.write(block)
    return str(path)


def accept(job: Job, task_input: dict[str, Any], countdown: float) -> Job:
    """Write the record, then send the task. Once the record is written, the job will be done."""
    # A Redis that hangs carries out later what it is sent now. So ask first whether it is there:
    # otherwise whoever is told "503, try again" would have the newsletter sent twice.
    store.ping()
    now = time.time()
    with store.pipeline() as write:  # all of it or nothing: MULTI … EXEC
        write_document(write, job)
        write.set(f"job:{job.id}:input", json.dumps(task_input), ex=JOB_TTL)
        write.zadd("jobs", {job.id: now})
        write.zremrangebyrank("jobs", 0, -MOST_LISTED - 1)
        write.zadd("jobs:open", {job.id: now + (countdown or RESEND_AFTER)})
        write.execute()
    if not countdown:
        send(job)
    return job


def send(job: Job) -> None:
    """Put the job's task into its queue, by name: the web process needs no code of a task."""
    try:
        celery.send_task(job.kind, [job.id], ignore_result=True)
    except OperationalError:
        log.warning("Job %s could not be sent. It is sent again by and by.", job.id)


def find(job_id: str) -> Job | None:
    return to_job(store.hgetall(f"job:{job_id}"))


def recent() -> list[Job]:
    """The last 50 jobs, newest first."""
    with store.pipeline(transaction=False) as read:
        for job_id in store.zrevrange("jobs", 0, 49):
            read.hgetall(f"job:{job_id}")
        found = (to_job(record) for record in read.execute())
        return [job for job in found if job is not None]


def cancel(job_id: str) -> Job | None:
    """Have a job stop between two steps. One that no worker is on ends here and now."""
    key, lease = f"job:{job_id}", f"job:{job_id}:lease"

    def mark(redis: Any) -> Job | None:
        job, running = to_job(redis.hgetall(key)), redis.exists(lease)
        redis.multi()
        if job is not None and job.state not in ENDED:
            redis.hset(key, "cancelled", "1")
            if not running:
                job.state = "REVOKED"
                write_end(redis, job)
        return job

    job: Job | None = store.transaction(mark, key, lease, value_from_callable=True)
    if job is not None and job.state == "REVOKED":
        forget_upload(job)
    return job


def to_job(record: dict[str, str]) -> Job | None:
    if not record:
        return None
    return Job(
        id=record["id"],
        kind=record["kind"],
        state=record["state"],
        done=int(record["done"]),
        total=int(record["total"]),
        result=json.loads(record["result"]),
        error=json.loads(record["error"]),
    )


def write_document(write: Any, job: Job) -> None:
    record = job.document()
    record["result"], record["error"] = json.dumps(job.result), json.dumps(job.error)
    write.hset(f"job:{job.id}", mapping=record)
    write.expire(f"job:{job.id}", JOB_TTL)


def write_end(write: Any, job: Job) -> None:
    write_document(write, job)
    write.zrem("jobs:open", job.id)
    write.delete(f"job:{job.id}:input")


# --- A worker: begin, note each step, end ---------------------------------------------


class LeaseLost(Exception):
    """Another worker has begun this job: it took this one for dead."""


def begin(job_id: str, token: str) -> tuple[Job | None, int]:
    """Mark a job as started by the worker with this token. Returns it, and which attempt this is.

    None if there is nothing to do: it has ended, or nobody remembers it.
    """
    key = f"job:{job_id}"

    def mark(redis: Any) -> tuple[Job | None, int]:
        record = redis.hgetall(key)
        job = to_job(record)
        redis.multi()
        if job is None or job.state in ENDED:
            return None, 0
        job.state = "STARTED"
        redis.hset(key, mapping={"state": job.state, "worker": token})
        redis.hincrby(key, "attempts", 1)
        return job, int(record.get("attempts", 0)) + 1

    begun: tuple[Job | None, int] = store.transaction(mark, key, value_from_callable=True)
    return begun


def task_input(job: Job) -> dict[str, Any]:
    text = store.get(f"job:{job.id}:input")
    if text is None:
        raise LookupError("What this job had to do is forgotten.")
    found: dict[str, Any] = json.loads(text)
    return found


def ledger(job: Job) -> dict[str, tuple[int, str] | None]:
    """Each recipient that the mail server has answered for: None if it took the mail."""
    entries = store.hgetall(f"job:{job.id}:ledger").items()
    return {recipient: json.loads(answer) for recipient, answer in entries}


def note(job: Job, recipient: str, refused: tuple[int, str] | None) -> None:
    """Put a recipient into the ledger. Whoever goes on with this job will pass it by."""
    key = f"job:{job.id}:ledger"
    with store.pipeline() as write:
        write.hset(key, recipient, json.dumps(refused))
        write.expire(key, JOB_TTL)
        write.hset(f"job:{job.id}", "attempts", 0)  # it gets on: count from the start
        write.execute()


def attempts(job: Job) -> int:
    """How many attempts in a row have got this job no further."""
    return int(store.hget(f"job:{job.id}", "attempts") or 0)


def save(job: Job, token: str) -> bool:
    """Store how far the job is, or how it ended. Returns whether to stop.

    Raises LeaseLost, and stores nothing, if another worker has begun the job meanwhile: a
    worker that was frozen must not write over what the other has done (a "fencing token").
    """
    key = f"job:{job.id}"

    def write(redis: Any) -> bool:
        worker, cancelled = redis.hmget(key, "worker", "cancelled")
        redis.multi()
        if worker != token:
            raise LeaseLost
        if job.state in ENDED:
            write_end(redis, job)
        else:
            write_document(redis, job)
        return cancelled is not None

    cancelled: bool = store.transaction(write, key, value_from_callable=True)
    if job.state in ENDED:
        forget_upload(job)
    return cancelled


def forget_upload(job: Job) -> None:
    (UPLOADS / f"{job.id}.log").unlink(missing_ok=True)


def to_look_after() -> list[Job]:
    """Jobs to send (again): those whose start has come, and those that nobody has gone on with.

    A job is looked at after 30 seconds, then each time it has become twice as old.
    """
    now, waiting = time.time(), []
    for job_id in store.zrangebyscore("jobs:open", 0, now, start=0, num=100):
        job = find(job_id)
        if job is None or job.state in ENDED:
            store.zrem("jobs:open", job_id)
            continue
        age = now - (store.zscore("jobs", job_id) or now)
        store.zadd("jobs:open", {job_id: now + max(RESEND_AFTER, age)}, xx=True)
        if not store.exists(f"job:{job_id}:lease"):
            waiting.append(job)
    return waiting


def forget_old_uploads() -> None:
    """Remove files whose job nobody remembers."""
    for path in UPLOADS.glob("*.log"):
        if time.time() - path.stat().st_mtime > JOB_TTL:
            path.unlink(missing_ok=True)
