"""Start a job, look a job up. In this chapter the view itself drains the generator."""

import secrets
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import work
from contract import Newsletter, Report
from samples import sample_log

MOST_JOBS = 200

jobs: dict[str, "Job"] = {}  # in the memory of this process; oldest first
adding = threading.Lock()  # with more than one slot, two requests may add at the same time


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


def start_newsletter(newsletter: Newsletter) -> Job:
    job = add("newsletter", total=len(newsletter.recipients))
    drain(
        job,
        work.send_newsletter(job.id, newsletter.subject, newsletter.body, newsletter.recipients),
    )
    return job


def start_report(report: Report) -> Job:
    job = add("report", total=report.lines)
    lines = work.read_lines(report.log) if report.log else sample_log(report.lines)
    drain(job, work.analyse_log(lines, report.lines))
    return job


def find(job_id: str) -> Job | None:
    return jobs.get(job_id)


def recent() -> list[Job]:
    """The last 50 jobs, newest first."""
    return list(jobs.values())[:-51:-1]


def add(kind: str, total: int) -> Job:
    job = Job(id=secrets.token_urlsafe(16), kind=kind, total=total)
    with adding:
        jobs[job.id] = job
        while len(jobs) > MOST_JOBS:
            del jobs[next(iter(jobs))]
    return job


def drain(job: Job, steps: Iterator[work.Step]) -> None:
    """Run a job to its end, here and now: whoever calls this waits."""
    job.state = "STARTED"
    try:
        for step in steps:
            job.state, job.done, job.result = "PROGRESS", step.done, step.result
        job.state = "SUCCESS"
    except Exception as error:
        job.state, job.error = "FAILURE", str(error)
        raise
