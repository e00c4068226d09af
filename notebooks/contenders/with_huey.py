"""Huey: the smallest of the queues. A worker takes a task out of Redis, and then only it has it."""

import secrets
from typing import Any

import postroom
from flask import Flask, request
from huey import RedisHuey
from huey.signals import SIGNAL_INTERRUPTED

app = Flask(__name__)
mail = RedisHuey("mail", url=postroom.REDIS_URL, results=False)
reports = RedisHuey("reports", url=postroom.REDIS_URL, results=False)


@mail.task(retries=3, retry_delay=2)
def newsletter(job: str, **letter: Any) -> None:
    postroom.send_newsletter(job, **letter)


@reports.task(retries=3, retry_delay=2)
def report(job: str, lines: int) -> None:
    postroom.make_report(job, lines)


@mail.signal(SIGNAL_INTERRUPTED)
def give_back(signal: str, task: Any) -> None:
    """Told to stop, an unfinished newsletter goes back into the queue; kill -9 tells nobody."""
    mail.enqueue(task)


@app.get("/ping")
def ping() -> str:
    return "pong\n"


@app.post("/newsletters")
def post_newsletter() -> tuple[dict[str, str], int]:
    job = secrets.token_urlsafe(16)
    newsletter(job, **request.get_json())
    return {"id": job}, 202


@app.post("/reports")
def post_report() -> tuple[dict[str, str], int]:
    job = secrets.token_urlsafe(16)
    report(job, **request.get_json())
    return {"id": job}, 202
