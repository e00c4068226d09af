"""One correlation id, from the request through the task and its retries to the last push.

The request brings or gets one; every message in a queue carries it; every log line shows it.
"""

import re
import secrets
import time
from typing import Any

from celery import Task
from celery.signals import before_task_publish, task_prerun
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

ID = re.compile(r"[\w-]{8,64}", re.ASCII)


def begin(given: str | None = None, **more: str) -> None:
    """Start a request or a task: what is logged from now on carries this id."""
    clear_contextvars()
    known = given is not None and ID.fullmatch(given)
    bind_contextvars(correlation=given if known else secrets.token_hex(8), **more)


def current() -> str:
    """The id of the request or task that this thread works on; a new one if there is none."""
    found: str = get_contextvars().get("correlation") or secrets.token_hex(8)
    return found


@before_task_publish.connect
def mark_message(headers: dict[str, Any], **_: Any) -> None:
    """Each message says whose it is, and since when it waits (Celery's own does not)."""
    headers["correlation"] = current()
    headers["published_at"] = time.time()


@task_prerun.connect
def read_message(task: Task, **_: Any) -> None:
    begin(getattr(task.request, "correlation", None), task=str(task.name))
