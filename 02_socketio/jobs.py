"""Start a job, look a job up, cancel it. In this chapter a thread drains the generator."""

import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import IO, Any

import work
from contract import Newsletter, Report
from samples import sample_log

MOST_ENDED = 200  # jobs that are kept when they have ended
PUSH_INTERVAL = 0.1  # seconds: at most ten events a second for one job
ENDED = ("SUCCESS", "FAILURE", "REVOKED")

slots = threading.BoundedSemaphore(int(os.environ.get("JOB_SLOTS", "16")))
jobs: dict[str, "Job"] = {}  # in the memory of this process; oldest first
adding = threading.Lock()  # with more than one slot, two requests may add at the same time
cancelled: set[str] = set()
log = logging.getLogger(__name__)


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


Push = Callable[[Job], None]


def start_newsletter(newsletter: Newsletter, push: Push) -> Job:
    job = add("newsletter", total=len(newsletter.recipients))
    steps = work.send_newsletter(job.id, newsletter.subject, newsletter.body, newsletter.recipients)
    return in_background(job, steps, push)


def start_report(report: Report, push: Push) -> Job:
    job = add("report", total=report.lines)
    lines = work.read_lines(keep(report.log)) if report.log else sample_log(report.lines)
    return in_background(job, work.analyse_log(lines, report.lines), push)


def keep(upload: IO[bytes]) -> IO[bytes]:
    """A copy of an upload: Flask closes the upload itself when the request is answered."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115  (gone when nobody reads it any more)
    shutil.copyfileobj(upload, copy)
    copy.seek(0)
    return copy


def find(job_id: str) -> Job | None:
    return jobs.get(job_id)


def recent() -> list[Job]:
    """The last 50 jobs, newest first."""
    return list(jobs.values())[:-51:-1]


def cancel(job: Job) -> None:
    """Have a job stop between two steps; one that has ended stays as it is."""
    if job.state not in ENDED:
        cancelled.add(job.id)


def add(kind: str, total: int) -> Job:
    job = Job(id=secrets.token_urlsafe(16), kind=kind, total=total)
    with adding:
        jobs[job.id] = job
        ended = [old.id for old in jobs.values() if old.state in ENDED]
        for job_id in ended[:-MOST_ENDED]:
            del jobs[job_id]
    return job


def in_background(job: Job, steps: Iterator[work.Step], push: Push) -> Job:
    """Answer now; a thread does the work. It dies with the process, and the job with it."""
    threading.Thread(target=run, args=(job, steps, push), daemon=True).start()
    return job


def run(job: Job, steps: Iterator[work.Step], push: Push) -> None:
    """Wait for a free slot, then run a job to its end; cancelled meanwhile, it never starts."""
    while not slots.acquire(timeout=PUSH_INTERVAL):
        if job.id in cancelled:
            return end(job, "REVOKED", push)
    try:
        end(job, drain(job, steps, push), push)
    except work.MailServerAway as error:
        end(job, "FAILURE", push, str(error))
    except Exception as error:
        log.exception("Job %s failed", job.id)
        end(job, "FAILURE", push, str(error))
    finally:
        slots.release()


def drain(job: Job, steps: Iterator[work.Step], push: Push) -> str:
    """Take step after step, push how far the job is, and return the state it ends in."""
    pushed = 0.0
    job.state = "STARTED"
    while job.id not in cancelled:
        step = next(steps, None)
        if step is None:
            return "SUCCESS"
        job.state, job.done, job.result = "PROGRESS", step.done, step.result
        if time.monotonic() - pushed >= PUSH_INTERVAL:
            push(job)
            pushed = time.monotonic()
    return "REVOKED"


def end(job: Job, state: str, push: Push, error: str | None = None) -> None:
    job.state, job.error = state, error
    cancelled.discard(job.id)
    push(job)
