"""Troubles of Flask, of its servers and of Socket.IO. Each function returns what people see."""

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import requests
import socketio
from flask import Flask
from flask_socketio import SocketIO

from lab.chapters import LabError, check_free, folder, free_ports, read_procfile, start
from lab.load import addresses
from lab.scene import TROUBLED, command, error_of, lines, python, redis, running, until

POLLING = "/socket.io/?EIO=4&transport=polling"
LETTER = {"subject": "News", "body": "Hello", "recipients": addresses(1)}


def invalid_session() -> str:
    """Chapter 02 with two web processes; a client that polls meets the other one."""
    with start("02", WORKERS=2) as chapter:

        def look() -> str:
            opened = requests.get(chapter.url + POLLING, timeout=10).text
            session = json.loads(opened.lstrip("0"))["sid"]
            hello = requests.post(f"{chapter.url}{POLLING}&sid={session}", data="40", timeout=10)
            return "" if hello.ok else f"{hello.status_code}: {hello.text}"

        return until(look)


def other_origin() -> str:
    """Chapter 02's echo, asked by a page of another site."""
    return python(
        folder("02"),
        """
        import echo

        page = {"Origin": "http://shop.example"}
        answer = echo.app.test_client().get("/socket.io/?EIO=4&transport=polling", headers=page)
        print(answer.status, answer.text)
        """,
    )


def client_version() -> str:
    """Chapter 02's echo, asked by a client of Socket.IO's version 2."""
    return python(
        folder("02"),
        """
        import echo

        answer = echo.app.test_client().get("/socket.io/?EIO=3&transport=polling")
        print(answer.status, answer.text)
        """,
    )


def unsafe_werkzeug() -> str:
    """Chapter 02's echo on Flask's own server, started where no terminal is."""
    return python(folder("02"), "import echo\n\necho.socketio.run(echo.app)")


def request_context() -> str:
    """Flask-SocketIO's `emit`, called where no event is being handled."""
    return python(
        folder("02"),
        """
        import echo
        from flask_socketio import emit

        with echo.app.app_context():
            emit("progress", {"done": 1})
        """,
    )


def gevent_by_itself() -> str:
    """Flask-SocketIO chooses how to run, and gevent is installed, since Locust needs it."""
    return python(
        folder("02"),
        """
        from flask import Flask
        from flask_socketio import SocketIO

        print("async_mode:", SocketIO(Flask("shop")).async_mode)
        """,
    )


def lost_emit() -> str:
    """Chapter 03's web process and a browser; somebody else emits, in three ways."""
    (port,) = free_ports(1)
    web = {"web": read_procfile(folder("03"))["web"]}
    with redis() as url, running(folder("03"), web, REDIS_URL=url, PORT=str(port)):
        browser = socketio.SimpleClient()
        until(lambda: connected(browser, port))
        without_queue = SocketIO(Flask("worker"), async_mode="threading")
        with_queue = SocketIO(message_queue=url, async_mode="threading")
        try:
            said = ["no app, no queue: " + error_of(lambda: SocketIO().emit("progress", {}))]
            said.append(f"an app, no queue: {received(browser, without_queue)}")
            said.append(f"no app, the queue: {received(browser, with_queue, patience=10)}")
            return "\n".join(said)
        finally:
            browser.disconnect()


def connected(browser: socketio.SimpleClient, port: int) -> str:
    try:
        browser.connect(f"http://127.0.0.1:{port}", transports=["websocket"])
    except socketio.exceptions.ConnectionError:
        return ""
    return "connected"


def received(browser: socketio.SimpleClient, emitter: SocketIO, patience: float = 1) -> str:
    emitter.emit("progress", {"done": 1})
    try:
        return f"the browser receives {browser.receive(timeout=patience)[0]}"
    except socketio.exceptions.TimeoutError:
        return "the browser receives nothing"


def circular_import() -> str:
    """`circle_app.py` imports `circle_tasks.py`, which imports `circle_app.py`."""
    return python(TROUBLED, "import circle_app")


def address_in_use() -> str:
    """A port that somebody listens on, wanted by Flask's server, by gunicorn and by `make`."""
    with listening() as port:
        flask = [sys.executable, "-m", "flask", "--app", "app", "run", "--port", str(port)]
        said = [command(folder("01"), *flask)]
        web = {"web": f"gunicorn --no-control-socket --bind 127.0.0.1:{port} app:app"}
        with running(folder("01"), web) as processes:
            said.append(lines(processes, "web", "Connection in use"))
        said.append(error_of(lambda: check_free("PORT", port)))
        return "\n".join(said)


@contextmanager
def listening() -> Iterator[int]:
    """A port that is taken, and says nothing."""
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        yield port


def worker_timeout() -> str:
    """Chapter 01 on gunicorn's `sync` workers, with a second for each request, and a slow mail."""
    impatient = {"--worker-class gthread": "--worker-class sync --timeout 1"}
    with start("01", replace=impatient) as chapter:
        chapter.mailbox.set(silent=True)
        try:
            requests.post(f"{chapter.url}/newsletters", json=LETTER, timeout=20)
        except requests.ConnectionError as error:
            return f"{lines(chapter, 'web', 'WORKER TIMEOUT')}\n{error}"
        raise LabError("This time it went well.")


def metrics_folder() -> str:
    """Prometheus' client, asked for the sum of several processes, without the folder they share."""
    return python(
        folder("04"),
        """
        from prometheus_client import CollectorRegistry
        from prometheus_client.multiprocess import MultiProcessCollector

        MultiProcessCollector(CollectorRegistry())
        """,
        PROMETHEUS_MULTIPROC_DIR="",
    )
