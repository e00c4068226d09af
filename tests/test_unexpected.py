"""Whatever comes in, no chapter fails: each route and each event is fed what it does not expect."""

import json
import re
from typing import Any
from urllib.parse import quote

import pytest
import requests
import socketio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import lab
from lab.chapters import chapters, folder

from .test_contract import LETTER, PROBLEM

ROUTE = re.compile(r'^ *@(?:app|routes)\.(get|post|delete)\(f?"(.+?)"', re.MULTILINE)
FIELDS = ("subject", "body", "recipients", "lines", "subscribers", "log", "x", "y", "countdown")
TYPES = (
    "application/json",
    "application/json; charset=utf-16",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "multipart/form-data; boundary=x",
    "text/plain",
    "",
)

# A sample log of millions of lines is not unexpected, and takes a while.
numbers = st.integers().filter(lambda number: not 200 < number <= 10_000_000)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats() | st.text(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=8,
)
nearly_right = st.builds(
    lambda field, value: LETTER | {field: value}, st.sampled_from(FIELDS), values
)
bodies = (values | nearly_right).map(lambda value: json.dumps(value).encode())
thorough = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,  # the same for everybody: a failure here is a failure there
    database=None,
    suppress_health_check=list(HealthCheck),
)


def routes(number: str) -> list[tuple[str, str]]:
    """Method and path of each route of a chapter, as its files say."""
    found = [
        (method.upper(), path)
        for file in sorted(folder(number).glob("*.py"))
        if not file.name.startswith(("test_", "async_views", "echo", "native_asyncio"))
        for method, path in ROUTE.findall(file.read_text())
    ]
    assert ("POST", "/newsletters") in found
    return found


EVERY_ROUTE = sorted({route for number in chapters() for route in routes(number)})


def ask(chapter: lab.Chapter, method: str, path: str, **more: Any) -> requests.Response:
    """Ask, and hold the answer against the contract: no failure, and each error explained."""
    answer = requests.request(method, chapter.url + path, timeout=60, **more)
    if path.startswith("/health/") and answer.status_code == 503:
        return answer  # this is what it has to say, and no failure
    assert answer.status_code < 500, f"{method} {path} {more}: {answer.status_code} {answer.text}"
    if answer.status_code >= 400:
        assert answer.headers["Content-Type"] == PROBLEM, answer.text
    return answer


@thorough
@given(
    st.sampled_from(EVERY_ROUTE), st.text(min_size=1, max_size=50), bodies | st.binary(max_size=300)
)
@example(("GET", "/jobs/<job_id>"), "\0", b"")
@example(("GET", "/jobs/<job_id>"), "a" * 2000, b"")
@example(("DELETE", "/jobs/<job_id>"), "..", b"")
@example(
    ("POST", "/newsletters"),
    "-",
    b'{"subject":"\\ud800","body":"-","recipients":["a@example.com"]}',
)
@example(("POST", "/newsletters"), "-", b"[" * 10_000)
@example(("POST", "/reports"), "-", b'{"lines":1e400}')
@example(("POST", "/reports"), "-", b'{"lines":' + b"9" * 5000 + b"}")
def test_no_body_and_no_name_makes_a_route_fail(
    chapter: lab.Chapter, route: tuple[str, str], name: str, body: bytes
) -> None:
    method, path = route
    path = re.sub("<.+?>", quote(name, safe=""), path)
    ask(chapter, method, path, data=body, headers={"Content-Type": "application/json"})


@thorough
@given(
    st.sampled_from(["/newsletters", "/reports"]), st.sampled_from(TYPES), st.binary(max_size=300)
)
def test_no_kind_of_body_makes_a_route_fail(
    chapter: lab.Chapter, path: str, kind: str, body: bytes
) -> None:
    ask(chapter, "POST", path, data=body, headers={"Content-Type": kind})


@thorough
@given(
    st.sampled_from(["/newsletters", "/reports"]),
    st.dictionaries(st.sampled_from(FIELDS), st.text(max_size=50), max_size=4),
    st.dictionaries(
        st.sampled_from(FIELDS),
        st.tuples(st.text(max_size=50), st.binary(max_size=300)),
        max_size=3,
    ),
)
@example(
    "/newsletters", {"subject": "-", "body": "-"}, {"subscribers": ("a.csv", b"email\n\xff\n")}
)
@example("/newsletters", {"subject": "-", "body": "-"}, {"subscribers": ("a.csv", b"email\n\0\n")})
@example("/reports", {}, {"log": ("../../etc/passwd", b"\xff\0\n\r\n")})
def test_no_form_makes_a_route_fail(
    chapter: lab.Chapter, path: str, fields: dict[str, str], files: dict[str, tuple[str, bytes]]
) -> None:
    ask(chapter, "POST", path, data=fields, files=files or {"": ("", b"")})


@thorough
@given(st.sampled_from(EVERY_ROUTE), st.sampled_from(["PUT", "PATCH", "OPTIONS", "POST", "DELETE"]))
def test_no_method_makes_a_route_fail(
    chapter: lab.Chapter, route: tuple[str, str], method: str
) -> None:
    ask(chapter, method, re.sub("<.+?>", "nobody", route[1]))


@pytest.fixture(scope="module")
def browser(shared_chapter: lab.Chapter) -> Any:
    if shared_chapter.number == "01":  # no Socket.IO there
        return None
    client = socketio.SimpleClient()
    client.connect(shared_chapter.url, transports=["websocket"])
    return client


events = st.sampled_from(["watch", "seen"]) | st.text(min_size=1, max_size=60)
times = st.builds(lambda at: {"at": at}, st.floats() | numbers)
names = st.builds(lambda job: {"job": job}, values)


@thorough
@given(events, values | times | names)
@example("watch", {"job": "x" * 100_000})
@example("seen", {"at": 1e308})
def test_every_event_is_answered(chapter: lab.Chapter, browser: Any, event: str, data: Any) -> None:
    if browser is None or event in ("connect", "disconnect", "message", "*"):
        return
    answer = browser.call(event, json.loads(json.dumps(data, default=str)), timeout=10)
    assert isinstance(answer, dict)
    assert "failed" not in answer.get("error", "")


def test_a_client_that_says_it_connects_is_still_served(chapter: lab.Chapter, browser: Any) -> None:
    if browser is None:
        return
    for event in ("connect", "disconnect", "message"):
        browser.emit(event, {"job": "nobody"})
    assert browser.call("watch", {"job": "nobody"}, timeout=10) == {
        "error": "There is no such job."
    }
