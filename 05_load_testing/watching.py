"""What a worker tells of itself: its metrics, on a port of its own."""

import os
import time
from typing import Any

from celery import Task
from celery.signals import celeryd_after_setup, task_postrun, task_prerun, worker_ready
from celery.worker import WorkController
from celery.worker.control import inspect_command
from celery.worker.state import active_requests
from prometheus_client import start_http_server

import jobs
import metrics
from celery_app import celery
from redis_server import LISTEN


@celeryd_after_setup.connect
def tell_slots(instance: WorkController, **_: Any) -> None:
    for queue in celery.amqp.queues.consume_from:
        metrics.SLOTS.labels(queue).set(instance.concurrency)


@inspect_command()
def slots(state: Any) -> dict[str, Any]:
    """What this worker answers when the web process asks who is there."""
    return {
        "slots": state.consumer.controller.concurrency,
        "busy": len(active_requests),
        "queues": [queue.name for queue in state.consumer.task_consumer.queues],
    }


@worker_ready.connect
def serve(**_: Any) -> None:
    """Answer Prometheus from the main process, for it and for the processes of its pool."""
    port = int(os.environ.get("METRICS_PORT", "9100"))
    start_http_server(port, LISTEN, metrics.registry(metrics.OfThisService()))


@task_prerun.connect
def begun(task: Task, **_: Any) -> None:
    request = task.request
    request.begun = time.perf_counter()
    metrics.BUSY.labels(queue_of(task)).inc()
    published = getattr(request, "published_at", None)
    if published and not request.eta:  # a retry waits on purpose
        metrics.WAIT_SECONDS.labels(task.name).observe(max(0.0, time.time() - published))
    jobs.store.hset("consumed", queue_of(task), time.time())  # the proof that somebody takes it


@task_postrun.connect
def ended(task: Task, state: str | None = None, **_: Any) -> None:
    metrics.BUSY.labels(queue_of(task)).dec()
    seconds = time.perf_counter() - task.request.begun
    metrics.RUN_SECONDS.labels(task.name, state).observe(seconds)


def queue_of(task: Task) -> str:
    queue: str = task.request.delivery_info["routing_key"]
    return queue
