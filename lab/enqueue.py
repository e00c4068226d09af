"""Where the time goes in Celery's `.delay()`, held against one RPUSH of the same bytes."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any
from unittest.mock import patch

import kombu.messaging
import kombu.transport.redis
from celery import Celery
from redis import Redis

from lab import scene

QUEUE = "enqueue"
JOB = "Vx0cFpm2nQf0yL9m7dBv3w"  # an id, as long as a job's
PIECES = [
    "LPUSH",
    "a new Redis client",
    "the message, as JSON",
    "listening for the result",
    "routing, pools, declaring, signals",
]
"""What `.delay()` does; the last is what the others leave."""


def against_rpush(
    redis_url: str, ignore_result: bool, calls: int = 200, rounds: int = 5
) -> dict[str, float]:
    """The pieces of one `.delay()`, each over an RPUSH of the same bytes on an open connection.

    All in this process, and nobody takes the messages. The two sides in turn, `calls` of
    each; median of the rounds.
    """
    shares: dict[str, list[float]] = {piece: [] for piece in PIECES}
    with sender(redis_url, ignore_result) as (app, send, redis):
        message = redis.lindex(QUEUE, 0)
        for _ in range(rounds):
            whole = rpush = 0.0
            with stopwatch(app) as seconds:
                for _ in range(calls):
                    whole += cpu(send)
                    rpush += cpu(lambda: redis.rpush(QUEUE, message))
            seconds[PIECES[-1]] = whole - sum(seconds.values())
            for piece, found in shares.items():
                found.append(seconds[piece] / rpush)
            redis.delete(QUEUE)
    return {piece: median(found) for piece, found in shares.items()}


def commands(ignore_result: bool) -> list[str]:
    """The names of the commands that one more `.delay()` sends to a Redis that nobody else asks."""
    with scene.redis() as url, sender(url, ignore_result) as (_, send, redis):
        redis.config_resetstat()
        send()
        counts = redis.info("commandstats")
    return [name.removeprefix("cmdstat_") for name in counts if "config" not in name]


@contextmanager
def sender(redis_url: str, ignore_result: bool) -> Iterator[tuple[Any, Callable[[], object], Any]]:
    """A Celery application, a call that sends a task, and a client of the same Redis.

    All else is as Celery has it by default. One task has been sent: connections are open.
    """
    app: Any = Celery(broker=redis_url, backend=redis_url)  # type: ignore[no-untyped-call]
    app.conf.update(task_default_queue=QUEUE, task_ignore_result=ignore_result)
    task = app.task(nothing, name="nothing")
    with app, Redis.from_url(redis_url) as redis:
        redis.delete(QUEUE)
        task.delay(JOB)
        yield app, lambda: task.delay(JOB), redis
        redis.delete(QUEUE)


def nothing(job: str) -> None:
    """A task that no worker ever runs."""


def cpu(function: Callable[[], object]) -> float:
    """Seconds of processor time that this thread spends on a call: no waiting in it."""
    begun = time.thread_time()
    function()
    return time.thread_time() - begun


@contextmanager
def stopwatch(app: Any) -> Iterator[dict[str, float]]:
    """While the block runs: the seconds in each piece, without those in a piece inside it."""
    seconds: dict[str, float] = defaultdict(float)
    inside = [0.0]

    def watch(piece: str, owner: Any, name: str) -> Any:
        original = getattr(owner, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            inside.append(0.0)
            begun = time.thread_time()
            try:
                return original(*arguments, **options)
            finally:
                whole = time.thread_time() - begun
                seconds[piece] += whole - inside.pop()
                inside[-1] += whole

        return patch.object(owner, name, watched)

    with ExitStack() as patches:
        for piece, owner, name in (
            ("LPUSH", Redis, "lpush"),
            ("a new Redis client", kombu.transport.redis.Channel, "_create_client"),
            ("the message, as JSON", app.amqp, "create_task_message"),
            ("the message, as JSON", kombu.messaging.Producer, "_prepare"),
            ("the message, as JSON", kombu.transport.redis, "dumps"),
            ("listening for the result", app.backend, "on_task_call"),
            ("listening for the result", app.backend, "remove_pending_result"),
        ):
            patches.enter_context(watch(piece, owner, name))
        yield seconds
