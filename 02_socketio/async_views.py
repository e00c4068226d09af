"""Asyncio inside Flask: what an `async def` view does, and what it does not.

Run it: flask --app async_views run --port 8001
Then ask for /greetings/one-by-one, /greetings/together, /left-behind, /left-behind/ran.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from flask import Flask, Response, jsonify

SERVERS = 10
DELAY = 0.2  # seconds until a mail server greets

app = Flask(__name__)
left_behind_ran = 0


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A mail server that takes its time to say hello."""
    await asyncio.sleep(DELAY)
    writer.write(b"220 mail.example.com\r\n")
    await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def mail_servers() -> AsyncIterator[list[int]]:
    """Ten slow mail servers; gives their ports."""
    servers = [await asyncio.start_server(greet, "127.0.0.1", 0) for _ in range(SERVERS)]
    yield [server.sockets[0].getsockname()[1] for server in servers]
    for server in servers:
        server.close()


async def greeting(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    line = await reader.readline()
    writer.close()
    return line.decode().strip()


@app.get("/greetings/one-by-one")
async def one_by_one() -> Response:
    async with mail_servers() as ports:
        begun = time.perf_counter()
        greetings = [await greeting(port) for port in ports]
        return jsonify(greetings=greetings, seconds=time.perf_counter() - begun)


@app.get("/greetings/together")
async def together() -> Response:
    async with mail_servers() as ports:
        begun = time.perf_counter()
        greetings = await asyncio.gather(*(greeting(port) for port in ports))
        return jsonify(greetings=greetings, seconds=time.perf_counter() - begun)


@app.get("/wait/sync")
def wait_sync() -> Response:
    time.sleep(DELAY)
    return jsonify(waited=DELAY)


@app.get("/wait/async")
async def wait_async() -> Response:
    """Holds its slot as long as `wait_sync` does: Flask runs one event loop per request."""
    await asyncio.sleep(DELAY)
    return jsonify(waited=DELAY)


async def later() -> None:
    global left_behind_ran
    await asyncio.sleep(DELAY)
    left_behind_ran += 1


@app.get("/left-behind")
async def left_behind() -> Response:
    """Starts a task and answers. The event loop ends with the request, and the task with it."""
    asyncio.create_task(later())  # noqa: RUF006  (kept nowhere: that is the mistake to see)
    return jsonify(started=True)


@app.get("/left-behind/ran")
def ran() -> Response:
    return jsonify(ran=left_behind_ran)
