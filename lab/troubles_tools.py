"""Troubles of Flower, of Locust and of this repository's set-up. Each returns what people see."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.chapters import ROOT, folder, free_ports, start
from lab.load import command_of, supervised, wait_for_end
from lab.scene import TROUBLED, command, get, lines, log, python, redis, running
from lab.troubles_celery import worker

NOWHERE = "/nonexistent"
FLOWER = (
    "env -u FLOWER_BASIC_AUTH celery --quiet --app faulty_tasks flower "
    "--address=127.0.0.1 --logging=none --port={port}"
)


@contextmanager
def flower(redis_url: str, **settings: str) -> Iterator[str]:
    """Flower without a password; gives its URL."""
    (port,) = free_ports(1)
    page = {"flower": FLOWER.format(port=port)}
    with running(TROUBLED, page, REDIS_URL=redis_url, **settings):
        yield f"http://127.0.0.1:{port}"


def flower_empty() -> str:
    """A worker that sends no events does a task; then somebody looks into Flower."""
    with worker() as (celery, process):
        celery.send_task("slow", [0])
        lines(process, "worker", "succeeded")
        with flower(celery.conf.broker_url, FLOWER_UNAUTHENTICATED_API="true") as url:
            return f"Flower's tasks: {get(f'{url}/api/tasks').text}"


def flower_refuses() -> str:
    """Flower without a password is asked by a program."""
    with redis() as redis_url, flower(redis_url) as url:
        answer = get(f"{url}/api/workers")
        return f"{answer.status_code}: {answer.text}"


def locust_websocket() -> str:
    """Chapter 02's echo, a Locust user that emits (`faulty_users.py`), and Locust's row for it."""
    (port,) = free_ports(1)
    echo = {"echo": "python echo.py"}
    with running(folder("02"), echo, PORT=str(port)):
        url = f"http://127.0.0.1:{port}"
        get(url)
        users = [*command_of(url, TROUBLED / "faulty_users.py"), "--headless"]
        with (
            tempfile.TemporaryDirectory(prefix="unblocked-") as place,
            supervised(users, Path(place)) as process,
        ):
            return lines(process, "locust", "my event")


def locust_early() -> str:
    """Chapter 01 takes five seconds for a newsletter; a Locust run of two seconds sends one."""
    with start("01", MAIL_DELAY=1) as chapter:
        who = ["Publisher", "--tags", "newsletter", "--headless", "--only-summary", "-t", "2s"]
        said = locust([*command_of(chapter.url), *who])
        chapter.hurt("web")  # it would go on sending
        return said


def locust(arguments: list[str]) -> str:
    with (
        tempfile.TemporaryDirectory(prefix="unblocked-") as place,
        supervised(arguments, Path(place)) as process,
    ):
        wait_for_end(process, timeout=60)
        return log(process, "locust")


def locust_notebook() -> str:
    """A notebook with one cell, `import locust`, which may take five seconds."""
    return python(
        TROUBLED,
        """
        import nbformat
        from nbclient import NotebookClient

        cell = nbformat.v4.new_code_cell("import locust")
        notebook = nbformat.v4.new_notebook(cells=[cell])
        NotebookClient(notebook, timeout=5, shutdown_kernel="immediate").execute()
        """,
    )


def no_python() -> str:
    """`make tour` where no Python is that fits."""
    return make("tour", "PYTHON=")


def no_venv() -> str:
    """`make tour` with a Python that cannot make virtual environments."""
    return make("tour", "PYTHON=false")


def no_npm() -> str:
    """`make 02` where no npm is: this part of it."""
    return make("02_socketio/node_modules/.ready", PATH=NOWHERE)


def make(*arguments: str, **settings: str) -> str:
    """What `make` says in a copy that has nothing installed."""
    with tempfile.TemporaryDirectory(prefix="unblocked-") as place:
        for name in ("Makefile", "requirements.txt", "02_socketio/package-lock.json"):
            (Path(place) / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, Path(place) / name)
        program = shutil.which("make") or "make"
        # Not as a part of the `make` that has started this.
        return command(Path(place), program, *arguments, MAKEFLAGS="", MAKELEVEL="", **settings)


def not_a_clone() -> str:
    """A copy of the files without their history, and a command that asks git for it."""
    with tempfile.TemporaryDirectory(prefix="unblocked-") as place:
        git = shutil.which("git") or "git"
        above = str(Path(place).resolve().parent)
        return command(Path(place), git, "ls-files", LC_ALL="C", GIT_CEILING_DIRECTORIES=above)
