"""Who is on a job now? At most one worker, and a dead one not for long."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from redis import RedisError
from redis.lock import Lock

import jobs
from times import LEASE


@contextmanager
def take(job_id: str, token: str) -> Iterator[bool]:
    """Hold the lease of a job while the block runs; False if somebody else holds it.

    A thread renews it each second, however long a step takes.
    """
    lock = Lock(jobs.store, f"job:{job_id}:lease", timeout=LEASE, thread_local=False)
    if not lock.acquire(blocking=False, token=token):
        yield False
        return
    over = threading.Event()
    threading.Thread(target=renew, args=(lock, token, over), daemon=True).start()
    try:
        yield True
    finally:
        over.set()
        release(lock)


def renew(lock: Lock, token: str, over: threading.Event) -> None:
    while not over.wait(LEASE / 5):
        try:
            lock.reacquire()
        except RedisError:  # Redis was away for so long that the lease ran out; or the block ended
            try:
                if not over.is_set():
                    lock.acquire(blocking=False, token=token)
            except RedisError:
                pass


def release(lock: Lock) -> None:
    try:
        lock.release()
    except RedisError:  # not ours any more, or Redis is away: it runs out by itself
        pass
