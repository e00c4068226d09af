"""Logs for machines: one JSON object a line. `LOG_FORMAT=text` is for people."""

import logging.config
import os
import re
import sys
import time
from typing import Any

import structlog
from celery.signals import setup_logging
from flask import Flask, Response, g, request
from structlog.stdlib import ProcessorFormatter

import tracing

SERVICE = os.environ.get("SERVICE", "python")
QUIET = ("/ping", "/static/", "/metrics", "/health/", "/socket.io/")  # asked all the time
log = structlog.get_logger("postroom")


def name_service(_: Any, __: str, line: dict[str, Any]) -> dict[str, Any]:
    first = {"timestamp": line.pop("timestamp"), "level": line.pop("level")}
    return {**first, "service": SERVICE, "event": line.pop("event"), **line}


def hide_addresses(_: Any, __: str, line: dict[str, Any]) -> dict[str, Any]:
    """Who reads logs need not know who reads newsletters: `ann@example.com` → `***@example.com`."""
    for key, value in line.items():
        if isinstance(value, str):
            line[key] = re.sub(r"[^\s@<>\"]+(?=@[\w.-]+\.[^\W\d_])", "***", value)
    return line


BEFORE: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    name_service,
]
AFTER: dict[str, list[Any]] = {
    "json": [
        structlog.processors.format_exc_info,
        hide_addresses,
        structlog.processors.JSONRenderer(),
    ],
    "text": [
        structlog.processors.format_exc_info,
        hide_addresses,
        structlog.processors.TimeStamper("%H:%M:%S", utc=False),
        structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0),
    ],
}

# For the standard library's loggers too: Celery, gunicorn and our own files use them.
CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": ProcessorFormatter,
            "foreign_pre_chain": BEFORE,
            "processors": [
                ProcessorFormatter.remove_processors_meta,
                *AFTER[os.environ.get("LOG_FORMAT", "json")],
            ],
        }
    },
    "handlers": {
        "stdout": {"class": "logging.StreamHandler", "stream": sys.stdout, "formatter": "line"}
    },
    "root": {"level": "INFO", "handlers": ["stdout"]},
    "loggers": {"gunicorn.error": {"handlers": [], "level": "INFO", "propagate": True}},
}


@setup_logging.connect
def configure(**_: Any) -> None:
    logging.config.dictConfig(CONFIG)
    structlog.configure(
        processors=[*BEFORE, ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def install(app: Flask) -> None:
    """One line for each request, and the id of the request in its answer."""
    configure()
    app.before_request(begin)
    app.after_request(end)


def begin() -> None:
    tracing.begin(request.headers.get("X-Request-ID"))
    g.begun = time.perf_counter()


def end(response: Response) -> Response:
    response.headers["X-Request-ID"] = tracing.current()
    if not request.path.startswith(QUIET):
        log.info(
            f"{request.method} {request.url_rule or 'unknown'}",
            path=request.path[:200],
            status=response.status_code,
            ms=round(1000 * (time.perf_counter() - g.begun), 1),
        )
    return response
