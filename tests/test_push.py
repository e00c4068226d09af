"""Push, from chapter 02 on: a Socket.IO client and a browser follow a job to its end.

Where a test looks at a job that is under way, the mail server is silent until it has looked.
"""

import base64
import hashlib
import json
import os
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import BrowserContext, Page, expect

import lab
from lab.chapters import chapters, folder, free_ports, is_open
from lab.waiting import wait_until
from lab.watch import Watcher

from . import conftest
from .conftest import silent, wait_for

CHAPTERS = [number for number in chapters() if number >= "02"]
TIMEOUT = 40_000  # ms, for whatever a browser waits for
NO_CLIENT = "Socket.IO's browser client is missing: npm ci in the chapter, or make test."


@pytest.fixture
def chapter(shared_chapter: lab.Chapter) -> Iterator[lab.Chapter]:
    """A mail takes longer than two pushes are apart: each is a step that is pushed."""
    shared_chapter.mailbox.set(delay=0.12)
    yield shared_chapter
    shared_chapter.mailbox.mend()


def newsletter(chapter: lab.Chapter, recipients: int = 5) -> str:
    letter = {"subject": "News", "body": "Hello", "recipients": lab.addresses(recipients)}
    answer = lab.post(chapter.url, "/newsletters", letter)
    assert answer.status_code == 202
    return str(answer.json()["id"])


# --- A client -------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["polling", "websocket", ""])
def test_every_step_is_pushed_over_each_transport(chapter: lab.Chapter, transport: str) -> None:
    with Watcher(chapter.url, transport) as watcher:
        with silent(chapter):
            job = newsletter(chapter)
            assert watcher.watch(job)["done"] == 0
        last = watcher.wait_for_end(job)
        assert watcher.transport == (transport or "websocket")
    assert (last["state"], last["done"], last["total"]) == ("SUCCESS", 5, 5)
    done = [receipt.document["done"] for receipt in watcher.receipts]
    assert done == sorted(done)
    assert set(done) - {0} == {1, 2, 3, 4, 5}  # 0: it has started


def test_the_events_are_the_job_document(chapter: lab.Chapter) -> None:
    with Watcher(chapter.url) as watcher:
        with silent(chapter):
            job = newsletter(chapter, 1)
            watcher.watch(job)
        pushed = watcher.wait_for_end(job)
    looked_up = requests.get(f"{chapter.url}/jobs/{job}", timeout=30).json()
    assert pushed | looked_up == pushed
    assert set(pushed) - set(looked_up) <= {"at", "correlation"}


def test_who_comes_late_gets_the_present_document(chapter: lab.Chapter) -> None:
    with Watcher(chapter.url) as early, Watcher(chapter.url) as late:
        with silent(chapter):
            job = newsletter(chapter, 3)
            early.watch(job)
        early.wait_for_end(job)
        document = late.watch(job)
    assert (document["state"], document["done"]) == ("SUCCESS", 3)


def test_who_comes_back_and_watches_again_is_told_the_rest(chapter: lab.Chapter) -> None:
    """The server's side of a lost connection, which no question after a silence can hide."""
    with silent(chapter):
        with Watcher(chapter.url) as lost:
            job = newsletter(chapter, 3)
            lost.watch(job)
        again = Watcher(chapter.url)
        assert again.watch(job)["done"] == 0
    with again:
        last = again.wait_for_end(job)
    assert (last["state"], last["done"]) == ("SUCCESS", 3)


def test_only_who_watches_is_told(chapter: lab.Chapter) -> None:
    with Watcher(chapter.url) as watching, Watcher(chapter.url) as other:
        with silent(chapter):
            job = newsletter(chapter, 2)
            watching.watch(job)
        watching.wait_for_end(job)
        assert other.watch(job)["state"] == "SUCCESS"  # all that was sent before has arrived
        assert other.receipts == []


def test_a_failed_and_a_cancelled_job_are_pushed_as_such(chapter: lab.Chapter) -> None:
    with Watcher(chapter.url) as watcher:
        with silent(chapter):
            job = newsletter(chapter, 3)
            watcher.watch(job)
            requests.delete(f"{chapter.url}/jobs/{job}", timeout=30)
        revoked = watcher.wait_for_end(job)
        assert revoked["state"] == "REVOKED"
        assert revoked["done"] < revoked["total"]
        chapter.mailbox.set(drop_every=1)
        job = newsletter(chapter, 3)
        if watcher.watch(job)["state"] != "FAILURE":
            assert watcher.wait_for_end(job)["state"] == "FAILURE"
    document = requests.get(f"{chapter.url}/jobs/{job}", timeout=30).json()
    assert document["done"] < document["total"]
    assert document["error"]


def test_a_client_that_vanishes_in_the_middle_harms_nobody(chapter: lab.Chapter) -> None:
    with Watcher(chapter.url) as staying:
        leaving = Watcher(chapter.url)
        with silent(chapter):
            job = newsletter(chapter, 3)
            staying.watch(job)
            leaving.watch(job)
            leaving.client.eio.ws.sock.close()  # without a word, as a laptop that is shut
        assert staying.wait_for_end(job)["state"] == "SUCCESS"
    assert chapter.answers()


@pytest.mark.parametrize("job", ["nobody", "", 7, None, {"a": 1}, ["x"], "x" * 100_000])
def test_a_wrong_watch_is_acknowledged_with_an_error(chapter: lab.Chapter, job: Any) -> None:
    with Watcher(chapter.url) as watcher:
        assert watcher.watch(job)["error"]


def test_an_unknown_event_is_acknowledged_with_an_error(chapter: lab.Chapter) -> None:
    with Watcher(chapter.url) as watcher:
        assert "shout" in watcher.client.call("shout", {"a": 1}, timeout=10)["error"]
        assert watcher.client.call("watch", timeout=10)["error"]
        assert watcher.client.call("watch", ("two", "arguments"), timeout=10)["error"]
        job = newsletter(chapter, 1)
        assert watcher.watch(job)["id"] == job  # and the connection still works


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_a_page_of_another_site_may_not_connect(chapter: lab.Chapter, transport: str) -> None:
    url = f"{chapter.url}/socket.io/?EIO=4&transport={transport}"
    headers = {"Origin": "https://elsewhere.example"}
    if transport == "websocket":
        headers |= {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        headers |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    refused = requests.get(url, headers=headers, timeout=30)
    assert refused.status_code == 400
    assert "accepted origin" in refused.text
    if transport == "polling":
        assert requests.get(url, headers={"Origin": chapter.url}, timeout=30).status_code == 200


def test_two_hundred_clients_hear_of_one_job() -> None:
    with (
        lab.start("02", THREADS=220, MAIL_DELAY=0, SMTP_TIMEOUT=60) as running,
        ExitStack() as stack,
    ):
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda _: Watcher(running.url), range(200)))
        watchers = [stack.enter_context(watcher) for watcher in made]
        with silent(running):
            job = newsletter(running, 2)
            for watcher in watchers:
                watcher.watch(job)
        for watcher in watchers:
            assert watcher.wait_for_end(job)["done"] == 2
        assert running.answers()


def test_one_tab_more_than_threads_finds_the_site_full() -> None:
    with lab.start("02", THREADS=3) as running, ExitStack() as stack:
        tabs = [stack.enter_context(Watcher(running.url)) for _ in range(3)]
        assert not running.answers(timeout=1)
        tabs[0].close()
        assert running.answers(timeout=10)


def test_two_web_processes_break_polling_but_not_websockets() -> None:
    """With polling, each request may reach the process that does not know the session."""
    with lab.start("02", WORKERS=2) as running:
        for _ in range(5):
            with Watcher(running.url, "websocket") as watcher:
                assert all("error" in watcher.watch("nobody") for _ in range(5))
        wait_until(lambda: len(running.processes("web")) == 3)
        _, left, right = running.processes("web")
        url = f"{running.url}/socket.io/?EIO=4&transport=polling"
        left.suspend()  # by luck one process may take many in a row: here there is no choice
        sid = requests.get(url, timeout=20).text.split('"sid":"')[1].split('"')[0]
        left.resume()
        right.suspend()
        answer = requests.post(f"{url}&sid={sid}", data="40", timeout=20)
        right.resume()
        assert answer.status_code == 400
        assert "Invalid session" in running.log("web", lines=500)


@pytest.mark.parametrize("number", CHAPTERS)
def test_a_client_from_the_cdn_must_be_the_one_from_npm(number: str) -> None:
    """The same version, the same bytes; and each page that loads it says so to the browser."""
    module = runpy.run_path(str(folder(number) / "browser_client.py"))
    installed = module["FOLDER"] / module["FILE"]
    if not installed.exists():
        pytest.skip(NO_CLIENT)
    digest = base64.b64encode(hashlib.sha384(installed.read_bytes()).digest()).decode()
    version = json.loads((folder(number) / "package.json").read_text())["dependencies"]
    address = f"https://cdn.socket.io/{version['socket.io-client']}/{module['FILE']}"
    assert module["CDN"] == (address, f"sha384-{digest}")
    assert module["HERE"].src == f"/client/{module['FILE']}"
    told = 'integrity="{{ socket_io_client.integrity }}" crossorigin="anonymous"'
    for page in folder(number).glob("templates/*.html"):
        assert page.read_text().count("socket_io_client.src") == page.read_text().count(told)


# --- A browser ------------------------------------------------------------------------


@pytest.fixture
def client_script(chapter: lab.Chapter) -> None:
    script = folder(chapter.number) / "node_modules/socket.io-client/dist/socket.io.min.js"
    if not script.exists():
        pytest.skip(NO_CLIENT)


@pytest.fixture
def postroom(page: Page, chapter: lab.Chapter, client_script: None) -> Page:
    return visit(page, chapter)


def visit(page: Page, chapter: lab.Chapter, query: str = "") -> Page:
    page.set_default_timeout(TIMEOUT)
    expect.set_options(timeout=TIMEOUT)
    return conftest.visit(page, chapter, query)


def send(page: Page, recipients: int) -> None:
    page.fill("[name=recipients]", "\n".join(lab.addresses(recipients)))
    page.click("#newsletter > button")


def newest_job(page: Page) -> str:
    """The id of the job that was sent last, once the server has said it."""
    card = page.locator("#jobs article").first
    expect(card).to_have_attribute("data-job", re.compile("."))
    return card.get_attribute("data-job") or ""


def wait_for_bar(page: Page, value: int) -> None:
    """Wait until the newest job's bar stands at `value` or beyond."""
    reached = "value => document.querySelector('#jobs article progress')?.value >= value"
    wait_for(page, reached, arg=value)


def state(page: Page, wanted: str) -> None:
    expect(page.locator("#jobs article").first).to_have_attribute("data-state", wanted)


WATCH_THE_CONNECTION = """
() => {
  window.said = [];
  const transport = document.querySelector("#transport");
  const note = () => window.said.push(transport.textContent);
  new MutationObserver(note).observe(transport, { childList: true });
}
"""
WATCH_THE_WATCHING = """
() => {
  const socket = window.postroomSocket;
  const emit = socket.emit.bind(socket);
  let sent = [];
  socket.emit = (name, ...rest) => {
    sent.push(name);
    return emit(name, ...rest);
  };
  socket.on("disconnect", () => { sent = []; });
  // The page's own listener was first: what it sends when it is connected again, it has sent.
  socket.on("connect", () => { window.sentAgain = sent; });
}
"""
COUNT_THE_RUNNING = """
() => [...document.querySelectorAll("#jobs article")].filter(
  (card) => !["SUCCESS", "FAILURE", "REVOKED"].includes(card.dataset.state),
).length
"""
WATCH_THE_BARS = """
() => {
  window.bars = {};
  new MutationObserver(() => {
    for (const card of document.querySelectorAll("#jobs article[data-job]")) {
      (window.bars[card.dataset.job] ??= []).push(card.querySelector("progress").value);
    }
  }).observe(document.querySelector("#jobs"), { subtree: true, attributes: true, childList: true });
}
"""


def bars(page: Page) -> list[int]:
    """Every value that the newest job's bar has had since WATCH_THE_BARS, in order."""
    newest = "window.bars[document.querySelector('#jobs article').dataset.job]"
    values: list[int] = page.evaluate(newest)
    return values


@pytest.mark.parametrize(
    ("query", "words"),
    [("", "WebSocket"), ("?transport=polling", "long polling"), ("?transport=websocket", "Web")],
)
def test_the_bar_moves_and_the_page_says_how(
    page: Page, chapter: lab.Chapter, client_script: None, query: str, words: str
) -> None:
    visit(page, chapter, query)
    expect(page.locator("#transport")).to_contain_text(words)
    page.evaluate(WATCH_THE_BARS)
    send(page, 5)
    state(page, "SUCCESS")
    assert bars(page) == sorted(bars(page))
    assert len(set(bars(page))) > 2  # it moved, and did not jump to the end
    expect(page.locator("#jobs article").first).to_contain_text("5 sent, 0 refused")


def test_a_bar_never_goes_back(postroom: Page) -> None:
    """Documents may come out of order: an older one changes nothing, nor does any after the end."""
    after = """async (documents) => {
      const { draw } = await import("/static/cards.js");
      for (const [state, done] of documents) {
        draw({ id: "made-up", kind: "newsletter", state, done, total: 9, result: null });
      }
      const card = document.querySelector("[data-job=made-up]");
      return [card.dataset.state, card.querySelector("progress").value];
    }"""
    assert postroom.evaluate(after, [["PROGRESS", 5], ["PROGRESS", 3]]) == ["PROGRESS", 5]
    assert postroom.evaluate(after, [["REVOKED", 6], ["PROGRESS", 7]]) == ["REVOKED", 6]


def test_the_heartbeat_does_not_notice_a_newsletter(postroom: Page, chapter: lab.Chapter) -> None:
    with silent(chapter):
        send(postroom, 2)
        beats = "n => Number(document.querySelector('#heartbeat').dataset.beats ?? 0) >= n"
        before = int(postroom.locator("#heartbeat").get_attribute("data-beats") or 0)
        wait_for(postroom, beats, arg=before + 10)
        state(postroom, "STARTED")
        expect(postroom.locator("#heartbeat")).not_to_have_class("slow")
    state(postroom, "SUCCESS")


def test_a_reload_in_the_middle_loses_nothing(postroom: Page, chapter: lab.Chapter) -> None:
    send(postroom, 12)
    wait_for_bar(postroom, 2)
    with silent(chapter):
        postroom.reload()
        wait_for_bar(postroom, 2)
    state(postroom, "SUCCESS")


def test_a_second_tab_shows_the_same(
    postroom: Page, chapter: lab.Chapter, context: BrowserContext
) -> None:
    send(postroom, 12)
    wait_for_bar(postroom, 2)
    second = visit(context.new_page(), chapter)
    wait_for_bar(second, 2)
    for tab in (postroom, second):
        state(tab, "SUCCESS")


@pytest.mark.every_chapter
def test_a_lost_connection_is_taken_up_again(
    postroom: Page, chapter: lab.Chapter, context: BrowserContext
) -> None:
    expect(postroom.locator("#transport")).to_contain_text("WebSocket")
    postroom.evaluate(WATCH_THE_BARS)
    postroom.evaluate(WATCH_THE_CONNECTION)
    postroom.evaluate(WATCH_THE_WATCHING)
    with silent(chapter):
        for _ in range(2):
            send(postroom, 12)
            newest_job(postroom)
        running = postroom.evaluate(COUNT_THE_RUNNING)  # and those that earlier tests have left
        postroom.evaluate("window.postroomSocket.io.engine.close()")
        wait_for(postroom, "window.said.some((text) => text.includes('lost'))")
        # At once, and not by the question that it asks after some silence.
        wait_for(postroom, "window.sentAgain !== undefined")
        again = postroom.evaluate("window.sentAgain")
        assert set(again) == {"watch"}
        assert 2 <= len(again) <= running
    for card in postroom.locator("#jobs article").all()[:2]:
        expect(card).to_have_attribute("data-state", "SUCCESS")
    assert bars(postroom) == sorted(bars(postroom))


def test_cancel_stops_the_bar(postroom: Page, chapter: lab.Chapter) -> None:
    send(postroom, 200)
    wait_for_bar(postroom, 2)
    cancelled = postroom.expect_response(lambda answer: answer.request.method == "DELETE")
    with silent(chapter), cancelled:  # or they all have got their mail before the click
        postroom.get_by_role("button", name="Cancel").first.click()
    state(postroom, "REVOKED")
    bar = postroom.locator("#jobs article progress").first
    assert 2 <= bar.evaluate("bar => bar.value") < 200
    expect(postroom.get_by_role("button", name="Cancel").first).to_be_hidden()


def test_a_failed_job_is_not_full(postroom: Page, chapter: lab.Chapter) -> None:
    chapter.mailbox.set(drop_every=1)
    send(postroom, 5)
    state(postroom, "FAILURE")
    bar = postroom.locator("#jobs article progress").first
    assert bar.evaluate("bar => bar.value") < 5
    expect(postroom.locator("#jobs article .error").first).to_contain_text("mail server is away")


def test_without_the_client_script_the_page_asks(
    page: Page, chapter: lab.Chapter, context: BrowserContext
) -> None:
    """Twice a second, while the heartbeat asks five times; and no longer than until the end."""
    context.route("**/socket.io.min.js", lambda route: route.abort())
    visit(page, chapter)
    expect(page.locator("#transport")).to_contain_text("asking twice a second")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(urlsplit(request.url).path))

    def questions_during(beats: int) -> int:
        asked.clear()
        while asked.count("/ping") < beats:
            page.wait_for_event("request", timeout=TIMEOUT)
        return asked.count(f"/jobs/{job}")

    with silent(chapter):
        send(page, 5)
        job = newest_job(page)
        assert 3 <= questions_during(beats=10) <= 12
    state(page, "SUCCESS")
    assert questions_during(beats=5) <= 1


def test_a_job_lost_by_a_restart_is_said_to_be_lost() -> None:
    """Chapter 02's limit: see `test_the_page_says_that_a_job_is_lost` for what a person sees."""
    with lab.start("02", restart=True, MAIL_DELAY=0.2) as running:
        job = newsletter(running, 50)
        running.mailbox.wait_for(2, timeout=20)
        running.hurt("web")
        running.wait_until_ready()
        assert requests.get(f"{running.url}/jobs/{job}", timeout=30).status_code == 404


def test_the_page_says_that_a_job_is_lost(page: Page) -> None:
    script = Path("node_modules/socket.io-client/dist/socket.io.min.js")
    if not (folder("02") / script).exists():
        pytest.skip(NO_CLIENT)
    with lab.start("02", restart=True, MAIL_DELAY=0.2) as running:
        visit(page, running)
        send(page, 50)
        wait_for_bar(page, 2)
        running.hurt("web")
        state(page, "FAILURE")
        error = page.locator("#jobs article .error").first
        expect(error).to_contain_text("There is no such job.")
        assert page.locator("#jobs article progress").first.evaluate("bar => bar.value") < 50


def test_the_echo_page_shows_what_comes_back_as_text(page: Page) -> None:
    """Chapter 02's first page."""
    if not (folder("02") / "node_modules").exists():
        pytest.skip(NO_CLIENT)
    (port,) = free_ports(1)
    environment = {**os.environ, "PORT": str(port)}
    with subprocess.Popen(
        [sys.executable, "echo.py"], cwd=folder("02"), env=environment, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_until(lambda: is_open(port))
            page.goto(f"http://127.0.0.1:{port}")
            lines = page.locator("form li")
            expect(lines).to_have_text(["Connected"])
            page.get_by_label("Say something").fill("<b>Good</b> morning")
            page.get_by_role("button", name="Send").click()
            expect(lines).to_have_text(["Connected", "<b>Good</b> morning"])
        finally:
            server.terminate()


def test_news_is_as_old_as_the_clock_of_who_pushed_says(chapter: lab.Chapter) -> None:
    with Watcher(chapter.url) as watcher:
        watcher._receive({"id": "any", "state": "PROGRESS", "at": time.time() - 50})
    assert 50 <= watcher.receipts[0].latency < 80


def test_push_is_not_late(chapter: lab.Chapter) -> None:
    """A step is received well before the next one is done, in the median."""
    chapter.mailbox.set(delay=0.4)
    with Watcher(chapter.url) as watcher:
        job = newsletter(chapter, 8)
        watcher.watch(job)
        watcher.wait_for_end(job)
    assert all(receipt.latency > 0 for receipt in watcher.receipts)
    received = [receipt.document["at"] + receipt.latency for receipt in watcher.receipts]
    next_done = [receipt.document["at"] for receipt in watcher.receipts[1:]]
    early = [came < done for came, done in zip(received, next_done, strict=False)]
    assert sum(early) > len(early) / 2
    assert time.time() - watcher.receipts[-1].document["at"] < 60
