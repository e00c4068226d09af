"""The application imports its task, and the task imports the application."""

from celery import Celery
from circle_tasks import make_report
from flask import Flask

app = Flask("shop")
celery = Celery("shop")


@app.post("/reports")
def post_report() -> str:
    return str(make_report.delay().id)
