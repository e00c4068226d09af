"""A Celery application with one task that naps: what `lab.visibility` starts workers on."""

import os
import time
from typing import Any

from celery import Celery
from redis import Redis

REDIS_URL = os.environ["REDIS_URL"]

celery: Any = Celery(broker=REDIS_URL)  # type: ignore[no-untyped-call]
celery.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
    broker_transport_options={
        "visibility_timeout": float(os.environ["VISIBILITY_TIMEOUT"]),
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
)
redis = Redis.from_url(REDIS_URL)


def nap(name: str, length: float) -> None:
    """Note a start of this task, take `length` seconds, and note that it has ended."""
    redis.hincrby("started", name)
    time.sleep(length)
    redis.hincrby("ended", name)


celery.task(nap, name="nap")
