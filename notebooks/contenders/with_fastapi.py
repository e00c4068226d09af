"""FastAPI without a queue: the web process does the work itself, after it has answered."""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import postroom
from anyio.to_thread import current_default_thread_limiter
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel


@asynccontextmanager
async def threads(app: FastAPI) -> AsyncIterator[None]:
    """As many background tasks at a time; the default is 40."""
    current_default_thread_limiter().total_tokens = int(os.environ.get("SLOTS", "16"))
    yield


app = FastAPI(lifespan=threads)


class Newsletter(BaseModel):
    subject: str
    body: str
    recipients: list[str]


class Report(BaseModel):
    lines: int


@app.get("/ping")
async def ping() -> PlainTextResponse:
    return PlainTextResponse("pong\n")


@app.post("/newsletters", status_code=202)
async def post_newsletter(letter: Newsletter, background: BackgroundTasks) -> dict[str, str]:
    job = secrets.token_urlsafe(16)
    background.add_task(postroom.send_newsletter, job, **letter.model_dump())
    return {"id": job}


@app.post("/reports", status_code=202)
async def post_report(report: Report, background: BackgroundTasks) -> dict[str, str]:
    job = secrets.token_urlsafe(16)
    background.add_task(postroom.make_report, job, **report.model_dump())
    return {"id": job}
