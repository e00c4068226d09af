"""A slow line to a server on this machine: as if it stood far away."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from urllib.parse import urlsplit


@contextmanager
def slow_line(url: str, one_way: float) -> Iterator[str]:
    """Another URL of the same server, to and from which every byte takes `one_way` seconds.

    Only bytes are late: a connection is open at once. With 0 it is `url` itself.
    """
    if one_way == 0:
        yield url
        return
    server = urlsplit(url)
    opened: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(server.hostname, server.port)
        await asyncio.gather(pass_on(reader, requests, one_way), pass_on(answers, writer, one_way))

    async def listen() -> None:
        over = asyncio.Event()
        listener = await asyncio.start_server(connect, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        opened.set_result((port, asyncio.get_running_loop(), over))
        await over.wait()
        listener.close()

    thread = threading.Thread(target=lambda: asyncio.run(listen()), daemon=True)
    thread.start()
    port, loop, over = opened.result(10)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Write what is read, `delay` seconds later, up to its end; an end by force is one too."""
    loop = asyncio.get_running_loop()
    try:
        while data := await reader.read(65_536):
            loop.call_later(delay, writer.write, data)
    except ConnectionError:
        pass
    loop.call_later(delay, writer.close)
