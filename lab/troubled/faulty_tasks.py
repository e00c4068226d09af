"""Tasks with one mistake each, and Celery's own settings. `lab/troubles_celery.py` runs them."""

import os
import time

from celery import Celery
from flask import current_app

celery = Celery("shop", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
celery.conf.update(
    # An hour, which is the default, is too long to watch. (The next two: look each second.)
    broker_transport_options={
        "visibility_timeout": int(os.environ.get("VISIBILITY_TIMEOUT", "3600")),
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
    broker_connection_retry_on_startup=True,
)


@celery.task(name="slow")
def slow(seconds: float) -> None:
    time.sleep(seconds)


@celery.task(name="slow_and_late", acks_late=True)
def slow_and_late(seconds: float) -> None:
    time.sleep(seconds)


@celery.task(name="greet")
def greet() -> str:
    """Needs the Flask application, which a worker does not have."""
    return f"Hello from {current_app.name}"


@celery.task(name="fetch")
async def fetch() -> str:
    """Celery calls it and gets a coroutine, which nobody awaits."""
    return "a page"


@celery.task(name="price")
def price(article: str) -> int:
    return {"pen": 2}[article]


@celery.task(name="total")
def total(prices: list[int]) -> int:
    return sum(prices)
