"""RQ: a worker is a process, and forks another one for each job."""

import secrets
from typing import Any

import postroom
import rq
from flask import Flask, request
from redis import Redis

app = Flask(__name__)
redis = Redis.from_url(postroom.REDIS_URL)
mail = rq.Queue("mail", connection=redis, serializer="json")  # the default, pickle, can run code
reports = rq.Queue("reports", connection=redis, serializer="json")
again = rq.Retry(max=3)  # without this, what a dead worker held is only listed as failed


class Worker(rq.Worker):
    """Looks for abandoned jobs every 5 s; by default, every 10 minutes.

    A job counts as abandoned when it was not heard of for `job_monitoring_interval` (by default
    30 s) and a minute; that minute is no setting.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        often = {"maintenance_interval": 5, "job_monitoring_interval": 5, "worker_ttl": 20}
        super().__init__(*args, **often, **options)


@app.get("/ping")
def ping() -> str:
    return "pong\n"


@app.post("/newsletters")
def post_newsletter() -> tuple[dict[str, str], int]:
    job = secrets.token_urlsafe(16)
    letter = request.get_json()
    mail.enqueue(postroom.send_newsletter, job, **letter, retry=again)
    return {"id": job}, 202


@app.post("/reports")
def post_report() -> tuple[dict[str, str], int]:
    job = secrets.token_urlsafe(16)
    reports.enqueue(postroom.make_report, job, **request.get_json(), retry=again)
    return {"id": job}, 202
