"""What the tests share. In CI a skipped test is a failure: there, nothing may be missing."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Page

import lab

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """A shell that starts us in the background has Ctrl-C ignored, and so would our children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if skips_fail(terminalreporter):
        terminalreporter.write_line("In CI a skipped test is a failure.", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if skips_fail(reporter) and session.exitstatus == 0:
        session.exitstatus = 1


def skips_fail(reporter: Any) -> bool:
    return bool(os.environ.get("CI") and reporter.stats.get("skipped"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a running chapter stay together; the others go where there is room."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        values = [str(value) for value in callspec.params.values()] if callspec else []
        number = next((value for value in values if value in lab.chapters()), "")
        item.add_marker(pytest.mark.xdist_group(f"{item.path.stem} {number}"))


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is; a test that needs it is skipped where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("No Chromium on PATH. On Debian or Ubuntu: apt-get install chromium")


@pytest.fixture(scope="session")
def browser_type_launch_args(chromium: str) -> dict[str, Any]:
    """Start the system's Chromium, which may talk to this machine only."""
    return {
        "executable_path": chromium,
        "args": [
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ],
    }


@pytest.fixture(scope="module", params=lab.chapters())
def chapter(request: pytest.FixtureRequest) -> Iterator[lab.Chapter]:
    """Each chapter in turn, running; its mail server takes no time, and no queue is too long."""
    with lab.start(request.param, MAIL_DELAY=0, THREADS=8, LONGEST_WAIT=600) as running:
        yield running


@contextmanager
def silent(chapter: lab.Chapter) -> Iterator[None]:
    """Until the end of the block, the mail server takes a mail and says nothing."""
    chapter.mailbox.set(silent=True)
    try:
        yield
    finally:
        chapter.mailbox.set(silent=False)


def visit(page: Page, chapter: lab.Chapter, query: str = "") -> Page:
    """Open the page, and wait until the jobs of earlier tests are on it.

    They come a little later than the page, and above the card of a job that is sent too soon.
    """
    page.goto(chapter.url + query)
    jobs = requests.get(f"{chapter.url}/jobs", timeout=30).json()
    drawn = "number => document.querySelectorAll('#jobs article').length >= number"
    wait_for(page, drawn, arg=len(jobs))
    return page


def wait_for(page: Page, expression: str, arg: Any = None, timeout: float = 30.0) -> None:
    """Wait until an expression in the page is true, or a function of `arg` returns so.

    (Playwright's own `wait_for_function` needs `eval`, which the page's policy forbids.)
    """
    deadline = time.monotonic() + timeout
    while not page.evaluate(expression, arg):
        assert time.monotonic() < deadline, f"not so within {timeout:g} s: {expression}"
        page.wait_for_timeout(20)
