"""A gunicorn configuration that adds a view which does one Redis write, and nothing else.

`POST /bare` is the yardstick for what a chapter's own POST costs on the same server.
"""

import os
from typing import Any

from redis import Redis


def post_worker_init(worker: Any) -> None:
    store = Redis(port=int(os.environ["REDIS_PORT"]))

    def bare() -> tuple[dict[str, int], int]:
        store.rpush("bare", "x" * 500)
        return {}, 202

    worker.wsgi.add_url_rule("/bare", "bare", bare, methods=["POST"])
