"""Locust's users, for every chapter: they keep to what all five have in common.

    locust --host http://127.0.0.1:8000 --web-host 127.0.0.1

Closed: `Visitor`, `Publisher` and `Watcher` wait for an answer before they go on, as one person
does. Open: `OpenVisitor` and `OpenPublisher` are a crowd. They come when they come, whether or not
those before them have been served.
"""

import csv
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import socketio
from gevent.event import Event
from gevent.pool import Pool
from locust import FastHttpUser, User, events, tag, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser

import slo
from shapes import Ramp, Soak, Spike, Steps  # noqa: F401  (Locust finds them here)

ENDED = ("SUCCESS", "FAILURE", "REVOKED")
Deed = Callable[[float], None]
"""What somebody does; it is told when that was due."""


@events.init_command_line_parser.add_listener
def add_arguments(parser: LocustArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=1.0, help="what one user does in a second")
    parser.add_argument(
        "--arrivals",
        choices=["constant", "poisson"],
        default="poisson",
        help="open users: at even intervals, or at random",
    )
    parser.add_argument("--recipients", type=int, default=5, help="mails in a newsletter")
    parser.add_argument("--lines", type=int, default=20_000, help="lines in a report's log")
    parser.add_argument("--count", type=int, default=0, help="stop after so many jobs; 0: go on")
    hidden = {"include_in_web_ui": False}
    parser.add_argument("--shape", default="", help="Steps, Spike, Ramp or Soak", **hidden)
    parser.add_argument(
        "--slo", default="", help="judge the run by this file, such as slo.toml", **hidden
    )
    parser.add_argument(
        "--rows", default="", help="write one CSV row for each request here", **hidden
    )


@events.init.add_listener
def set_up(environment: Environment, **_: Any) -> None:
    options = environment.parsed_options
    assert options is not None  # noqa: S101  (for the types)
    # A shape that is imported would be in force at once: here you choose it, or none.
    shapes = environment.available_shape_classes or {}
    if options.shape and options.shape not in shapes:
        raise SystemExit(f"There is no shape {options.shape!r}. There are: {', '.join(shapes)}.")
    environment.shape_class = shapes.get(options.shape)
    for shape in shapes.values():
        shape.runner = environment.runner
    # The hub's clock stood still while Python imported: without this a short run ends early.
    gevent.get_hub().loop.update_now()
    if options.rows:
        write_rows(environment, Path(options.rows))
    if options.slo:
        judge_at_the_end(environment, slo.read(Path(options.slo)))


def write_rows(environment: Environment, path: Path) -> None:
    """One CSV row for each request, also for those that end while Locust stops.

    (Locust's own CsvRequestLogger closes its file when the stop begins, and so forgets those
    who waited longest.)
    """
    rows = csv.writer(path.open("w", newline="", buffering=1))
    rows.writerow(["start", "name", "latency_ms", "status", "error"])

    @environment.events.request.add_listener
    def write_row(
        name: str,
        response_time: float,
        start_time: float = 0.0,
        response: Any = None,
        exception: object = None,
        **_: Any,
    ) -> None:
        status = getattr(response, "status_code", 0)
        rows.writerow([start_time, name, round(response_time, 3), status, exception or ""])


def judge_at_the_end(environment: Environment, level: slo.ServiceLevel) -> None:
    @environment.events.quitting.add_listener
    def judge(**_: Any) -> None:
        entries = environment.stats.entries.items()
        rows = {name: (entry.response_times, entry.num_failures) for (name, _), entry in entries}
        judgements = level.judge(rows)
        print(slo.to_text(judgements))
        environment.process_exit_code = slo.exit_code(judgements)


# --- What everybody does --------------------------------------------------------------


class Person(FastHttpUser):
    """Somebody who asks the Postroom for something. Locust's fast client: five times the load."""

    abstract = True
    connection_timeout = network_timeout = 120.0
    concurrency = 200  # requests of an open user that may be under way
    left: int | None = None
    due = 0.0  # when to go on, in seconds since 1970

    @property
    def options(self) -> Any:
        return self.environment.parsed_options

    def do(self, deed: Deed) -> None:
        """Do it now, and wait for its end."""
        deed(time.time())

    def wait_time(self) -> float:
        """Pause so that this user does `rate` things a second, if the answers come in time."""
        now = time.time()
        self.due = max(now, self.due + 1 / self.options.rate)
        return self.due - now

    def visit(self, due: float) -> None:
        self.ask("GET", "/ping", "ping", due)

    def newsletter(self, due: float) -> None:
        recipients = [f"reader{n}@example.com" for n in range(self.options.recipients)]
        letter = {"subject": "Load", "body": "Hello", "recipients": recipients}
        self.do_job("newsletter", "/newsletters", letter, due)

    def report(self, due: float) -> None:
        self.do_job("report", "/reports", {"lines": self.options.lines}, due)

    def do_job(self, kind: str, path: str, body: dict[str, Any], due: float) -> None:
        """Two rows: until the job was accepted, and until it was finished."""
        if not self.may_begin():
            return
        job = self.ask("POST", path, f"{kind} accepted", due, body)
        if not job:
            self.stop_after_the_last()
            return
        while job["state"] not in ENDED:
            # Asking more often would be a load of its own; so a latency is up to 10 % too long.
            gevent.sleep(max(0.2, 0.1 * (time.time() - due)))
            found = self.ask("GET", f"/jobs/{job['id']}", "look-up", time.time())
            if found == {}:  # or it would be asked for until the end of time
                found = {"state": "FAILURE", "error": "nobody knows this job any more"}
            job = found or job
        fire(self, f"{kind} finished", due, failure(job))
        self.stop_after_the_last()

    def may_begin(self) -> bool:
        """Whether one more job is wanted: `--count` says how many in all."""
        if Person.left is None:
            Person.left = self.options.count or -1
        if Person.left == 0:
            gevent.sleep(0.05)
            return False
        Person.left -= 1
        return True

    def stop_after_the_last(self) -> None:
        entries = self.environment.stats.entries.items()
        over = sum(row.num_requests for (name, _), row in entries if name.endswith(" finished"))
        over += sum(row.num_failures for (name, _), row in entries if name.endswith(" accepted"))
        if self.options.count and over >= self.options.count and self.environment.runner:
            gevent.spawn(self.environment.runner.quit)  # it waits for this user to end

    def ask(
        self, method: str, path: str, name: str, due: float, body: object = None
    ) -> dict[str, Any] | None:
        """Its latency counts from `due`, when it should have been asked. None if it failed,
        and empty if there is no such thing (404)."""
        with self.client.request(method, path, name=name, json=body, catch_response=True) as answer:
            answer.request_meta["response_time"] = (time.time() - due) * 1000
            answer.request_meta["start_time"] = due
            if not answer.status_code or not answer.ok:  # 0: nobody answered
                return {} if answer.status_code == 404 else None
            return {} if name == "ping" else dict(answer.json())


def failure(job: dict[str, Any]) -> str | None:
    """What to say of a job that did not end well."""
    return None if job["state"] == "SUCCESS" else f"{job['state']}: {job['error']}"


def fire(user: User, name: str, begun: float, error: str | None = None) -> None:
    """A row of our own, in Locust's tables and ours."""
    user.environment.events.request.fire(
        request_type="",
        name=name,
        response_time=(time.time() - begun) * 1000,
        response_length=0,
        start_time=begun,
        exception=error,
        context={},
    )


# --- Closed: one after the other ------------------------------------------------------


class Visitor(Person):
    """Asks for a page that does no work; waits for it; asks again."""

    @tag("visit")
    @task
    def visits(self) -> None:
        self.do(self.visit)


class Publisher(Person):
    """Sends a job, waits until it is finished, and sends the next."""

    @tag("newsletter")
    @task
    def publishes(self) -> None:
        self.do(self.newsletter)

    @tag("report")
    @task
    def reports(self) -> None:
        self.do(self.report)


class Watcher(Person):
    """Sends a newsletter and watches it over Socket.IO: a row `push` for each event.

    Its latency runs from the `at` in the event, the clock of the process that pushed, to this
    clock. On two machines it is only as true as their clocks are the same.
    """

    def on_start(self) -> None:
        self.ended = Event()
        self.socket = socketio.Client(reconnection=False)
        self.socket.on("progress", self.receive)
        begun = time.time()
        try:
            self.socket.connect(self.host, transports=["websocket"])
        except socketio.exceptions.ConnectionError as error:
            fire(self, "connect", begun, f"No Socket.IO here: {error}")
            raise StopUser from error
        fire(self, "connect", begun)

    @tag("watch")
    @task
    def watches(self) -> None:
        if not self.may_begin():
            return
        recipients = [f"reader{n}@example.com" for n in range(self.options.recipients)]
        letter = {"subject": "Load", "body": "Hello", "recipients": recipients}
        begun = time.time()
        job = self.ask("POST", "/newsletters", "newsletter accepted", begun, letter)
        if job is None:
            return
        self.ended.clear()
        self.last = {"state": "no end was pushed", "error": job["id"]}
        now = self.socket.call("watch", {"job": job["id"]})
        if now["state"] not in ENDED:
            self.ended.wait(timeout=120)
            now = self.last
        fire(self, "newsletter finished", begun, failure(now))
        self.stop_after_the_last()

    def receive(self, event: dict[str, Any]) -> None:
        fire(self, "push", event["at"])
        if event["state"] in ENDED:
            self.last = event
            self.ended.set()

    def on_stop(self) -> None:
        self.socket.disconnect()


# --- Open: a crowd --------------------------------------------------------------------


class Crowd(Person):
    """`rate` arrivals a second, each in time; so N users are a crowd of N × rate.

    Latency counts from when an arrival was due, so a server that stands still cannot hide those
    whom it keeps waiting ("coordinated omission"). The row `own delay` says how late Locust itself
    was: if it is, the machine that makes the load is too small, and no figure of the run is good.
    """

    abstract = True

    def on_start(self) -> None:
        self.under_way = Pool(self.concurrency)
        gevent.sleep(random.random() / self.options.rate)  # a crowd does not keep step
        self.due = time.time()

    def do(self, deed: Deed) -> None:
        """Begin it, and do not wait."""
        fire(self, "own delay", self.due)
        self.under_way.spawn(deed, self.due)

    def wait_time(self) -> float:
        """Until the next arrival is due; nothing if it should have been already."""
        constant = self.options.arrivals == "constant"
        self.due += 1 / self.options.rate if constant else random.expovariate(self.options.rate)
        return max(0.0, self.due - time.time())

    def on_stop(self) -> None:
        self.under_way.join()


class OpenVisitor(Crowd, Visitor):
    """Visitors, `rate` a second for each user."""


class OpenPublisher(Crowd, Publisher):
    """Jobs, `rate` a second for each user."""
