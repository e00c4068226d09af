"""How many tasks Flower shows as they went, by who publishes the worker's events."""

import subprocess
import sys
import tempfile
from typing import Any

import requests

from lab.chapters import ROOT, Chapter, LabError, start
from lab.load import addresses, finish, post
from lab.results import spread
from lab.waiting import wait_until

NEWER = "5.7.0"
LETTERS = 100
LOGIN = ("lab", "lab")
SHOWN = ("success", "received", "started", "succeeded")


def measure() -> dict[str, Any]:
    """100 newsletters of one mail on 16 slots, three times: what Flower shows of them in the end.

    `success` counts rows in the state SUCCESS, the others the rows that have a time for this
    event. By chapter, and by dispatcher: Celery's own, the chapter's, and that of celery 5.7.0,
    which is fetched for this.
    """
    with tempfile.TemporaryDirectory(prefix="unblocked-") as newer:
        install(newer)
        celerys = {"--app tasks worker": "--app lab.celery_events worker"}
        path = {"env SERVICE=": f"env PYTHONPATH={newer}:{ROOT} SERVICE="}
        ways: dict[str, dict[str, str]] = {"celery": celerys, "ours": {}, NEWER: celerys | path}
        found: dict[str, Any] = {
            number: {way: {name: [] for name in SHOWN} for way in ways} for number in ("04", "05")
        }
        for _ in range(3):
            for number, table in found.items():
                for way, replace in ways.items():
                    with start(number, replace=replace, FLOWER_BASIC_AUTH=":".join(LOGIN)) as run:
                        for name, count in shown(run).items():
                            table[way][name].append(float(count))
    figures = {
        number: {
            way: {name: spread(counts) for name, counts in row.items()}
            for way, row in table.items()
        }
        for number, table in found.items()
    }
    return {"letters": LETTERS} | figures


def install(folder: str) -> None:
    """Celery alone, for what it needs is here. Raises LabError without a network."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    if subprocess.run([*command, f"celery=={NEWER}"]).returncode:
        raise LabError(f"celery {NEWER} could not be fetched, and this figure needs it.")


def shown(chapter: Chapter) -> dict[str, int]:
    """Send the newsletters; how many rows of Flower show what, once it hears no more of them."""
    wait_for_heartbeats(chapter, 1)  # Flower listens
    letter = {"subject": "News", "body": "Hello", "recipients": addresses(1)}
    answers = [post(chapter.url, "/newsletters", letter) for _ in range(LETTERS)]
    for answer in answers:
        assert finish(chapter.url, answer)["state"] == "SUCCESS"
    wait_for_heartbeats(chapter, 2)  # the worker has published what waited
    rows = flower(chapter, "/api/tasks?limit=1000&taskname=newsletter").json().values()
    counts = {name: sum(bool(row[name]) for row in rows) for name in SHOWN[1:]}
    return {"success": sum(row["state"] == "SUCCESS" for row in rows)} | counts


def wait_for_heartbeats(chapter: Chapter, count: int) -> None:
    """Until Flower has heard `count` more heartbeats of the mail worker: one every two seconds."""
    before = heartbeats(chapter)
    wait_until(lambda: heartbeats(chapter) >= before + count)


def heartbeats(chapter: Chapter) -> int:
    workers = flower(chapter, "/workers?json=1").json()["data"]
    (mail,) = [worker for worker in workers if worker["hostname"].startswith("mail@")] or [{}]
    return int(mail.get("worker-heartbeat", 0))


def flower(chapter: Chapter, path: str) -> requests.Response:
    url = f"http://127.0.0.1:{chapter.ports['FLOWER_PORT']}"
    return requests.get(url + path, auth=LOGIN, timeout=10)
