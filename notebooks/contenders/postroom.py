"""What is the same for every contender: the two jobs, each drained to its end by whoever calls.

The work itself is chapter 01's `work.py`, to the letter. A report goes out as a mail too, so one
mailbox tells what became of either.
"""

import json
import os

import samples
import work

REDIS_URL = f"redis://127.0.0.1:{os.environ.get('REDIS_PORT', '6379')}/0"
EDITOR = "editor@example.com"


def send_newsletter(job: str, subject: str, body: str, recipients: list[str]) -> None:
    """Mail to everybody. Run a second time with the same `job`, it mails to everybody again."""
    for _ in work.send_newsletter(job, subject, body, recipients):
        pass


def make_report(job: str, lines: int) -> None:
    """Summarise a sample log of so many lines, and mail the summary to the editor."""
    *_, last = work.analyse_log(samples.sample_log(lines), lines)
    send_newsletter(job, f"Report: {last.done} lines", json.dumps(last.result), [EDITOR])
