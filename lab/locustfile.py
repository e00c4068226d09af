"""The lab's Locust users. `lab.load` runs this file with `locust` as a process of its own."""

import csv
import time
from pathlib import Path
from typing import Any

import gevent
from gevent.pool import Pool
from locust import FastHttpUser, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import STATE_RUNNING, STATE_SPAWNING

ENDED = ("SUCCESS", "FAILURE", "REVOKED")


@events.init_command_line_parser.add_listener
def add_arguments(parser: LocustArgumentParser) -> None:
    parser.add_argument("--rows", type=Path, help="file for one CSV row per request")
    parser.add_argument("--rate", type=float, default=20, help="arrivals a second")
    parser.add_argument("--count", type=int, default=10, help="newsletters in all")
    parser.add_argument("--recipients", type=int, default=5, help="mails in a newsletter")


@events.init.add_listener
def write_rows(environment: Environment, **_: Any) -> None:
    """One CSV row per request, also for those that end while Locust is stopping.

    (Locust's own CsvRequestLogger closes its file when the stop begins, and so forgets
    the requests that waited longest.)
    """
    rows = csv.writer(
        environment.parsed_options.rows.open(  # type: ignore[union-attr]
            "w", newline="", buffering=1
        )
    )
    rows.writerow(["start", "name", "latency_ms", "status", "error"])

    @environment.events.request.add_listener
    def write_row(
        name: str,
        response_time: float,
        start_time: float,
        response: Any = None,
        exception: object = None,
        **_: Any,
    ) -> None:
        status = getattr(response, "status_code", 0)
        rows.writerow([start_time, name, round(response_time, 3), status, exception or ""])


class Visitor(FastHttpUser):
    """Open arrivals: asks for /ping at set times, whether or not earlier answers have come.

    The latency counts from the time at which the request was due, so a stalled server
    cannot hide the visitors that it keeps waiting ("coordinated omission").
    """

    connection_timeout = network_timeout = 60.0
    concurrency = 200

    @task
    def arrive(self) -> None:
        interval = 1 / self.environment.parsed_options.rate
        under_way = Pool(self.concurrency)
        due = time.time()
        while running(self.environment):
            under_way.spawn(self.ping, due)
            due += interval
            gevent.sleep(max(0.0, due - time.time()))
        under_way.join()

    def ping(self, due: float) -> None:
        with self.client.get("/ping", catch_response=True) as answer:
            answer.request_meta["response_time"] = (time.time() - due) * 1000
            answer.request_meta["start_time"] = due


class Publisher(FastHttpUser):
    """A closed loop: sends a newsletter, waits until it is finished, sends the next."""

    connection_timeout = network_timeout = 120.0
    left: int | None = None

    @task
    def publish(self) -> None:
        options = self.environment.parsed_options
        if Publisher.left is None:
            Publisher.left = options.count
        if Publisher.left == 0:
            gevent.sleep(0.05)
            return
        Publisher.left -= 1
        recipients = [f"reader{n}@example.com" for n in range(options.recipients)]
        letter = {"subject": "Load", "body": "Hello", "recipients": recipients}
        begun = time.time()
        with self.client.post("/newsletters", json=letter, catch_response=True) as answer:
            job = answer.json() if answer.ok else {"state": "FAILURE", "error": answer.text}
        while job["state"] not in ENDED:
            gevent.sleep(0.2)  # asking more often would be a load of its own
            job = self.client.get(f"/jobs/{job['id']}", name="/jobs/<id>").json()
        self.environment.events.request.fire(
            request_type="JOB",
            name="newsletter",
            response_time=(time.time() - begun) * 1000,
            response_length=0,
            start_time=begun,
            exception=None if job["state"] == "SUCCESS" else job["error"],
            context={},
        )
        finished = self.environment.stats.get("newsletter", "JOB").num_requests
        if finished >= options.count and self.environment.runner is not None:
            gevent.spawn(self.environment.runner.quit)  # it waits for this user to end


def running(environment: Environment) -> bool:
    runner = environment.runner
    return runner is not None and runner.state in (STATE_SPAWNING, STATE_RUNNING)
