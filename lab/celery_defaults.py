"""Chapter 03's tasks as most tutorials write them, to see what the chapter's care is worth.

Celery's default settings; and no ledger, no lease, no retry, no second look at a job. The lab
starts workers on this module instead of `tasks` (see `celery_defaults` in `lab.start`).
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

from celery import Task
from redis import Redis

import events  # type: ignore[import-not-found]
import jobs  # type: ignore[import-not-found]
import tasks  # type: ignore[import-not-found]
from celery_app import celery  # type: ignore[import-not-found]

__all__ = ["celery"]

celery.conf.update(
    task_acks_late=False,
    task_reject_on_worker_lost=False,
    worker_prefetch_multiplier=4,
    broker_transport_options={},
    worker_soft_shutdown_timeout=0,
    beat_schedule={},
)
jobs.store = Redis.from_url(jobs.REDIS_URL, decode_responses=True)
tasks.stopping = threading.Event()
tasks.worker_shutting_down.disconnect(tasks.stop)


def run(task: Task, job_id: str, steps: Callable[[Any, bool], Iterator[Any]]) -> None:
    """Run a job to its end, or until something goes wrong."""
    job, _ = jobs.begin(job_id, "")
    if job is None:
        return
    try:
        job.state = tasks.drain(job, steps(job, True), "")
    except Exception as error:
        job.state, job.error = "FAILURE", str(error)
    jobs.save(job, "")
    events.push(job, tasks.outside)


jobs.ledger = lambda job: {}
tasks.run = run
