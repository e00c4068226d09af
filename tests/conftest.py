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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of `shared_chapter` is put to every chapter, or to the CHAPTERS of its file.

    In a browser, which costs most, `make test` passes by those between the first and the last:
    what the page has there to the letter, it has in them as well.
    """
    if "shared_chapter" not in metafunc.fixturenames:
        return
    numbers: list[str] = getattr(metafunc.module, "CHAPTERS", lab.chapters())
    in_browser = "page" in metafunc.fixturenames
    everywhere = metafunc.definition.get_closest_marker("every_chapter")
    between = set(numbers[1:-1]) if in_browser and not everywhere else set()
    params = [
        pytest.param(number, marks=pytest.mark.long if number in between else ())
        for number in numbers
    ]
    metafunc.parametrize("shared_chapter", params, indirect=True, scope="session")


SHARED = {
    "counted",
    "four_slots",
    "later_table",
    "network",
    "one_slot",
    "place",
    "running",
    "shared_chapter",
    "shipped",
    "small",
    "tables",
}
"""Fixtures that several tests share: with several processes, each test that has one goes where
the others go."""

LONGEST = ("test_faults", "test_chapters", "test_walkthrough", "test_alone", "test_monitoring")
"""The files that begin first, so that none of them is left for the end."""


COLLECTED = pytest.StashKey[list[str]]()
"""The ids of all tests that were found, but for the long ones."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[COLLECTED] = [item.nodeid for item in items if not item.get_closest_marker("long")]
    for item in items:
        shared = sorted(SHARED & set(getattr(item, "fixturenames", ())))
        if shared:
            item.add_marker(pytest.mark.xdist_group(group(item, shared)))
    items.sort(key=lambda item: (*LONGEST, item.path.stem).index(item.path.stem))


def group(item: pytest.Item, shared: list[str]) -> str:
    """A name for what the item shares: a chapter by its number, or its file's own fixtures."""
    callspec = getattr(item, "callspec", None)
    params = callspec.params if callspec else {}
    if "shared_chapter" in shared:
        return f"chapter {params['shared_chapter']}"
    return " ".join([item.path.stem, *(f"{name} {params.get(name, '')}" for name in shared)])


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is; a test that needs it is skipped where there is none.

    The one that has no window, which Debian packs by itself, takes half of the time.
    """
    for name in ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"):
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


QUICK: dict[str, Any] = {"VISIBILITY_TIMEOUT": 4, "LEASE": 2, "LONGEST_RETRY": 3}
"""Shorter than what the chapters say, and in the same order: a test need not wait for ten seconds
until a message comes back. The rows of the fault table that run as shipped are in test_faults."""


@pytest.fixture(scope="session")
def shared_chapter(request: pytest.FixtureRequest) -> Iterator[lab.Chapter]:
    """A chapter that runs for all tests that can share it. What is killed comes back."""
    more: dict[str, Any] = {
        "THREADS": 32,
        "MAIL_DELAY": 0.1,
        "RETRY_AFTER": 0.2,
        "SMTP_TIMEOUT": 60,
    }
    # On a busy machine Redis takes longer than 0.4 s, and no answer here is to be 503 for that.
    more |= {"LONGEST_WAIT": 600, "LOOK_EVERY": 3, "RESEND_AFTER": 5, "REDIS_TIMEOUT": 10}
    pauses = {"redis": 3.0}
    with lab.start(request.param, restart=True, restart_after=pauses, **QUICK, **more) as running:
        yield running


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """A shared chapter ends with its group's last test: also an idle one takes a fifth of a core.

    (One process that runs all tests has no groups: a later file may need the chapter again.)
    """
    shared = getattr(item, "funcargs", {}).get("shared_chapter")
    grouped = "PYTEST_XDIST_WORKER" in os.environ
    if grouped and shared and shared_number(item) != shared_number(nextitem):
        shared.stop()


def shared_number(item: pytest.Item | None) -> str | None:
    """The number of the chapter that a test shares with others."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("shared_chapter") if callspec else None


@pytest.fixture
def chapter(shared_chapter: lab.Chapter) -> Iterator[lab.Chapter]:
    """Each chapter in turn, running; its mail server takes no time, and has got no mail yet."""
    shared_chapter.mailbox.empty()
    shared_chapter.mailbox.set(delay=0)
    yield shared_chapter
    shared_chapter.mailbox.mend()


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
        page.wait_for_timeout(100)
