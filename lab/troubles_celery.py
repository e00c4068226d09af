"""Troubles of Celery and Redis. Each function makes one and returns what people see."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from celery import Celery, chord
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lab.chapters import Supervised, folder, free_ports
from lab.scene import TROUBLED, error_of, lines, log, python, redis, running

WORKER = (
    "celery --app faulty_tasks worker --pool threads --concurrency {slots} --loglevel info "
    "--without-mingle --without-gossip --without-heartbeat"
)
AT_ONCE = Retry(NoBackoff(), 0)
"""Say at once that Redis is away: redis-py would try for some seconds."""


@contextmanager
def worker(slots: int = 1, **settings: str) -> Iterator[tuple[Celery, Supervised]]:
    """A worker on `faulty_tasks.py`, ready, and who sends to it; both on a Redis of their own."""
    with ExitStack() as stack:
        url = stack.enter_context(redis())
        commands = {"worker": WORKER.format(slots=slots)}
        process = stack.enter_context(running(TROUBLED, commands, REDIS_URL=url, **settings))
        sender = stack.enter_context(Celery(broker=url, backend=url))
        lines(process, "worker", " ready.")
        yield sender, process


def unregistered_task() -> str:
    """A task is sent by a name that the worker does not know."""
    with worker() as (celery, process):
        celery.send_task("shop.tasks.make_report")
        lines(process, "worker", "The delivery info for this task is")
        return log(process, "worker")


def pending() -> str:
    """Chapter 03 is asked for a sum that nobody has ever sent."""
    with redis() as url:
        return python(
            folder("03"),
            """
            import app

            print(app.app.test_client().get("/add/never-was").text)
            """,
            REDIS_URL=url,
        )


def no_backend() -> str:
    """Celery without a result backend is asked for a result, in two ways."""
    result = Celery(broker="memory://").AsyncResult("some-id")
    return f"{error_of(lambda: result.state)}\n{error_of(result.get)}"


def application_context() -> str:
    """A task asks for Flask's `current_app`, as `greet` does in `faulty_tasks.py`."""
    return python(
        TROUBLED,
        """
        from faulty_tasks import greet

        print(greet.apply().traceback)
        """,
        REDIS_URL="redis://127.0.0.1:1/0",  # nobody asks it
    )


def eager() -> str:
    """The same task twice: in eager mode, as in many tests, and in a worker."""
    with worker() as (celery, process):
        said = python(
            TROUBLED,
            """
            from flask import Flask
            from faulty_tasks import celery, greet

            celery.conf.task_always_eager = True
            with Flask("shop").app_context():
                print("eager:", greet.delay().get())
            celery.send_task("greet")
            """,
            REDIS_URL=str(celery.conf.broker_url),
        )
        return f"{said}\nworker: {lines(process, 'worker', 'raised unexpected')}"


def connection_refused() -> str:
    """A Redis client, where no Redis is."""
    (port,) = free_ports(1)
    return error_of(Redis(host="localhost", port=port, retry=AT_ONCE).ping)


def broker_away() -> str:
    """Chapter 03 is sent a newsletter, and no Redis is there."""
    (port,) = free_ports(1)
    return python(
        folder("03"),
        """
        import app

        letter = {"subject": "News", "body": "Hello", "recipients": ["ann@example.com"]}
        answer = app.app.test_client().post("/newsletters", json=letter)
        print(answer.status, answer.text)
        """,
        REDIS_URL=f"redis://127.0.0.1:{port}/0",
    )


def runs_twice() -> str:
    """A task that takes longer than Redis waits for its acknowledgement: here a second."""
    with worker(slots=2, VISIBILITY_TIMEOUT="1") as (celery, process):
        celery.send_task("slow_and_late", [5])
        return lines(process, "worker", " received", count=2)


def takes_nothing() -> str:
    """A worker that is connected, answers, and does not listen to its queue any more."""
    with worker() as (celery, process):
        celery.control.cancel_consumer("celery", reply=True, limit=1, timeout=10)
        celery.send_task("slow", [0])
        time.sleep(1)
        [(_, answer)] = celery.control.ping(limit=1, timeout=10)[0].items()
        return f"the worker answers: {answer}\nthe queue: {waiting(celery)} waiting"


def waiting(celery: Celery) -> int:
    """How many messages nobody has taken yet."""
    with Redis.from_url(celery.conf.broker_url) as redis:
        found: Any = redis.llen("celery")
        return int(found)


def hoarding() -> str:
    """A worker with one slot and Celery's own prefetch, and five slow tasks."""
    with worker() as (celery, process):
        for _ in range(5):
            celery.send_task("slow", [5])
        lines(process, "worker", " received", count=5)
        reserved = celery.control.inspect(limit=1, timeout=10).reserved() or {}
        count = sum(len(tasks) for tasks in reserved.values())
        return f"the queue: {waiting(celery)} waiting\nthis worker: 1 running, {count} reserved"


def revoke() -> str:
    """A running task is revoked, then terminated, in a pool of threads."""
    with worker() as (celery, process):
        task = celery.send_task("slow", [5])
        lines(process, "worker", " received")
        celery.control.revoke(task.id)
        lines(process, "worker", "flagged as revoked")
        celery.control.revoke(task.id, terminate=True)
        lines(process, "worker", "succeeded")
        return log(process, "worker")


def not_json() -> str:
    """A task is sent with a set as its argument."""
    return error_of(lambda: Celery(broker="memory://").send_task("total", [{1, 2}]))


def too_many_clients() -> str:
    """A Redis that takes two clients, and a third."""
    with redis() as url, Redis.from_url(url) as first, Redis.from_url(url) as second:
        first.config_set("maxclients", 2)
        second.ping()
        with Redis.from_url(url, retry=AT_ONCE) as third:
            return error_of(third.ping)


def two_beats() -> str:
    """Chapter 03's beat, started twice."""
    beat = "env DATA=$DATA/{name} celery --app tasks beat --loglevel info"
    beats = {name: beat.format(name=name) for name in ("one", "two")}
    with redis() as url, running(folder("03"), beats, REDIS_URL=url, LOOK_EVERY="1") as processes:
        return "\n".join(
            f"beat {name}: {lines(processes, name, 'Sending due task').splitlines()[0]}"
            for name in beats
        )


def async_task() -> str:
    """A task that is an `async def`, as `fetch` is in `faulty_tasks.py`."""
    with worker() as (celery, process):
        celery.send_task("fetch")
        failed = lines(process, "worker", "raised unexpected")
        celery.send_task("fetch", ignore_result=True)
        return f"{failed}\n{lines(process, 'worker', 'never awaited')}"


def chord_callback() -> str:
    """A chord of two prices and their total; there is no price for ink."""
    with worker() as (celery, process):
        prices = [celery.signature("price", [article]) for article in ("pen", "ink")]
        chord(prices, app=celery)(celery.signature("total"))
        lines(process, "worker", "ChordError: ")
        return log(process, "worker")
