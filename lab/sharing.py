"""Put one pool in the place of chapter 04's two while it runs, and give them their work back."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery

from lab.chapters import Chapter, Supervised, free_ports, read_procfile, share
from lab.waiting import wait_until


@contextmanager
def one_pool(chapter: Chapter, slots: int = 6) -> Iterator[None]:
    """One worker of `slots` processes serves both queues while the block runs; the two rest."""
    commands = read_procfile(chapter.path)
    share(commands)
    command = commands["mail"].replace("mail@", "shared@").replace("/metrics/mail", "/metrics/all")
    settings = {name: str(port) for name, port in chapter.ports.items()} | {
        "DATA": str(chapter.data),
        "REDIS_URL": chapter.redis_url,
        "MAIL_SLOTS": str(slots),
        "MAIL_METRICS_PORT": str(free_ports(1)[0]),
    }
    worker = Supervised({"shared": command}, chapter.path, os.environ | settings, chapter.logs)
    try:
        wait_until(lambda: tell(chapter, "ping", "shared"))
        for queue, name in (("mail", "mail"), ("reports", "report")):
            tell(chapter, "cancel_consumer", name, queue=queue)
        yield
    finally:
        for queue, name in (("mail", "mail"), ("reports", "report")):
            tell(chapter, "add_consumer", name, queue=queue)
        worker.stop()


def tell(chapter: Chapter, command: str, worker: str, **arguments: Any) -> list[Any]:
    """Tell a worker of the chapter something, by its name; returns what it answered, if it did."""
    name = f"{worker}@{socket.gethostname()}"
    with Celery(broker=chapter.redis_url) as celery:  # type: ignore[no-untyped-call]
        ask = {"reply": True, "timeout": 2.0, "limit": 1, "arguments": arguments}
        return celery.control.broadcast(command, destination=[name], **ask) or []
