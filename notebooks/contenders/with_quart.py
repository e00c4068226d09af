"""Quart without a queue: Flask's own words on asyncio, and the web process does the work itself."""

import asyncio
import os
import secrets
from concurrent.futures import ThreadPoolExecutor

import postroom
from quart import Quart, request

app = Quart(__name__)


@app.before_serving
async def threads() -> None:
    """As many background tasks at a time; the default is the cores and four."""
    slots = int(os.environ.get("SLOTS", "16"))
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(slots))


@app.get("/ping")
async def ping() -> str:
    return "pong\n"


@app.post("/newsletters")
async def post_newsletter() -> tuple[dict[str, str], int]:
    job = secrets.token_urlsafe(16)
    app.add_background_task(postroom.send_newsletter, job, **await request.get_json())
    return {"id": job}, 202


@app.post("/reports")
async def post_report() -> tuple[dict[str, str], int]:
    job = secrets.token_urlsafe(16)
    app.add_background_task(postroom.make_report, job, **await request.get_json())
    return {"id": job}, 202
