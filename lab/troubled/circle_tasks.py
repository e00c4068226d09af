"""The other half of the circle: see circle_app.py."""

from circle_app import celery


@celery.task
def make_report() -> None:
    pass
