"""Chapter 04 from outside: Prometheus, its alerts and dashboard, Flower's page, dead letters."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from playwright.sync_api import Browser, Page, expect

import lab
from lab import outages
from lab.chapters import folder
from lab.prometheus import Prometheus, watching
from lab.waiting import wait_until

from .conftest import ROOT
from .test_push import send, state, visit

LETTER = {"subject": "News", "body": "Hello", "recipients": ["ann@example.com"]}


CHAPTERS = ["04"]
RULES = folder("04") / "alerts.yml"
ALERTS = re.findall(r"alert: (\w+)", RULES.read_text())


@pytest.fixture
def monitored(shared_chapter: lab.Chapter) -> Iterator[lab.Chapter]:
    """Chapter 04, well, and with nothing left of earlier tests."""
    outages.mend(shared_chapter)
    yield shared_chapter
    outages.mend(shared_chapter)


@pytest.fixture(scope="module")
def prometheus(shared_chapter: lab.Chapter) -> Iterator[Prometheus]:
    if not shutil.which("prometheus"):
        pytest.skip("No Prometheus on PATH. On Debian or Ubuntu: apt-get install prometheus")
    with watching(shared_chapter) as found:
        yield found


@pytest.fixture
def promtool() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run Prometheus's own tool in a folder."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("No promtool on PATH. On Debian or Ubuntu: apt-get install prometheus")

    def run(cwd: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [program, *arguments]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)

    return run


def test_configuration_and_rules_are_what_prometheus_takes(promtool: Any) -> None:
    done = promtool(folder("04"), "check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "alerts.yml" in done.stdout


# --- The alerts -----------------------------------------------------------------------


def test_each_alert_fires_when_it_should_and_not_before(promtool: Any) -> None:
    done = promtool(ROOT / "tests", "test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("expression", ["vector(0) > 1", "vector(1) > 0"], ids=["never", "always"])
@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_that_fires_never_or_always_is_noticed(
    promtool: Any, tmp_path: Path, alert: str, expression: str
) -> None:
    rules = yaml.safe_load(RULES.read_text())
    (rule,) = (each for each in rules["groups"][0]["rules"] if each["alert"] == alert)
    rule["expr"] = expression
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    tests = (ROOT / "tests" / "alerts_test.yml").read_text()
    (tmp_path / "alerts_test.yml").write_text(tests.replace("../04_monitoring/", ""))
    done = promtool(tmp_path, "test", "rules", "alerts_test.yml")
    assert done.returncode == 1, done.stdout
    assert f"alertname: {alert}" in done.stdout + done.stderr


def test_an_alert_fires_and_is_silent_again(prometheus: Prometheus, monitored: lab.Chapter) -> None:
    """From the outage through metrics, scrape and rule to Prometheus's list of alerts."""
    wait_until(lambda: "DeadLetters" not in prometheus.firing())
    outages.lose_upload(monitored)
    wait_until(lambda: "DeadLetters" in prometheus.firing())
    outages.mend(monitored)
    wait_until(lambda: "DeadLetters" not in prometheus.firing())


@pytest.mark.alone  # on a busy machine a service may be too late, and that alert is right
def test_nothing_fires_while_all_is_well(prometheus: Prometheus, monitored: lab.Chapter) -> None:
    wait_until(lambda: not prometheus.firing(), 100)
    for _ in range(3):
        lab.send_newsletter(monitored.url, 5)
        lab.make_report(monitored.url, 20_000)
        assert prometheus.firing() == set()


# --- Its numbers ----------------------------------------------------------------------


def test_every_service_is_scraped_under_its_name(prometheus: Prometheus) -> None:
    def up() -> dict[str, str]:
        return {each["metric"]["job"]: each["value"][1] for each in prometheus.query("up")}

    services = ("web", "mail", "report", "flower")
    wait_until(lambda: up() == dict.fromkeys(services, "1"), 30)  # one scrape may be late


def test_every_query_of_the_dashboard_and_of_the_rules_finds_something(
    prometheus: Prometheus, monitored: lab.Chapter
) -> None:
    """After one of everything: a push, a mail, a retry, a report."""
    lab.send_newsletter(monitored.url, 3)
    lab.make_report(monitored.url, 1000)
    monitored.mailbox.set(drop_every=1)
    job = lab.post(monitored.url, "/newsletters", LETTER)
    retries = 'postroom_retries_total{kind="newsletter"}'
    wait_until(lambda: prometheus.query(retries), 30)
    monitored.mailbox.mend()
    lab.finish(monitored.url, job)
    dashboard = json.loads((folder("04") / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) > 10
    rules = requests.get(f"{prometheus.url}/api/v1/rules", timeout=10).json()
    for group in rules["data"]["groups"]:
        queries += [rule["query"] for rule in group["rules"]]
    exported = set(re.findall(r"(?:postroom_\w+|\bup\b)", " ".join(queries)))
    assert len(exported) > 10
    for name in exported:
        assert prometheus.query(name), f"{name} is asked for and not exported"
    for query in queries[: len(queries) - len(rules["data"]["groups"][0]["rules"])]:
        wait_until(lambda query=query: prometheus.query(query), 30)  # type: ignore[misc]


# --- Its pages ------------------------------------------------------------------------


def test_the_page_of_flower_shows_a_task_with_its_arguments(
    monitored: lab.Chapter, browser: Browser
) -> None:
    job = lab.send_newsletter(monitored.url, 2)["id"]
    found = re.search(r"name and password: (\S+):(\S+)\)", monitored.log("flower", 1000))
    assert found
    name, password = found.groups()
    url = f"http://127.0.0.1:{monitored.ports['FLOWER_PORT']}/tasks"
    assert requests.get(url, timeout=10).status_code == 401
    credentials: Any = {"username": name, "password": password}
    with browser.new_context(http_credentials=credentials) as context:
        page = context.new_page()
        row = page.locator("tr", has_text=job)

        def has_succeeded() -> bool:
            """Flower hears of the end a little later, and its page does not look again."""
            page.goto(url, wait_until="networkidle")
            return "SUCCESS" in " ".join(row.all_inner_texts())

        wait_until(has_succeeded)
        expect(row).to_contain_text("newsletter")
        expect(page.locator("body")).not_to_contain_text("@example.com")


def answers(address: str, status: int) -> bool:
    return requests.get(address, timeout=10).status_code == status


def test_the_page_links_to_what_watches(monitored: lab.Chapter, page: Page) -> None:
    visit(page, monitored)
    for name, status in {"Flower": 401, "Metrics": 200, "Health": 200}.items():
        address = page.get_by_role("link", name=name).get_attribute("href")
        assert address is not None
        address = address if address.startswith("http") else monitored.url + address
        wait_until(partial(answers, address, status), 30)


def test_the_time_of_the_next_try_is_right(monitored: lab.Chapter, page: Page) -> None:
    visit(page, monitored)
    after = """async (at) => {
      const { draw } = await import("/static/cards.js");
      draw({ id: "made-up", kind: "newsletter", state: "RETRY", done: 0, total: 1, retry_at: at });
      return document.querySelector("[data-job=made-up] .state").textContent;
    }"""
    at = time.time() + 5
    shown = time.strftime("%H:%M:%S", time.localtime(at))
    assert page.evaluate(after, at) == f"RETRY, next try at {shown}"


def test_the_page_says_when_the_next_try_is_and_replays_a_dead_letter(
    monitored: lab.Chapter, page: Page
) -> None:
    visit(page, monitored)
    expect(page.locator("#dead-letters .none")).to_be_visible()
    monitored.mailbox.set(drop_every=1)
    send(page, 3)
    card = page.locator("#jobs article").first
    expect(card.locator(".state")).to_have_text(
        re.compile(r"RETRY, next try at \d\d:\d\d:\d\d"), timeout=20_000
    )
    state(page, "FAILURE")
    letter = page.locator("#dead-letters article")
    expect(letter).to_contain_text("The mail server is away: 0 of 3 mails were sent")
    letter.locator("summary").click()
    expect(letter.locator("pre")).to_contain_text("MailServerAway")
    monitored.mailbox.mend()
    letter.get_by_role("button", name="Replay").click()
    state(page, "SUCCESS")
    expect(card).to_contain_text("3 sent, 0 refused")
    expect(letter).to_have_count(0)
    assert len(monitored.mailbox.messages(card.get_attribute("data-job") or "")) == 3


def test_dead_letters_are_discarded_from_the_page(monitored: lab.Chapter, page: Page) -> None:
    for _ in range(2):
        outages.lose_upload(monitored)
    visit(page, monitored)
    letters = page.locator("#dead-letters article")
    expect(letters).to_have_count(2, timeout=30_000)
    letters.first.get_by_role("button", name="Discard").click()
    expect(letters).to_have_count(1)
    outages.lose_upload(monitored)
    expect(letters).to_have_count(2, timeout=30_000)
    page.get_by_role("button", name="Discard all").click()
    expect(page.locator("#dead-letters .none")).to_be_visible()
    assert requests.get(f"{monitored.url}/dead-letters", timeout=10).json() == []
