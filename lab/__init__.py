"""The instruments of this repository: start a chapter, load it, hurt it, read what came out.

    import lab

    with lab.start("01", THREADS=4) as chapter:
        with lab.visitor(chapter.url, rate=20) as visit:
            lab.send_newsletter(chapter.url, recipients=20)
        print(lab.percentile(visit.rows.latency_ms, 99))

Chapters never import them. Times are in milliseconds where a name ends in `_ms`, else in seconds.
What is named below is what most measurements need. The other modules, by what they are for:

    start and stop       chapters, supervisor, run, scene, hosts; gunicorn/ (configurations)
    load                 load (open and closed crowds), crowds (mixed, growing), loadtest (by hand)
    hurt                 faults (the fault table), crashes, outages (of chapter 04), visibility
    read                 mailbox, watch, following (who follows jobs), backlog, detection, slot_logs
    compute              queueing, growth, autoscaling, retrying, knee
    measure and keep     experiments, figures*, tour, results, prose (tables), plots
    notebooks            classroom, notebooks, pictures_*, bare_python, contenders, choosing
    the repository       stages (what differs), sabotage, troubles*
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
