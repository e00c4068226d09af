"""The log parser, its counters and the sample log, against whatever a log may hold.

`work.py` is the same in every chapter, so chapter 01's copy stands for all of them.
"""

import importlib.util
import io
import json
import math
import os
import re
import string
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from email import message_from_bytes, policy
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

CHAPTER = Path(__file__).resolve().parent.parent / "01_sync_baseline"


def load(name: str) -> ModuleType:
    """A module of chapter 01, under a name of its own: each chapter has a module `work`."""
    spec = importlib.util.spec_from_file_location(f"chapter_01_{name}", CHAPTER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


work = load("work")
samples = load("samples")
with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sys.modules, "work", work)  # contract imports it by this name
    contract = load("contract")

unhurried = settings(deadline=None)  # a busy machine is slow, not wrong


# --- Lines to count -------------------------------------------------------------------

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
COMPLETE = '192.0.2.1 - ann [02/Nov/2026:09:00:00 +0000] "GET /news HTTP/1.1" 200 100 "-" "Firefox"'


class Entry(NamedTuple):
    """A log line, and what the report must make of it."""

    line: str
    client: str
    path: str
    status: str
    hour: str
    size: int


def printable(without: str = "", least: int = 0, most: int = 20) -> st.SearchStrategy[str]:
    """Text of any script, without control characters and those in `without`."""
    letters = st.characters(exclude_categories=("Cc", "Cs"), exclude_characters=without)
    return st.text(letters, min_size=least, max_size=most)


def escaped(text: str) -> str:
    """As servers write a text between quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


CLIENTS = (
    st.sampled_from(["192.0.2.1", "2001:db8::1", "host.example.com"])
    | st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(str)
)
USERS = st.sampled_from(["-", "ann", "Ann Lee", '""', "a]b"]) | printable(without="[", least=1)
PATHS = st.sampled_from(["/", "/news", '/"quoted"', "/back\\slash"]) | printable(" ?").map(
    "/{}".format
)
QUERIES = st.just("") | printable(" ").map("?{}".format)
ODD_REQUESTS = st.sampled_from(["-", "", r"\x16\x03\x01", "GET"]) | printable(" ").map(escaped)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str]:
    """A request as logged, and the path it counts under."""
    if draw(st.integers(0, 3)) == 0:
        return draw(ODD_REQUESTS), "-"
    method = draw(st.sampled_from(["GET", "POST", "PROPFIND"]))
    path = escaped(draw(PATHS))
    protocol = draw(st.sampled_from([" HTTP/1.1", " HTTP/2.0", ""]))
    return f"{method} {path}{escaped(draw(QUERIES))}{protocol}", path


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """A line in Common or Combined Log Format, of valid parts."""
    client, (request, path) = draw(CLIENTS), draw(requests())
    moment = draw(st.datetimes())
    second = draw(st.integers(0, 60))  # 60 is a leap second
    zone = draw(st.sampled_from(["+0000", "-0330", "+1400"]))
    stamp = (
        f"{moment.day:02}/{MONTHS[moment.month - 1]}/{moment.year:04}:"
        f"{moment.hour:02}:{moment.minute:02}:{second:02} {zone}"
    )
    status = str(draw(st.integers(100, 599)))
    size = draw(st.integers(0, 10**15 - 1) | st.none())
    line = (
        f"{client} {draw(st.sampled_from(['-', 'ident']))} {draw(USERS)} [{stamp}] "
        f'"{request}" {status} {"-" if size is None else size}'
    )
    if draw(st.booleans()):
        line += f' "{escaped(draw(printable()))}" "{escaped(draw(printable()))}"'
    line += draw(st.sampled_from(["", "\n", "\r\n", " \n"]))
    return Entry(line, client, path, status, f"{moment.hour:02}", size or 0)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A valid line with a few characters put in, left out or replaced."""
    line = draw(entries()).line
    start = draw(st.integers(0, len(line)))
    return line[:start] + draw(st.text(max_size=3)) + line[start + draw(st.integers(0, 3)) :]


JUNK = st.text().filter(lambda text: '"' not in text)  # every valid line holds a quote


def report(lines: Sequence[str]) -> dict[str, Any]:
    """The finished report of `lines`, once it was checked that it adds up."""
    *_, last = work.analyse_log(lines, len(lines))
    result: dict[str, Any] = last.result
    counted = sum(result["statuses"].values())
    assert last.done == last.total == result["lines"] == len(lines)
    assert result["lines"] == result["malformed"] + counted
    assert counted == sum(result["hours"].values())
    assert list(result["statuses"]) == sorted(result["statuses"])
    assert list(result["hours"]) == sorted(result["hours"])
    return result


def ten_busiest(pairs: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
    """Requests and bytes by name, counted the plain way."""
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for name, sent in pairs:
        count[name] += 1
        size[name] += sent
    names = sorted(count, key=lambda name: (-count[name], name))[:10]
    return [{"name": name, "requests": count[name], "bytes": size[name]} for name in names]


# --- The report -----------------------------------------------------------------------


@unhurried
@given(st.lists(entries() | JUNK))
def test_a_report_says_what_a_plain_count_says(lines: list[Entry | str]) -> None:
    valid = [line for line in lines if isinstance(line, Entry)]
    assert report([line.line if isinstance(line, Entry) else line for line in lines]) == {
        "lines": len(lines),
        "malformed": len(lines) - len(valid),
        "bytes": sum(entry.size for entry in valid),
        "statuses": Counter(entry.status for entry in valid),
        "hours": Counter(entry.hour for entry in valid),
        "paths": ten_busiest((entry.path, entry.size) for entry in valid),
        "clients": ten_busiest((entry.client, entry.size) for entry in valid),
        "missed": 0,
    }


@unhurried
@given(st.lists(st.sampled_from("abcdefghijklmno"), min_size=30, max_size=90))
def test_the_ten_busiest_are_listed_the_busiest_first(pages: list[str]) -> None:
    lines = [COMPLETE.replace("/news", f"/{page}") for page in pages]
    assert report(lines)["paths"] == ten_busiest((f"/{page}", 100) for page in pages)


@unhurried
@given(st.lists(st.text() | damaged() | entries().map(lambda entry: entry.line)))
def test_any_text_is_counted_or_malformed(lines: list[str]) -> None:
    json.dumps(report(lines))


@unhurried
@given(st.binary() | st.lists(damaged()).map(lambda lines: "\n".join(lines).encode()))
def test_any_bytes_are_counted_or_malformed(data: bytes) -> None:
    json.dumps(report(list(work.read_lines(io.BytesIO(data)))))


@unhurried
@given(st.lists(entries()))
def test_an_uploaded_log_counts_like_its_lines(valid: list[Entry]) -> None:
    lines = [entry.line.rstrip() + "\n" for entry in valid]
    assert report(list(work.read_lines(io.BytesIO("".join(lines).encode())))) == report(lines)


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("192.0.2.1 ", ""),
        ("192.0.2.1", ""),
        (" - ", " "),
        (" ann", ""),
        ("[", ""),
        ("]", ""),
        ("02/", "2/"),
        ("02/", "٠٢/"),
        ("/Nov/", "/11/"),
        ("2026", "26"),
        (":09:", ":24:"),
        (":09:", ":9:"),
        (":00:", ":60:"),
        (":00 +", ":70 +"),
        (" +0000", ""),
        (" +0000", " +00:00"),
        ('"GET', "GET"),
        ("/news", '/ne"ws'),
        ("1.1", "1.1\\"),
        (" 200", ""),
        (" 200", " 099"),
        (" 200", " 600"),
        (" 200", " 2000"),
        (" 100", ""),
        (" 100", " -100"),
        (" 100", " 1e3"),
        (" 100", " ١٠٠"),
        (" 100", " 1234567890123456"),
        (' "-"', ""),
        ('Firefox"', "Firefox"),
        ('Firefox"', 'Firefox" "more"'),
    ],
)
def test_a_line_with_a_wrong_part_is_malformed(part: str, wrong: str) -> None:
    assert part in COMPLETE
    assert report([COMPLETE])["malformed"] == 0
    assert report([COMPLETE.replace(part, wrong, 1)])["malformed"] == 1


@pytest.mark.parametrize(("part", "listed"), [("/news", "paths"), ("192.0.2.1", "clients")])
def test_a_long_name_is_cut(part: str, listed: str) -> None:
    """Each name that is counted stays in memory, so it may not be as long as a line."""
    result = report([COMPLETE.replace(part, part + "x" * 5_000)])
    assert result["malformed"] == 0
    assert [name["name"] for name in result[listed]] == [(part + "x" * 5_000)[:200]]


@unhurried
@given(st.integers(0, 40), st.integers(1, 9))
def test_steps_tell_how_far_the_report_is(count: int, lines_per_step: int) -> None:
    read = 0

    def lines() -> Iterable[str]:
        nonlocal read
        for _ in range(count):
            read += 1
            yield COMPLETE

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "LINES_PER_STEP", lines_per_step)
        before = 0
        for step in work.analyse_log(lines(), count):
            assert step.done == read  # no line is read before it is due
            assert step.total == count
            assert before <= step.done <= before + lines_per_step
            assert step.result is None or step.done == count
            before = step.done
    assert step.done == count
    assert step.result is not None


def test_a_long_report_takes_a_step_every_2000_lines() -> None:
    steps = list(work.analyse_log(samples.sample_log(5_000), 5_000))
    assert [step.done for step in steps] == [2_000, 4_000, 5_000]


# --- Reading a file -------------------------------------------------------------------


def lines_of(data: bytes, longest: int) -> list[str]:
    """What `read_lines` should yield, the plain way."""
    whole = re.findall(rb"[^\n]*\n|[^\n]+", data)
    return [line[:longest].decode(errors="replace") for line in whole]


@unhurried
@given(
    st.lists(st.sampled_from([b"\n", b"\r\n", b"\0", b"a", b"\xff", "é".encode()])).map(b"".join)
)
@example(b"")
@example(b"\n")
@example(b"12345678")
@example(b"12345678\n")
@example(b"1234567\n")
@example(b"123456789abcdefgh\n\n")
def test_a_file_is_read_as_it_is_counted(data: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "LONGEST_LINE", 8)
        log = io.BytesIO(data)
        log.seek(0, io.SEEK_END)
        count = work.count_lines(log)
        assert log.tell() == 0
        lines = list(work.read_lines(log))
    assert lines == lines_of(data, 8)
    assert count == len(lines)


BLOCK = 1 << 20


@pytest.mark.parametrize(
    "data",
    [
        b"x" * (3 * BLOCK),
        b"x" * (BLOCK - 1) + b"\n",
        b"x" * BLOCK + b"\n",
        b"x" * (BLOCK - 1) + b"\nx",
        b"\0" * BLOCK + b"\n" * BLOCK,
        b"\r\n" * BLOCK,
        (b"x" * 8_191 + b"\n") * 200,
        (b"x" * 8_192 + b"\n") * 200,
        (b"x" * 8_193 + b"\r\n") * 200,
    ],
    ids=lambda data: f"{data[:3]!r}, {len(data)} bytes",
)
def test_a_large_file_is_read_as_it_is_counted(data: bytes) -> None:
    lines = list(work.read_lines(io.BytesIO(data)))
    assert lines == lines_of(data, 8_192)
    assert work.count_lines(io.BytesIO(data)) == len(lines)


def test_a_file_is_read_line_by_line() -> None:
    log = io.BytesIO((b"x" * 99 + b"\n") * 1_000)
    lines = work.read_lines(log)
    for number in range(1, 11):
        next(lines)
        assert log.tell() == 100 * number


def test_a_file_of_one_endless_line_is_never_held_whole() -> None:
    class Endless(io.RawIOBase):
        """16 MB without an end of line; it notes how much was asked for at once."""

        left = 1 << 24
        largest = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            asked = self.left if size is None or size < 0 else min(size, self.left)
            self.largest = max(self.largest, asked)
            self.left -= asked
            return b"x" * asked

    log = Endless()
    (line,) = work.read_lines(log)
    assert line == "x" * work.LONGEST_LINE
    assert log.left == 0
    assert log.largest == work.LONGEST_LINE


# --- Flat memory, no slow lines -------------------------------------------------------


@pytest.fixture
def few_keys(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(work, "MOST_KEYS", 3)
    return 3


def additions(keys: str) -> st.SearchStrategy[list[tuple[str, int]]]:
    """Keys and bytes to add, many more than there are keys."""
    return st.lists(st.tuples(st.sampled_from(keys), st.integers(0, 9)), min_size=30, max_size=120)


class Totals:
    """Adds to a BoundedCounter that holds 3 keys, and counts in full beside it."""

    def __init__(self, added: list[tuple[str, int]]) -> None:
        self.requests: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(work, "MOST_KEYS", 3)
            self.counter = work.BoundedCounter()
            for key, size in added:
                self.requests[key] += 1
                self.bytes[key] += size
                self.counter.add(key, size)
                assert len(self.counter.counts) <= 2 * 3


@unhurried
@given(additions("abc"))
def test_few_keys_are_counted_exactly(added: list[tuple[str, int]]) -> None:
    totals = Totals(added)
    assert totals.counter.missed == 0
    assert totals.counter.top(10) == ten_busiest(added)


@unhurried
@given(additions("abcdefghijkl"))
def test_many_keys_are_never_counted_too_high_nor_too_low_by_more_than_missed(
    added: list[tuple[str, int]],
) -> None:
    totals = Totals(added)
    kept = {row["name"]: row for row in totals.counter.top(99)}
    counted = {name: row["requests"] for name, row in kept.items()}
    missed = totals.counter.missed
    for key, requests in totals.requests.items():
        assert counted.get(key, 0) <= requests <= counted.get(key, 0) + missed
    assert all(row["bytes"] <= totals.bytes[name] for name, row in kept.items())
    assert missed <= len(added) - sum(counted.values())


def test_the_rarest_are_forgotten() -> None:
    totals = Totals([(key, 1) for key in "aaaabbbccdefg"])
    assert [(row["name"], row["requests"]) for row in totals.counter.top(99)] == [
        ("a", 4),
        ("b", 3),
        ("c", 2),
    ]
    assert totals.counter.missed == 1


def test_a_busy_key_that_comes_among_many_new_ones_is_listed() -> None:
    """One that is often forgotten, and comes back, is known by what it may have missed."""
    old = [(key, 1) for key in "abc" * 3]
    waves = [(key, 1) for wave in range(20) for key in ["X", "X", *(f"{wave}{n}" for n in "pqr")]]
    totals = Totals(old + waves)
    assert "X" in totals.counter.counts
    assert totals.counter.top(1)[0]["name"] == "X"
    assert totals.counter.top(1)[0]["requests"] + totals.counter.missed >= 40


def test_10_000_keys_are_counted_exactly() -> None:
    """More than 10 000 pages cannot be promised; this many are."""
    counter = work.BoundedCounter()
    for _ in range(2):
        for key in range(10_000):
            counter.add(str(key), 5)
    assert counter.missed == 0
    rows = counter.top(20_000)
    assert len(rows) == 10_000
    assert all((row["requests"], row["bytes"]) == (2, 10) for row in rows)


@pytest.mark.usefixtures("few_keys")
@pytest.mark.parametrize("part", ["/news", "192.0.2.1"])
def test_a_report_says_how_much_it_missed(part: str) -> None:
    """Whether it is the paths or the clients that were too many."""
    lines = [COMPLETE.replace(part, f"{part}{number}") for number in range(7)]
    assert report(lines)["missed"] == 1  # the 7th name is one too many for 2 * 3


PEAK = """
import os, resource, sys
sys.path.insert(0, sys.argv[1])
from samples import sample_log
from work import analyse_log
for lines in (20_000, 200_000):
    if os.fork() == 0:  # a child's peak is its own; this process began with its parent's
        for _ in analyse_log(sample_log(lines), lines):
            pass
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.write(1, f"{lines} {peak}\\n".encode())
        os._exit(0)
os.wait(), os.wait()
"""


def test_a_long_log_takes_no_more_memory_than_a_short_one() -> None:
    """The peak of a process that streams a generated log. Held whole, it would be 3 times."""
    output = subprocess.run(
        [sys.executable, "-c", PEAK, str(CHAPTER)], capture_output=True, text=True, check=True
    ).stdout
    peaks = {lines: int(peak) for lines, peak in (line.split() for line in output.splitlines())}
    assert peaks["200000"] < 1.2 * peaks["20000"]


def seconds(line: str) -> float:
    start = time.perf_counter()
    list(work.analyse_log([line], 1))
    return time.perf_counter() - start


PARTS_OF_A_LINE = ["- ann", "ann", "02/", "GET", "200", "100", '-" "', "Firefox"]
STARTS = ["", *(COMPLETE[: COMPLETE.index(part)] for part in PARTS_OF_A_LINE), COMPLETE]
FILLERS = ["[", "]", '"', "\\", '\\"', ' "', '" "', " [", "[ ", " ", "- ", "a", "a ", "1", "\t"]


def test_no_line_is_slow_to_refuse() -> None:
    """None takes 50 times what a well-formed line of its length takes.

    A pattern that tries every way to share out the characters would take some 2^24 times
    as long at 24 characters, or thousands of times as long at 8 000.
    """
    for length in (24, 240, 8_000):
        plain = COMPLETE.replace("/news", "/" + "x" * length)
        limit = 50 * min(seconds(plain) for _ in range(20))
        for start, filler, end in product(STARTS, FILLERS, ("", "!")):
            line = start + filler * (length // len(filler)) + end
            slow = all(seconds(line) > limit for _ in range(8))  # not just interrupted
            assert not slow, f"{start!r} + {filler!r} … + {end!r}"


# --- The sample log -------------------------------------------------------------------

STAMP = re.compile(r"\[(.+?)\]")


@unhurried
@given(st.integers(0, 300), st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_log(lines: int, seed: int) -> None:
    first = list(samples.sample_log(lines, seed))
    assert len(first) == lines
    assert first == list(samples.sample_log(lines, seed))
    assert lines < 3 or first != list(samples.sample_log(lines, seed + 1))


def test_the_sample_log_is_a_day_in_order_with_a_few_malformed_lines() -> None:
    malformed = 0
    for seed in (1, 2, 3):
        lines = list(samples.sample_log(20_000, seed))
        stamps = [match[1] for line in lines if (match := STAMP.search(line))]
        assert stamps == sorted(stamps)  # all of one day, so they sort as text
        assert len({stamp[:11] for stamp in stamps}) == 1
        result = report(lines)
        assert result["malformed"] == 20_000 - len(stamps)
        assert len(result["hours"]) == 24
        malformed += result["malformed"]
    assert 35 <= malformed <= 90  # 60 are expected, one in a thousand


def test_samples_are_of_nobody() -> None:
    """Addresses at example.com (RFC 2606), clients of networks for examples (RFC 5737)."""
    readers = samples.sample_subscribers(200)
    assert len(set(readers)) == 200
    assert {address.partition("@")[2] for address in readers} == {"example.com"}
    clients = {line.partition(" - ")[0] for line in samples.sample_log(5_000) if " - " in line}
    networks = {client.rpartition(".")[0] for client in clients}
    assert networks == {"192.0.2", "198.51.100", "203.0.113"}


PARTS = st.floats(0, 1, exclude_max=True)


@unhurried
@given(PARTS, PARTS)
@example(0.0, math.nextafter(1, 0))
def test_the_clock_of_the_sample_log_never_runs_back(one: float, other: float) -> None:
    early, late = (
        datetime.strptime(samples.clock(part), "%d/%b/%Y:%H:%M:%S %z")
        for part in sorted([one, other])
    )
    assert early <= late


# --- The newsletter's ids and its list of recipients ----------------------------------

JOBS = st.text(string.ascii_letters + string.digits + "-_", min_size=1)


@unhurried
@given(st.sets(JOBS, max_size=4), st.sets(st.emails(), max_size=4))
def test_each_job_and_recipient_has_an_id_of_its_own(jobs: set[str], people: set[str]) -> None:
    ids = {work.message_id(job, person) for job in jobs for person in people}
    assert len(ids) == len(jobs) * len(people)
    assert all(re.fullmatch(r"<[^<>@\s]+@[^<>@\s]+>", found) for found in ids)


def test_10_000_recipients_have_10_000_ids() -> None:
    assert len({work.message_id("a", p) for p in samples.sample_subscribers(10_000)}) == 10_000


def test_an_id_is_the_same_in_every_process() -> None:
    """A worker that takes over a job must know the mails of the one that died."""
    command = "import work; print(work.message_id('job', 'ann@example.com'))"
    answers = {
        subprocess.run(
            [sys.executable, "-c", command],
            env={**os.environ, "PYTHONPATH": str(CHAPTER), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert answers == {work.message_id("job", "ann@example.com")}


@unhurried
@given(JOBS)
def test_a_mail_carries_its_id(job: str) -> None:
    assume(len(job) < 40)  # a longer header may be folded
    mail = work.write_mail(job, "News", "Hello", "ann@example.com")
    assert mail["Message-ID"] == work.message_id(job, "ann@example.com")


@pytest.mark.parametrize("body", ["Hello", "Good morning!\n\nGrüße.\n", "a line\n" * 500])
def test_a_mail_says_from_whom_to_whom_when_and_what(body: str) -> None:
    sent = work.write_mail("job", "News", body, "ann@example.com").as_bytes()
    mail = message_from_bytes(sent, policy=policy.default)
    assert (mail["From"], mail["To"]) == (work.SENDER, "ann@example.com")
    assert mail["Subject"] == "News"
    assert mail.get_content().rstrip("\n") == body.rstrip("\n")
    assert abs(mail["Date"].datetime.timestamp() - time.time()) < 60


ADDRESSES = st.lists(
    st.sampled_from([f"{name}@example.com" for name in ("ann", "Ann", "ANN", "bob", "BOB", "cas")])
)


@unhurried
@given(ADDRESSES)
@example(["ann@example.com", "bob@example.com", "Ann@example.com"])
def test_an_address_given_twice_is_kept_where_it_came_first(addresses: list[str]) -> None:
    kept: list[str] = []
    for address in addresses:
        if address.lower() not in [one.lower() for one in kept]:
            kept.append(address)
    assert contract.without_repeats(addresses) == kept
