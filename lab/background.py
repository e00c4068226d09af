"""Jobs in the background of the web process, while a visitor asks it for something small."""

import time
from typing import Any

import requests

from lab.chapters import Chapter, gunicorn
from lab.load import ENDED, addresses, post


def switching(interval: float) -> dict[str, Any]:
    """Settings for `lab.start`: how long, in seconds, a thread may keep the GIL from others."""
    return {**gunicorn("switch_interval.py"), "SWITCH_INTERVAL": interval}


def run_jobs(
    chapter: Chapter, seconds: float, newsletters: int = 0, reports: int = 0
) -> tuple[float, float]:
    """Have jobs run for so many seconds, and cancel them; returns from when to when they ran.

    The jobs are so large that none ends before. Times are seconds since the epoch; the jobs'
    first moments, in which they are accepted, do not count.
    """
    letter = {"subject": "News", "body": "Hello", "recipients": addresses(500)}
    answers = [post(chapter.url, "/newsletters", letter) for _ in range(newsletters)]
    answers += [post(chapter.url, "/reports", {"lines": 10_000_000}) for _ in range(reports)]
    urls = [f"{chapter.url}/jobs/{answer.json()['id']}" for answer in answers]
    begin = time.time()
    time.sleep(seconds)
    end = time.time()
    for url in urls:
        requests.delete(url, timeout=60)
    while any(requests.get(url, timeout=60).json()["state"] not in ENDED for url in urls):
        time.sleep(0.1)
    return begin, end
