"""Dramatiq: acknowledges at the end by default; a worker that is not heard of counts as dead."""

import secrets
from typing import Any

import dramatiq
import postroom
from dramatiq.brokers.redis import RedisBroker
from flask import Flask, request

app = Flask(__name__)
broker = RedisBroker(
    url=postroom.REDIS_URL,
    heartbeat_timeout=5_000,  # ms until a silent worker counts as dead; the default is a minute
    maintenance_chance=1_000_000,  # look for dead workers at every command, not at one in 1000
)
dramatiq.set_broker(broker)
retrying = {"max_retries": 3, "min_backoff": 1_000}


@dramatiq.actor(queue_name="mail", **retrying)
def newsletter(job: str, **letter: Any) -> None:
    postroom.send_newsletter(job, **letter)


@dramatiq.actor(queue_name="reports", **retrying)
def report(job: str, lines: int) -> None:
    postroom.make_report(job, lines)


@app.get("/ping")
def ping() -> str:
    return "pong\n"


@app.post("/newsletters")
def post_newsletter() -> tuple[dict[str, str], int]:
    job = secrets.token_urlsafe(16)
    newsletter.send(job, **request.get_json())
    return {"id": job}, 202


@app.post("/reports")
def post_report() -> tuple[dict[str, str], int]:
    job = secrets.token_urlsafe(16)
    report.send(job, **request.get_json())
    return {"id": job}, 202
