"""The page, from chapter 03 on: the work is done in other processes, and any of them may die."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import lab
from lab.chapters import chapters
from lab.faults import is_written_down
from lab.waiting import wait_until

from .conftest import wait_for
from .test_push import WATCH_THE_BARS, bars, send, state, visit, wait_for_bar

CHAPTERS = [number for number in chapters() if number >= "03"]


@pytest.fixture
def workers(shared_chapter: lab.Chapter) -> Iterator[lab.Chapter]:
    yield shared_chapter
    shared_chapter.mailbox.mend()


@pytest.fixture
def page_of_workers(page: Page, workers: lab.Chapter) -> Page:
    script = workers.path / "node_modules/socket.io-client/dist/socket.io.min.js"
    if not script.exists():
        pytest.skip("Socket.IO's browser client is missing: npm ci in the chapter, or make test.")
    return visit(page, workers)


QUICK_WORKER = """
import app, events, jobs

job = jobs.Job("quick", "newsletter", total=2)
jobs.write_document(jobs.store, job)

def join_room(room):
    job.done = 1
    jobs.write_document(jobs.store, job)

events.join_room = join_room
print("done:", events.watch({"job": "quick"})["done"])
"""


def test_who_watches_hears_of_what_a_worker_did_before_the_room_was_joined(
    workers: lab.Chapter, tmp_path: Path
) -> None:
    settings = {"REDIS_PORT": str(workers.ports["REDIS_PORT"]), "DATA": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", QUICK_WORKER],
        cwd=workers.path,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "done: 1" in done.stdout, done.stderr


def test_the_heartbeat_does_not_notice_a_report(page_of_workers: Page) -> None:
    page = page_of_workers
    page.fill("[name=lines]", "60000")
    page.click("#report > button")
    state(page, "PROGRESS")
    beats = "n => Number(document.querySelector('#heartbeat').dataset.beats ?? 0) >= n"
    before = int(page.locator("#heartbeat").get_attribute("data-beats") or 0)
    wait_for(page, beats, arg=before + 8)
    expect(page.locator("#heartbeat")).not_to_have_class("slow")
    state(page, "SUCCESS")


def test_a_killed_web_process_stops_no_job_and_the_page_comes_back(
    page_of_workers: Page, workers: lab.Chapter
) -> None:
    page = page_of_workers
    page.evaluate(WATCH_THE_BARS)
    send(page, 60)
    wait_for_bar(page, 3)
    workers.hurt("web")
    expect(page.locator("#transport")).to_contain_text("lost")
    state(page, "SUCCESS")
    assert bars(page) == sorted(bars(page))
    expect(page.locator("#jobs article").first).to_contain_text("60 sent, 0 refused")


def kill_redis(chapter: lab.Chapter) -> None:
    """After it has handed all that it was told to the system: the disk is not under test."""
    wait_until(lambda: is_written_down(chapter))
    chapter.hurt("redis")


def test_the_page_hears_of_the_end_though_redis_was_away(
    page_of_workers: Page, workers: lab.Chapter
) -> None:
    """The last event may be lost: after some silence the page asks."""
    page = page_of_workers
    send(page, 15)
    wait_for_bar(page, 3)
    kill_redis(workers)
    state(page, "SUCCESS")


def test_without_redis_the_form_says_so(page_of_workers: Page, workers: lab.Chapter) -> None:
    kill_redis(workers)
    send(page_of_workers, 3)
    error = page_of_workers.locator("#newsletter > .error[data-field='']")
    expect(error).to_contain_text("The broker is away")
    workers.wait_until_ready()


ONE_WATCH_IS_REFUSED = """
() => {
  const socket = window.postroomSocket;
  const emit = socket.emit;
  socket.emit = (name, data, answer) => {
    if (name !== "watch") return emit.call(socket, name, data, answer);
    socket.emit = emit;
    answer({ error: "The broker is away.", retry_after: 1 });
    window.refused = true;
  };
}
"""


def test_a_job_is_not_lost_because_the_broker_is_away_when_it_is_watched(
    page_of_workers: Page, workers: lab.Chapter
) -> None:
    page = page_of_workers
    workers.mailbox.set(silent=True)
    page.evaluate(ONE_WATCH_IS_REFUSED)
    send(page, 3)
    wait_for(page, "window.refused")
    state(page, "PENDING")
    workers.mailbox.mend()
