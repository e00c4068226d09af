"""Socket.IO: a client watches a job, and is told each time the job has got further."""

import logging
import time
from typing import Any

from flask_socketio import SocketIO, join_room
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis import RedisError

import jobs
import metrics
import tracing

socketio = SocketIO(async_mode="threading")  # same origin only, which is the default
log = logging.getLogger(__name__)


class Watch(BaseModel):
    """What `watch` must carry."""

    model_config = ConfigDict(extra="forbid", strict=True)

    job: str


class Seen(BaseModel):
    """What `seen` must carry: the `at` of an event, in seconds since 1970."""

    model_config = ConfigDict(extra="forbid", strict=True)

    at: float = Field(gt=0, allow_inf_nan=False)


@socketio.on("connect")
def connected(auth: Any = None) -> None:
    metrics.SOCKETS.inc()


@socketio.on("disconnect")
def disconnected(reason: Any = None) -> None:
    metrics.SOCKETS.dec()


@socketio.on("watch")
def watch(data: Any = None) -> dict[str, Any]:
    """Join the job's room. The acknowledgement is the job as it is now, so nothing is missed:
    first the room, then the document, and whatever happens in between is an event.
    """
    try:
        wanted = Watch.model_validate(data).job
    except ValidationError:
        return {"error": "Send an object with the id of a job: {job: …}."}
    try:
        job = jobs.find(wanted)
        if job is not None:
            join_room(job.id)
            job = jobs.find(wanted)  # a worker may have gone on meanwhile
    except RedisError:
        return {"error": "The broker is away.", "retry_after": 1}
    if job is None:
        return {"error": "There is no such job."}
    return job.document()


@socketio.on("seen")
def seen(data: Any = None) -> dict[str, Any]:
    """A browser has got an event: how long did the push take? A client may lie, within bounds."""
    try:
        seconds = time.time() - Seen.model_validate(data).at
    except ValidationError:
        return {"error": "Send an object with the time of an event: {at: …}."}
    if not 0 <= seconds <= 60:
        return {"error": "This is not the time of a push."}
    metrics.PUSH_SECONDS.observe(seconds)
    return {}


@socketio.on("*")
def unknown_event(name: str, *data: Any) -> dict[str, str]:
    return {"error": f"There is no event {name[:40]!r}."}


@socketio.on_error_default
def event_failed(error: BaseException) -> dict[str, str]:
    log.error("An event handler failed.", exc_info=error)
    return {"error": "The server failed on this event."}


def push(job: jobs.Job, through: SocketIO = socketio) -> None:
    """Tell everyone who watches this job. `at` is this machine's clock, in seconds.

    A worker has no clients. It pushes through a Socket.IO of its own that writes to Redis;
    every web process reads there, and tells its clients.
    """
    event = {**job.document(), "at": time.time(), "correlation": tracing.current()}
    through.emit("progress", event, to=job.id)
