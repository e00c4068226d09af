"""What the web process tells of itself: `/metrics`, and `/health/…` for whoever restarts things."""

import time
from http import HTTPMethod
from typing import Any

from flask import Blueprint, Flask, Response, g, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

import jobs
import metrics
from celery_app import LOOK_EVERY, QUEUES, celery

routes = Blueprint("monitoring", __name__)
registry = metrics.registry(metrics.OfThisService(), metrics.OfTheQueues())
STALE = 3 * LOOK_EVERY  # seconds, in which three canaries come


def install(app: Flask) -> None:
    app.register_blueprint(routes)
    app.after_request(count)


def count(response: Response) -> Response:
    endpoint = request.endpoint or "none"  # not the path: ids would make a series of each job
    method = request.method if request.method in HTTPMethod.__members__ else "other"
    metrics.REQUESTS.labels(method, endpoint, response.status_code).inc()
    metrics.REQUEST_SECONDS.labels(endpoint).observe(time.perf_counter() - g.begun)
    return response


@routes.get("/metrics")
def get_metrics() -> Response:
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


@routes.get("/health/live")
def live() -> Response:
    """This process answers. If not: restart it."""
    return jsonify({"status": "live"})


@routes.get("/health/ready")
def ready() -> Response:
    """It can do what it is for: else 503. Send no visitors here, but do not restart it."""
    jobs.store.ping()
    return jsonify({"status": "ready"})


@routes.get("/health/workers")
def workers() -> Response:
    """Who answers, and who takes work from each queue: to do the one is not to do the other."""
    jobs.store.ping()  # or 503, before anything waits for answers
    # On a connection of its own: one that has waited in vain swallows the next answer.
    with celery.connection_for_write() as connection:
        ask = {"reply": True, "timeout": 0.5, "connection": connection}
        answers = celery.control.broadcast("slots", **ask) or []
    alive = {name: found for answer in answers for name, found in answer.items()}
    queues = {queue: consumption(queue, alive) for queue in QUEUES}
    failing = any(found["state"] in ("stalled", "unproven") for found in queues.values())
    response = jsonify({"status": "failing" if failing else "ok", "alive": alive, "queues": queues})
    response.status_code = 503 if failing else 200
    return response


def consumption(queue: str, alive: dict[str, Any]) -> dict[str, Any]:
    """Whether a task was taken from the queue of late, or all slots are at work on older ones."""
    last = jobs.store.hget("consumed", queue)
    ago = round(time.time() - float(last), 1) if last else None
    waiting = jobs.store.llen(queue)
    slots = [worker for worker in alive.values() if queue in worker["queues"]]
    if ago is not None and ago < STALE:
        state = "consuming"
    elif slots and all(worker["busy"] >= worker["slots"] for worker in slots):
        state = "busy"
    else:
        state = "stalled" if waiting else "unproven"  # not even a canary came: is beat running?
    return {"state": state, "last_taken_seconds_ago": ago, "waiting": waiting}
