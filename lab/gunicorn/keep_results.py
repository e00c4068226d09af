"""A gunicorn configuration under which Celery keeps the result of every task, as is its default.

The chapters ask it not to: this shows what that saves.
"""

from typing import Any


def post_worker_init(worker: Any) -> None:
    from celery_app import celery  # type: ignore[import-not-found]  # the chapter's own

    send = celery.send_task

    def send_and_keep(name: str, arguments: list[Any], **options: Any) -> Any:
        return send(name, arguments, **(options | {"ignore_result": False}))

    celery.send_task = send_and_keep
