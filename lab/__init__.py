"""The instruments of this repository: start a chapter, load it, hurt it, read what came out.

    import lab

    with lab.start("01", THREADS=4) as chapter:
        with lab.visitor(chapter.url, rate=20) as visit:
            lab.send_newsletter(chapter.url, recipients=20)
        print(lab.percentile(visit.rows.latency_ms, 99))

Notebooks, the tour and the tests are built on these functions alone. Chapters never
import them. Times are in milliseconds where a name ends in `_ms`, else in seconds.
"""

from lab.chapters import Chapter, LabError, chapters, start
from lab.load import (
    Visit,
    addresses,
    crowd,
    finish,
    make_report,
    percentile,
    post,
    publish,
    sample_log,
    send_newsletter,
    visitor,
)
from lab.mailbox import Mailbox
from lab.results import record, recorded

__all__ = [
    "Chapter",
    "LabError",
    "Mailbox",
    "Visit",
    "addresses",
    "chapters",
    "crowd",
    "finish",
    "make_report",
    "percentile",
    "post",
    "publish",
    "record",
    "recorded",
    "sample_log",
    "send_newsletter",
    "start",
    "visitor",
]
