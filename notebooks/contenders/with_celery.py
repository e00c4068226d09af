"""Celery, with the settings of chapter 03. Its record, ledger and lease are left out."""

import secrets
from typing import Any

import postroom
from celery import Celery
from flask import Flask, request

import work

app = Flask(__name__)
celery = Celery("with_celery", broker=postroom.REDIS_URL)
celery.conf.update(
    task_ignore_result=True,
    task_acks_late=True,  # acknowledge at the end: what a dead worker held comes back
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={
        "visibility_timeout": 10,  # seconds without an acknowledgement; the default is an hour
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
)
retrying = {"autoretry_for": (work.MailServerAway,), "max_retries": 3, "retry_backoff": True}


@celery.task(queue="mail", **retrying)
def newsletter(job: str, **letter: Any) -> None:
    postroom.send_newsletter(job, **letter)


@celery.task(queue="reports", **retrying)
def report(job: str, lines: int) -> None:
    postroom.make_report(job, lines)


@app.get("/ping")
def ping() -> str:
    return "pong\n"


@app.post("/newsletters")
def post_newsletter() -> tuple[dict[str, str], int]:
    job = secrets.token_urlsafe(16)
    newsletter.delay(job, **request.get_json())
    return {"id": job}, 202


@app.post("/reports")
def post_report() -> tuple[dict[str, str], int]:
    job = secrets.token_urlsafe(16)
    report.delay(job, **request.get_json())
    return {"id": job}, 202
