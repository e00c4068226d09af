"""Dead letters: jobs that were given up, with their reason. Look at them, then replay or discard.

dead             ids, by the time at which they were given up
job:<id>         keeps the reason (`error`) and the trace; it does not expire
job:<id>:ledger  is kept too: so a replay passes by whoever has their mail
"""

import os
from typing import Any

from flask import Blueprint, Response, jsonify, url_for
from structlog.contextvars import bound_contextvars
from werkzeug.exceptions import NotFound

import events
import jobs

MOST_KEPT = int(os.environ.get("MOST_DEAD_LETTERS", "1000"))
routes = Blueprint("dead_letters", __name__)


@routes.get("/dead-letters")
def get_dead_letters() -> Response:
    """The last 100, newest first."""
    found = jobs.store.zrevrange("dead", 0, 99, withscores=True)
    return jsonify([describe(job_id, given_up) for job_id, given_up in found])


@routes.post("/dead-letters/<job_id>/replay")
def post_replay(job_id: str) -> Response:
    job = replay(job_id)
    if job is None:
        raise NotFound(f"There is no dead letter {job_id!r}.")
    response = jsonify(job.document())
    response.status_code = 202
    response.location = url_for("get_job", job_id=job.id)
    return response


@routes.post("/dead-letters/replay")
def post_replay_all() -> Response:
    replayed = [replay(job_id) for job_id in jobs.store.zrange("dead", 0, -1)]
    response = jsonify([job.document() for job in replayed if job is not None])
    response.status_code = 202
    return response


@routes.delete("/dead-letters/<job_id>")
def delete_dead_letter(job_id: str) -> Response:
    if not discard(job_id):
        raise NotFound(f"There is no dead letter {job_id!r}.")
    return Response(status=204)


@routes.delete("/dead-letters")
def delete_all() -> Response:
    for job_id in jobs.store.zrange("dead", 0, -1):
        discard(job_id)
    return Response(status=204)


def describe(job_id: str, given_up: float) -> dict[str, Any]:
    record = jobs.store.hgetall(f"job:{job_id}")
    job = jobs.to_job(record)
    document = job.document() if job else {"id": job_id}
    return {**document, "given_up_at": given_up, "trace": record.get("trace", "")}


def replay(job_id: str) -> jobs.Job | None:
    """Have a job begin again where it was given up. Of two who ask at once, one gets None."""
    job = jobs.open_again(job_id)
    if job is None:
        return None
    with bound_contextvars(correlation=jobs.correlation(job), job=job.id):
        events.push(job)
        jobs.send_again(job)
    return job


def discard(job_id: str) -> bool:
    """Forget what the job had to do; its record stays until it expires."""
    if not jobs.store.zrem("dead", job_id):
        return False
    with jobs.store.pipeline() as write:
        write.delete(f"job:{job_id}:input")
        for key in (f"job:{job_id}", f"job:{job_id}:ledger"):
            write.expire(key, jobs.JOB_TTL)
        write.execute()
    jobs.forget_upload(job_id)
    return True


def discard_oldest() -> None:
    for job_id in jobs.store.zrange("dead", 0, -MOST_KEPT - 1):
        discard(job_id)
