"""Sample data, so that a first try needs no file of your own: subscribers and an access log."""

import random
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate

BUSY_HOURS = [3, 2, 1, 1, 1, 2, 4, 7, 9, 10, 10, 9, 8, 9, 10, 10, 9, 8, 8, 9, 9, 8, 6, 4]
REQUESTS_BY_HOUR = list(accumulate(BUSY_HOURS))
PAGES = ["/", "/news", "/about", "/archive", "/contact", "/feed.xml", "/search?q=letters"]
STATUSES = [200] * 90 + [304] * 4 + [301] * 2 + [404] * 3 + [500]
BROWSERS = ["Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (Macintosh)", "Feed reader 2.1"]
NETWORKS = ["192.0.2", "198.51.100", "203.0.113"]  # set aside for examples by RFC 5737


def sample_subscribers(count: int) -> list[str]:
    return [f"reader{n:02}@example.com" for n in range(1, count + 1)]


def sample_log(lines: int, seed: int = 1) -> Iterator[str]:
    """One day of a small site in Combined Log Format; one line in a thousand is malformed.

    The same `lines` and `seed` give the same log.
    """
    dice = random.Random(seed)
    pages = PAGES + [f"/news/{n}" for n in range(1, 200)]
    weights = [1 / rank for rank in range(1, len(pages) + 1)]  # few pages get most requests
    clients = [f"{network}.{n}" for network in NETWORKS for n in range(1, 255)]
    for number in range(lines):
        if dice.random() < 0.001:
            yield "-- log rotated --\n"
            continue
        (page,) = dice.choices(pages, weights)
        size = int(dice.lognormvariate(8.5, 1))
        yield (
            f"{dice.choice(clients)} - - [{clock(number / lines)}] "
            f'"GET {page} HTTP/1.1" {dice.choice(STATUSES)} {size} "-" "{dice.choice(BROWSERS)}"\n'
        )


def clock(part: float) -> str:
    """The time of day at which `part` of the day's requests have come, 0 ≤ part < 1."""
    requests = part * REQUESTS_BY_HOUR[-1]
    hour = bisect(REQUESTS_BY_HOUR, requests)
    before = REQUESTS_BY_HOUR[hour - 1] if hour else 0
    second = int((requests - before) / BUSY_HOURS[hour] * 3600)
    return f"02/Nov/2026:{hour:02}:{second // 60:02}:{second % 60:02} +0000"
