"""What Prometheus reads: numbers of this process and its siblings, and of the queues.

Counters only grow; Prometheus takes the difference between two readings. Each service (web, mail,
report) has several processes, which share a folder of files: so a reading of one counts all.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
from redis import RedisError

import jobs
import queues
from celery_app import QUEUES
from redis_server import DATA

# The Procfile says which folder, for Celery's own command imports prometheus_client before this.
# Whoever imports this file first is a service's main process: it begins with an empty folder.
SHARED = Path(os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(DATA / "metrics" / "python")))
SHARED.mkdir(parents=True, exist_ok=True)
for old in SHARED.glob("*.db"):
    old.unlink()

from prometheus_client import (  # noqa: E402  (it looks for the folder when it is imported)
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
)
from prometheus_client.core import GaugeMetricFamily  # noqa: E402
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead  # noqa: E402
from prometheus_client.registry import Collector  # noqa: E402

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

# The web process.
REQUESTS = Counter("postroom_requests", "Requests answered", ["method", "endpoint", "status"])
REQUEST_SECONDS = Histogram(
    "postroom_request_seconds", "Time to answer a request", ["endpoint"], buckets=SECONDS
)
SOCKETS = Gauge("postroom_sockets", "Clients connected by Socket.IO", multiprocess_mode="livesum")
PUSH_SECONDS = Histogram(
    "postroom_push_seconds", "From a worker's push until a browser has it", buckets=SECONDS
)

# The workers.
SLOTS = Gauge("postroom_slots", "Slots of workers", ["queue"], multiprocess_mode="livesum")
BUSY = Gauge("postroom_slots_busy", "Slots at work", ["queue"], multiprocess_mode="livesum")
WAIT_SECONDS = Histogram(
    "postroom_task_wait_seconds", "A task's time in its queue", ["task"], buckets=SECONDS
)
RUN_SECONDS = Histogram(
    "postroom_task_run_seconds", "A task's time in a slot", ["task", "state"], buckets=SECONDS
)
RETRIES = Counter("postroom_retries", "Jobs put off, to be tried again", ["kind"])
MAILS = Counter("postroom_mails", "Mails, by the mail server's answer", ["answer"])


class OfThisService(Collector):
    """The metrics above, summed over the processes that share the folder."""

    def collect(self) -> Iterator[Metric]:
        for path in SHARED.glob("gauge_live*_*.db"):
            pid = int(path.stem.rpartition("_")[2])
            if not psutil.pid_exists(pid):  # killed: what it was at work on does not count
                mark_process_dead(pid)
        yield from MultiProcessCollector(None).collect()


class OfTheQueues(Collector):
    """What stands in Redis. One service is enough to tell: the web process does."""

    def collect(self) -> Iterator[Metric]:
        try:
            found = list(self.read())
        except RedisError:
            found = []
        yield GaugeMetricFamily("postroom_redis_up", "Whether Redis answers", bool(found))
        yield from found

    def read(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("postroom_queue_messages", "Waiting tasks", labels=["queue"])
        oldest = GaugeMetricFamily(
            "postroom_queue_oldest_seconds", "Age of the first in the queue", labels=["queue"]
        )
        consumed = GaugeMetricFamily(
            "postroom_queue_consumed_timestamp_seconds",
            "When a worker last took a task from the queue",
            labels=["queue"],
        )
        last = jobs.store.hgetall("consumed")
        for queue in QUEUES:
            waiting, age = queues.look(queue)
            depth.add_metric([queue], waiting)
            oldest.add_metric([queue], age)
            consumed.add_metric([queue], float(last.get(queue, 0)))
        dead = GaugeMetricFamily("postroom_dead_letters", "Jobs given up and kept")
        dead.add_metric([], jobs.store.zcard("dead"))
        yield from (depth, oldest, consumed, dead)


def registry(*collectors: Collector) -> CollectorRegistry:
    found = CollectorRegistry()
    for collector in collectors:
        found.register(collector)
    return found
