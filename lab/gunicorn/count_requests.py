"""A gunicorn configuration that writes a line for each request as it comes in.

(The access log has a line for each request that has ended; a WebSocket has none there.)
"""

from typing import Any


def pre_request(worker: Any, request: Any) -> None:
    worker.log.info("REQUEST %s", request.uri)
