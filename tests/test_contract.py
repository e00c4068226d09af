"""The one contract, put to every chapter: the same page, the same routes, the same tests.

A chapter that answers at once with the finished job (200) and one that accepts it (202) are
both right; everything else is the same for all.
"""

import io
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
import requests

import lab
from lab.chapters import folder

PROBLEM = "application/problem+json"
LETTER: dict[str, Any] = {
    "subject": "News",
    "body": "Hello",
    "recipients": ["ann@example.com", "bob@example.com"],
}


def check_problem(answer: requests.Response, status: int, field: str | None = None) -> Any:
    """The answer is a problem document with `status`, naming `field` first."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == PROBLEM
    document = answer.json()
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    if field is not None:
        assert document["errors"][0]["field"] == field
        assert document["detail"].startswith(f"{field}: ")
    return document


def upload(chapter: lab.Chapter, path: str, **form: Any) -> requests.Response:
    """POST a form; a value in bytes is sent as a file."""
    files = {k: (f"{k}.txt", io.BytesIO(v)) for k, v in form.items() if isinstance(v, bytes)}
    data = {k: v for k, v in form.items() if not isinstance(v, bytes)}
    return requests.post(chapter.url + path, data=data, files=files or {"": ("", b"")}, timeout=30)


# --- The two jobs ---------------------------------------------------------------------


def test_a_newsletter_reaches_each_recipient_once(chapter: lab.Chapter) -> None:
    answer = lab.post(chapter.url, "/newsletters", LETTER)
    job = lab.finish(chapter.url, answer)
    assert answer.status_code == (200 if chapter.number == "01" else 202)
    assert set(job) >= {"id", "kind", "state", "done", "total", "result", "error"}
    assert (job["kind"], job["state"], job["done"], job["total"]) == ("newsletter", "SUCCESS", 2, 2)
    assert job["error"] is None
    count = chapter.mailbox.count(LETTER["recipients"], job["id"])
    assert (count.received, count.lost, count.twice) == (2, 0, 0)


@pytest.mark.parametrize("refused", [0, 3, 25])
def test_who_is_said_to_have_got_mail_has_got_it(chapter: lab.Chapter, refused: int) -> None:
    """Counted at the mail server: what a job says of itself proves nothing."""
    recipients = lab.addresses(25)
    chapter.mailbox.set(refuse_addresses=recipients[:refused])
    letter = LETTER | {"recipients": recipients}
    job = lab.finish(chapter.url, lab.post(chapter.url, "/newsletters", letter))
    assert (job["state"], job["done"], job["total"]) == ("SUCCESS", 25, 25)
    assert (job["result"]["sent"], job["result"]["refused"]) == (25 - refused, refused)
    assert len(job["result"]["refusals"]) == min(refused, 20)  # a document stays small
    got = [message["recipient"] for message in chapter.mailbox.messages(job["id"])]
    assert sorted(got) == sorted(recipients[refused:])


def test_an_address_given_twice_gets_one_mail(chapter: lab.Chapter) -> None:
    letter = LETTER | {"recipients": ["ann@example.com", "Ann@Example.com", "bob@example.com"]}
    job = lab.finish(chapter.url, lab.post(chapter.url, "/newsletters", letter))
    recipients = [message["recipient"] for message in chapter.mailbox.messages(job["id"])]
    assert recipients == ["ann@example.com", "bob@example.com"]


def test_a_refused_recipient_is_recorded(chapter: lab.Chapter) -> None:
    chapter.mailbox.set(refuse_addresses=["ann@example.com"])
    try:
        job = lab.finish(chapter.url, lab.post(chapter.url, "/newsletters", LETTER))
    finally:
        chapter.mailbox.mend()
        chapter.mailbox.set(delay=0)
    assert (job["state"], job["done"]) == ("SUCCESS", 2)
    assert (job["result"]["sent"], job["result"]["refused"]) == (1, 1)
    (refusal,) = job["result"]["refusals"]
    assert (refusal["recipient"], refusal["code"]) == ("ann@example.com", 550)


def test_a_sample_report_and_an_uploaded_one_agree(chapter: lab.Chapter) -> None:
    """The sample log, written to a file and uploaded, gives the same report."""
    sample = lab.make_report(chapter.url, 5000)
    log = "".join(lab.sample_log(chapter.number, 5000)).encode()
    uploaded = lab.finish(chapter.url, upload(chapter, "/reports", log=log))
    assert sample["result"] == uploaded["result"]
    assert (sample["state"], sample["done"], sample["total"]) == ("SUCCESS", 5000, 5000)
    assert sample["result"]["lines"] == 5000
    assert sum(sample["result"]["statuses"].values()) == 5000 - sample["result"]["malformed"]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_subscribers_as_a_file(chapter: lab.Chapter, mark: bytes) -> None:
    table = mark + b"email,name\nann@example.com,Ann\nbob@example.com,Bob\n"
    answer = upload(chapter, "/newsletters", subject="News", body="Hello", subscribers=table)
    job = lab.finish(chapter.url, answer)
    assert chapter.mailbox.count(LETTER["recipients"], job["id"]).received == 2


def test_ten_thousand_recipients_are_accepted(chapter: lab.Chapter) -> None:
    letter = LETTER | {"recipients": lab.addresses(10_001)}
    check_problem(lab.post(chapter.url, "/newsletters", letter), 400, "recipients")
    chapter.mailbox.set(drop_every=1)  # accepted is enough: nobody waits for 10 000 mails
    try:
        letter = LETTER | {"recipients": lab.addresses(10_000)}
        answer = lab.post(chapter.url, "/newsletters", letter)
        assert answer.status_code == (502 if chapter.number == "01" else 202)
        if answer.status_code == 202:
            requests.delete(chapter.url + answer.headers["Location"], timeout=10).raise_for_status()
            # 02 tries once, and may have failed before it heard of that.
            assert lab.finish(chapter.url, answer)["state"] in ("REVOKED", "FAILURE")
    finally:
        chapter.mailbox.mend()
        chapter.mailbox.set(delay=0)


# --- Looking jobs up ------------------------------------------------------------------


def test_a_job_can_be_looked_up_and_is_listed_first(chapter: lab.Chapter) -> None:
    for lines in (10, 20):
        job = lab.make_report(chapter.url, lines)
        assert requests.get(f"{chapter.url}/jobs/{job['id']}", timeout=30).json() == job
        assert requests.get(f"{chapter.url}/jobs", timeout=30).json()[0] == job


def test_many_at_once_are_all_answered(chapter: lab.Chapter) -> None:
    """More jobs than are kept, from eight clients at a time, while others list them."""

    def ask(number: int) -> int:
        if number % 4 == 0:
            return requests.get(f"{chapter.url}/jobs", timeout=60).status_code
        return lab.post(chapter.url, "/reports", {"lines": 1}).status_code

    with ThreadPoolExecutor(8) as pool:
        codes = set(pool.map(ask, range(400)))
    assert codes == {200, 200 if chapter.number == "01" else 202}
    assert len(requests.get(f"{chapter.url}/jobs", timeout=60).json()) == 50


def test_ids_cannot_be_guessed(chapter: lab.Chapter) -> None:
    """Each of their places may hold anything: no counter, no clock, no name of the machine."""
    answers = [lab.post(chapter.url, "/reports", {"lines": 1}) for _ in range(12)]
    ids = [lab.finish(chapter.url, answer)["id"] for answer in answers]
    assert all(len(one) >= 20 for one in ids)
    places = [{one[place] for one in ids} for place in range(20)]
    assert min(map(len, places)) >= 4


def test_an_unknown_job_is_404(chapter: lab.Chapter) -> None:
    check_problem(requests.get(f"{chapter.url}/jobs/no-such-job", timeout=30), 404)


def test_everything_listens_on_this_machine_only(chapter: lab.Chapter) -> None:
    addresses = {
        connection.laddr.ip
        for name in chapter.commands
        for process in chapter.processes(name)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


# --- The page and the canary ----------------------------------------------------------


def test_ping_answers(chapter: lab.Chapter) -> None:
    answer = requests.get(f"{chapter.url}/ping", timeout=30)
    assert (answer.status_code, answer.text) == (200, "pong\n")


def test_the_page_names_its_chapter(chapter: lab.Chapter) -> None:
    answer = requests.get(chapter.url, timeout=30)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert chapter.path.name in answer.text


# --- What is wrong is said, and where -------------------------------------------------


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in LETTER.items() if name != field}


WRONG_LETTERS = [
    ("recipients", LETTER | {"recipients": []}),
    ("recipients", LETTER | {"recipients": "ann@example.com"}),
    ("recipients", without("recipients")),
    ("recipients[1]", LETTER | {"recipients": ["ann@example.com", "nobody"]}),
    ("recipients[0]", LETTER | {"recipients": ["ann@example.com\nBcc: eve@example.com"]}),
    ("recipients[0]", LETTER | {"recipients": [7]}),
    ("subject", LETTER | {"subject": "Two\nlines"}),
    ("subject", LETTER | {"subject": "line\u2028separator"}),
    ("subject", LETTER | {"subject": "   "}),
    ("subject", LETTER | {"subject": "x" * 201}),
    ("subject", without("subject")),
    ("body", LETTER | {"body": ""}),
    ("body", LETTER | {"body": "x" * 100_001}),
    ("colour", LETTER | {"colour": "red"}),
    ("whole body", ["a", "list"]),
    ("whole body", "a string"),
]


@pytest.mark.parametrize(("field", "letter"), WRONG_LETTERS)
def test_a_wrong_letter_names_the_field(chapter: lab.Chapter, field: str, letter: Any) -> None:
    before = len(chapter.mailbox.messages())
    check_problem(lab.post(chapter.url, "/newsletters", letter), 400, field)
    assert len(chapter.mailbox.messages()) == before


def test_a_bad_address_is_quoted(chapter: lab.Chapter) -> None:
    letter = LETTER | {"recipients": ["ann@example.com", "nobody"]}
    document = check_problem(lab.post(chapter.url, "/newsletters", letter), 400)
    assert "'nobody'" in document["detail"]


def test_an_answer_about_many_and_long_mistakes_is_short(chapter: lab.Chapter) -> None:
    letter = LETTER | {"recipients": ["x" * 500] * 1000}
    document = check_problem(lab.post(chapter.url, "/newsletters", letter), 400, "recipients[0]")
    assert len(document["errors"]) == 20
    assert all(len(error["detail"]) < 300 for error in document["errors"])


@pytest.mark.parametrize("lines", [0, -1, 10_000_001, "10", 1.5, True, None])
def test_a_wrong_number_of_lines_is_named(chapter: lab.Chapter, lines: Any) -> None:
    check_problem(lab.post(chapter.url, "/reports", {"lines": lines}), 400, "lines")


@pytest.mark.parametrize("path", ["/newsletters", "/reports"])
@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b'{"subject": "\\ud800"}', b"[" * 100_000, b"NaN", b"null"]
)
def test_what_is_not_json_is_400(chapter: lab.Chapter, path: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = requests.post(chapter.url + path, data=body, headers=headers, timeout=30)
    check_problem(answer, 400, "whole body")


@pytest.mark.parametrize("path", ["/newsletters", "/reports"])
@pytest.mark.parametrize("kind", ["text/plain", "application/xml", ""])
def test_another_type_is_415(chapter: lab.Chapter, path: str, kind: str) -> None:
    headers = {"Content-Type": kind}
    answer = requests.post(chapter.url + path, data=b"{}", headers=headers, timeout=30)
    check_problem(answer, 415)


def test_too_large_a_body_is_413(chapter: lab.Chapter) -> None:
    headers = {"Content-Type": "application/json"}
    body = b" " * (4 * 1024 * 1024 + 1)
    answer = requests.post(f"{chapter.url}/newsletters", data=body, headers=headers, timeout=30)
    check_problem(answer, 413)


def test_too_large_an_upload_is_413(chapter: lab.Chapter) -> None:
    log = b"\n" * (64 * 1024 * 1024)
    document = check_problem(upload(chapter, "/reports", log=log), 413)
    assert "64 MB" in document["detail"]


@pytest.mark.parametrize("number", lab.chapters())
def test_the_page_and_the_server_know_the_same_limit(number: str) -> None:
    """The page says no before it sends what the server would refuse, and nothing else."""
    files = (folder(number) / name for name in ("contract.py", "static/forms.js"))
    limits = [re.findall(r"LARGEST_UPLOAD = ([\d *]+)", file.read_text()) for file in files]
    assert limits == [["64 * 1024 * 1024"]] * 2


def test_the_column_of_addresses_may_be_written_in_any_way(chapter: lab.Chapter) -> None:
    table = b"Name, E-Mail , eMAIL \nAnn,nobody,ann@example.com\nBob,nobody,bob@example.com\n"
    answer = upload(chapter, "/newsletters", subject="News", body="Hello", subscribers=table)
    job = lab.finish(chapter.url, answer)
    assert chapter.mailbox.count(LETTER["recipients"], job["id"]).received == 2


@pytest.mark.parametrize("table", [b"", b"name\nAnn\n", b"\xff\xfe\x00", b'email\n"unclosed'])
def test_a_wrong_csv_names_the_file(chapter: lab.Chapter, table: bytes) -> None:
    answer = upload(chapter, "/newsletters", subject="News", body="Hello", subscribers=table)
    document = check_problem(answer, 400)
    assert document["errors"][0]["field"] in ("subscribers", "recipients[0]")


def test_an_empty_log_and_a_missing_file_are_named(chapter: lab.Chapter) -> None:
    check_problem(upload(chapter, "/reports", log=b""), 400, "log")
    check_problem(upload(chapter, "/reports"), 400, "log")
    check_problem(upload(chapter, "/newsletters", subject="News"), 400, "subscribers")


def test_a_file_that_is_no_log_is_counted_not_fatal(chapter: lab.Chapter) -> None:
    picture = bytes(range(256)) * 1000
    job = lab.finish(chapter.url, upload(chapter, "/reports", log=picture))
    assert job["state"] == "SUCCESS"
    assert job["result"]["malformed"] == job["result"]["lines"] == job["total"] > 0


def test_an_unknown_path_or_method_is_a_problem_too(chapter: lab.Chapter) -> None:
    check_problem(requests.get(f"{chapter.url}/nowhere", timeout=30), 404)
    answer = requests.put(f"{chapter.url}/jobs", timeout=30)
    check_problem(answer, 405)
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_may_not_post_or_cancel(chapter: lab.Chapter, site: str) -> None:
    headers = {"Sec-Fetch-Site": site}
    answer = requests.post(f"{chapter.url}/reports", json={"lines": 1}, headers=headers, timeout=30)
    check_problem(answer, 403)
    check_problem(requests.delete(f"{chapter.url}/jobs/any", headers=headers, timeout=30), 403)


# --- What a browser is told -----------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/ping", "/jobs/nobody", "/static/page.js"])
def test_every_answer_says_what_a_browser_may_do_with_it(chapter: lab.Chapter, path: str) -> None:
    headers = requests.get(chapter.url + path, timeout=10).headers
    policy = dict(part.split(maxsplit=1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["script-src"].split() == ["'self'", "https://cdn.socket.io"]
    assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"
    assert policy["form-action"] == "'self'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("number", lab.chapters())
def test_no_script_makes_html_of_text(number: str) -> None:
    """Whatever was typed, logged or answered is set as text."""
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|eval\("
    for script in folder(number).glob("static/*.js"):
        assert not re.search(ways, script.read_text()), script.name
