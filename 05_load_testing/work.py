"""The two slow jobs: a newsletter that waits and a report that computes.

Both are plain generators. Each yields a Step for what it has just done, and knows
nothing of Flask, sockets or queues. Whoever drains the generator does the waiting.
"""

import hashlib
import os
import re
import smtplib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from email.message import EmailMessage
from email.utils import formatdate
from typing import IO, Any, NamedTuple

SMTP_HOST = os.environ.get("SMTP_HOST", "127.0.0.1")
SMTP_PORT = int(os.environ.get("SMTP_PORT", "8025"))
SMTP_TIMEOUT = float(os.environ.get("SMTP_TIMEOUT", "10"))
SENDER = os.environ.get("SENDER", "postroom@example.com")

LINES_PER_STEP = 2_000
LONGEST_LINE = 8_192
MOST_KEYS = 10_000
LONGEST_NAME = 200


class Step(NamedTuple):
    """One step of a job: `done` of `total`, and the result as far as it is known."""

    done: int
    total: int
    result: dict[str, Any] | None
    recipient: str | None = None
    refused: tuple[int, str] | None = None


class MailServerAway(Exception):
    """The mail server cannot be reached, or has gone away in the middle."""

    def __init__(self, sent: int, total: int, reason: object) -> None:
        super().__init__(f"The mail server is away: {sent} of {total} mails were sent. ({reason})")
        self.sent = sent


# --- The newsletter: it waits (I/O-bound) --------------------------------------------


def send_newsletter(
    job_id: str, subject: str, body: str, recipients: Sequence[str]
) -> Iterator[Step]:
    """Send one mail to each recipient over one SMTP connection; a step is a recipient.

    A refused recipient is counted and the rest go on. Raises MailServerAway when the
    connection cannot be made or breaks: the recipients not yet yielded got no answer.
    """
    total = len(recipients)
    result: dict[str, Any] = {"sent": 0, "refused": 0, "refusals": []}
    try:
        with smtplib.SMTP(SMTP_HOST, SMTP_PORT, "localhost", timeout=SMTP_TIMEOUT) as smtp:
            for done, recipient in enumerate(recipients, start=1):
                refused = send_one(smtp, write_mail(job_id, subject, body, recipient))
                if refused is None:
                    result["sent"] += 1
                else:
                    result["refused"] += 1
                    if len(result["refusals"]) < 20:
                        code, reason = refused
                        result["refusals"].append(
                            {"recipient": recipient, "code": code, "reason": reason}
                        )
                yield Step(done, total, result, recipient, refused)
    except OSError as error:  # smtplib's own errors are OSErrors too
        raise MailServerAway(result["sent"], total, error) from error


def write_mail(job_id: str, subject: str, body: str, recipient: str) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = SENDER
    mail["To"] = recipient
    mail["Subject"] = subject
    mail["Date"] = formatdate()
    mail["Message-ID"] = message_id(job_id, recipient)
    mail.set_content(body)
    return mail


def message_id(job_id: str, recipient: str) -> str:
    """The same job and recipient always give the same id, so a second copy can be known."""
    digest = hashlib.sha256(recipient.encode()).hexdigest()[:16]
    return f"<{job_id}.{digest}@postroom.example>"


def send_one(smtp: smtplib.SMTP, mail: EmailMessage) -> tuple[int, str] | None:
    """None when the server took the mail, else its code and reason for refusing it."""
    try:
        smtp.send_message(mail)
        return None
    except smtplib.SMTPNotSupportedError as error:
        return 553, str(error)
    except smtplib.SMTPResponseException as error:
        code, reason = error.smtp_code, error.smtp_error
    except smtplib.SMTPRecipientsRefused as error:
        ((code, reason),) = error.recipients.values()
    text = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
    if code == 421:  # the server is closing the connection: that is not about this recipient
        raise smtplib.SMTPServerDisconnected(text)
    return code, text


# --- The report: it computes (CPU-bound) ---------------------------------------------

LOG_LINE = re.compile(
    r"(?P<client>\S+) \S+ [^\[]+ "
    r"\[\d\d/[A-Z][a-z]{2}/\d{4}:(?P<hour>[01]\d|2[0-3]):[0-5]\d:[0-6]\d [+-]\d{4}\] "
    r'"(?P<request>(?:[^"\\]|\\.)*)" (?P<status>[1-5]\d\d) (?P<bytes>\d{1,15}|-)'
    r'(?: "(?:[^"\\]|\\.)*" "(?:[^"\\]|\\.)*")?\s*',
    re.ASCII,
)


def analyse_log(lines: Iterable[str], total: int) -> Iterator[Step]:
    """Summarise an access log in Common or Combined Log Format; a step is 2 000 lines.

    Memory stays flat: a path or client is counted exactly while there are at most
    10 000 different ones; beyond that the rarest are forgotten, and `missed` says by
    how much a listed count may be too low at the most.
    """
    statuses: Counter[str] = Counter()
    hours: Counter[str] = Counter()
    paths, clients = BoundedCounter(), BoundedCounter()
    size = malformed = done = 0
    for done, line in enumerate(lines, start=1):
        match = LOG_LINE.fullmatch(line)
        if match is None:
            malformed += 1
        else:
            client, hour, request, status, sent = match.groups()
            sent_bytes = 0 if sent == "-" else int(sent)
            size += sent_bytes
            statuses[status] += 1
            hours[hour] += 1
            paths.add(path_of(request), sent_bytes)
            clients.add(client[:LONGEST_NAME], sent_bytes)
        if done % LINES_PER_STEP == 0:
            yield Step(done, total, None)
    yield Step(
        done,
        total,
        {
            "lines": done,
            "malformed": malformed,
            "bytes": size,
            "statuses": dict(sorted(statuses.items())),
            "hours": dict(sorted(hours.items())),
            "paths": paths.top(10),
            "clients": clients.top(10),
            "missed": max(paths.missed, clients.missed),
        },
    )


def path_of(request: str) -> str:
    """`GET /news?page=2 HTTP/1.1` → `/news`; a request that is not HTTP counts as `-`."""
    words = request.split(" ", 2)
    path = words[1].partition("?")[0][:LONGEST_NAME] if len(words) > 1 else ""
    return path or "-"


class BoundedCounter:
    """Requests and bytes by key, in bounded memory (lossy counting, Manku and Motwani 2002)."""

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = {}  # requests, bytes, requests missed at most
        self.missed = 0

    def add(self, key: str, size: int) -> None:
        entry = self.counts.setdefault(key, [0, 0, self.missed])
        entry[0] += 1
        entry[1] += size
        if len(self.counts) > 2 * MOST_KEYS:
            self.forget_the_rarest()

    def forget_the_rarest(self) -> None:
        ranked = sorted(self.counts.items(), key=lambda item: -item[1][0] - item[1][2])
        count, _, missed = ranked[MOST_KEYS][1]
        self.missed = count + missed
        self.counts = dict(ranked[:MOST_KEYS])

    def top(self, n: int) -> list[dict[str, Any]]:
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1][0], item[0]))
        return [{"name": k, "requests": c, "bytes": size} for k, (c, size, _) in ranked[:n]]


def read_lines(log: IO[bytes]) -> Iterator[str]:
    """The lines of a log file; one longer than 8 kB is cut there, so it cannot fill the memory."""
    while line := log.readline(LONGEST_LINE):
        cut = len(line) == LONGEST_LINE and not line.endswith(b"\n")
        yield line.decode("utf-8", errors="replace")
        while cut and (rest := log.readline(LONGEST_LINE)):
            cut = not rest.endswith(b"\n")


def count_lines(log: IO[bytes]) -> int:
    """How many lines `read_lines` will yield; leaves the file at its start."""
    log.seek(0)
    lines, last = 0, b"\n"
    while block := log.read(1 << 20):
        lines, last = lines + block.count(b"\n"), block[-1:]
    log.seek(0)
    return lines + (last != b"\n")
