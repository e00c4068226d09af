"""What notebook 00 times: jobs that wait and jobs that compute, in threads, processes and asyncio.

Bare Python, without Flask. The jobs stand here and not in the notebook because a process can be
given only what it can import. All times are seconds on `time.perf_counter`, whose clock all
processes of a machine share.
"""

import asyncio
import multiprocessing
import os
import runpy
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle, islice, pairwise
from multiprocessing.synchronize import Barrier
from statistics import median
from typing import Any, NamedTuple, Self

from lab.chapters import folder
from lab.load import sample_log

LINES_PER_LOOK = 20  # lines of a log between two looks at the clock: some 0.1 ms
PAUSE = 0.0005  # seconds without a look at the clock, after which a job did not run
READY = 60.0  # seconds that a pool's processes may take to start


class Worker(NamedTuple):
    """Who does a job: a process, a thread in it, and in an event loop a task of that thread."""

    process: int
    thread: int
    task: str


class Done(NamedTuple):
    """A job that is done: who did it, when it was at it (begin and end), and what came out."""

    worker: Worker
    spans: list[tuple[float, float]]
    result: Any = None

    @property
    def begin(self) -> float:
        return self.spans[0][0]

    @property
    def end(self) -> float:
        return self.spans[-1][1]

    @property
    def seconds(self) -> float:
        return self.end - self.begin


# --- Jobs that wait -------------------------------------------------------------------


def wait(seconds: float) -> Done:
    """Wait, as for an answer from the network."""
    begun = time.perf_counter()
    time.sleep(seconds)
    return Done(worker(), [(begun, time.perf_counter())])


async def wait_async(seconds: float) -> Done:
    """The same as a coroutine: `await` lets others run meanwhile."""
    begun = time.perf_counter()
    await asyncio.sleep(seconds)
    return Done(worker(), [(begun, time.perf_counter())])


def ask(port: int) -> Done:
    """Connect to a server on this machine and read what it says, until it hangs up."""
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        said = connection.makefile("rb").read()
    return Done(worker(), [(begun, time.perf_counter())], said)


async def ask_async(port: int) -> Done:
    """The same as a coroutine."""
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = await reader.read()
    writer.close()
    await writer.wait_closed()
    return Done(worker(), [(begun, time.perf_counter())], said)


@contextmanager
def late_server(delay: float) -> Iterator[int]:
    """A server on this machine that answers everybody `delay` seconds late; gives its port."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            time.sleep(delay)
            self.request.sendall(b"here you are\n")

    class Server(socketserver.ThreadingTCPServer):
        request_queue_size = 100  # so many may connect in the same moment
        daemon_threads = True

    with Server(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


# --- Jobs that compute ----------------------------------------------------------------


def compute(lines: int) -> Done:
    """Make the report of a sample log of so many lines, with chapter 01's own `work.py`.

    The spans are the times in which it ran without a pause. The sample log is a short one,
    again and again.
    """
    looks = [time.perf_counter()]

    def read() -> Iterator[str]:
        for number, line in enumerate(islice(cycle(short_log()), lines)):
            if number % LINES_PER_LOOK == 0:
                looks.append(time.perf_counter())
            yield line

    *_, last = analyse_log()(read(), lines)
    looks.append(time.perf_counter())
    return Done(worker(), without_pauses(looks), last.result)


async def compute_async(lines: int) -> Done:
    """The same as a coroutine. It has nothing to await, so it lets nobody run meanwhile."""
    return compute(lines)


def without_pauses(looks: list[float]) -> list[tuple[float, float]]:
    """The spans in which looks at the clock follow each other without a PAUSE."""
    spans, begun = [], looks[0]
    for before, after in pairwise(looks):
        if after - before > PAUSE:
            spans.append((begun, before))
            begun = after
    return [*spans, (begun, looks[-1])]


@cache
def analyse_log() -> Callable[[Iterable[str], int], Iterator[Any]]:
    work: Callable[[Iterable[str], int], Iterator[Any]]
    work = runpy.run_path(str(folder("01") / "work.py"))["analyse_log"]
    return work


@cache
def short_log() -> list[str]:
    return list(sample_log("01", 2_000))


# --- Who does it ----------------------------------------------------------------------


def worker() -> Worker:
    """Who runs this line."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop in this thread
        task = None
    return Worker(os.getpid(), threading.get_ident(), task.get_name() if task else "")


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_gil() -> bool:
    """Whether one thread at a time runs Python code: True but in a free-threaded Python."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of `count` processes, all of them started and ready to compute.

    They are forked from a clean process that has imported this module, not from a notebook's
    kernel with its threads: so it works the same on Linux and macOS. They end with the block, or
    when this process is gone.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ready = context.Barrier(count + 1)
    with ProcessPoolExecutor(count, context, initializer=stand_by, initargs=(ready,)) as pool:
        for _ in range(count):
            pool.submit(time.sleep, 0)  # starts one process, since none is ready yet
        ready.wait(READY)
        yield pool


def stand_by(ready: Barrier) -> None:
    """The beginning of a pool's process: load the work, then wait until all others have."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    compute(1)
    ready.wait(READY)


def end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


# --- Times ----------------------------------------------------------------------------


@dataclass
class Run:
    """One way of doing some jobs, once: from `begin` until all were `done` at `end`."""

    begin: float
    end: float = 0.0
    done: list[Done] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    def at_work(self) -> float:
        """Seconds of work, those of jobs that ran at the same time added up."""
        return sum(end - begin for job in self.done for begin, end in job.spans)

    def busy(self) -> float:
        """Seconds in which any job was at work."""
        busy, until = 0.0, self.begin
        for begin, end in sorted(span for job in self.done for span in job.spans):
            busy += max(0.0, end - max(begin, until))
            until = max(until, end)
        return busy


class Stopwatch:
    """Times several ways of doing the same jobs: `with watch("4 threads") as done: …`.

    What the jobs return goes into the list `done`. `runs` has all runs of a way, by its name.
    The first way of all is what the others are compared with.
    """

    def __init__(self) -> None:
        self.runs: dict[str, list[Run]] = {}

    @contextmanager
    def __call__(self, way: str) -> Iterator[list[Done]]:
        run = Run(time.perf_counter())
        yield run.done
        run.end = time.perf_counter()
        self.runs.setdefault(way, []).append(run)

    def quietest(self) -> dict[str, Run]:
        """One run of each way: those of the round that took the least time."""
        rounds = zip(*self.runs.values(), strict=True)
        shortest = min(rounds, key=lambda runs: sum(run.seconds for run in runs))
        return dict(zip(self.runs, shortest, strict=True))

    def seconds(self, way: str) -> float:
        """The median of its runs."""
        return median(run.seconds for run in self.runs[way])

    def at_once(self, way: str) -> float:
        """How many jobs were at work at the same time, on average while any was."""
        runs = self.runs[way]
        return sum(run.at_work() for run in runs) / sum(run.busy() for run in runs)

    def processes(self, way: str) -> set[int]:
        """The ids of the processes that did its jobs."""
        return {job.worker.process for run in self.runs[way] for job in run.done}

    def speedup(self, way: str) -> float:
        """How many times faster than the first way: the median of the rounds."""
        first = next(iter(self.runs.values()))
        pairs = zip(first, self.runs[way], strict=True)
        return median(one.seconds / other.seconds for one, other in pairs)

    def results(self) -> list[Any]:
        """What each job of each run gave."""
        return [job.result for runs in self.runs.values() for run in runs for job in run.done]


class Heartbeat:
    """Ticks while its block runs: as a coroutine under `async with`, as a thread under `with`.

    A tick is due `every` so many seconds, whatever became of the one before. `ticks` has for
    each when it was due, and by how much it was late.
    """

    def __init__(self, every: float = 0.01) -> None:
        self.every = every
        self.ticks: list[tuple[float, float]] = []
        self._over = threading.Event()

    def late(self, begin: float = 0.0, end: float = float("inf")) -> list[float]:
        """By how much the ticks were late that were due from `begin` to `end`."""
        return [late for due, late in self.ticks if begin <= due <= end]

    def _pauses(self) -> Iterator[float]:
        """The seconds to wait until the next tick, for ever; each ends with that tick."""
        due = time.perf_counter()
        while not self._over.is_set():
            due += self.every
            if (pause := due - time.perf_counter()) > 0:
                yield pause
            self.ticks.append((due, time.perf_counter() - due))

    def _thread(self) -> None:
        for pause in self._pauses():
            time.sleep(pause)

    async def _coroutine(self) -> None:
        for pause in self._pauses():
            await asyncio.sleep(pause)

    def __enter__(self) -> Self:
        self._ticking = threading.Thread(target=self._thread)
        self._ticking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._ticking.join()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._coroutine())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await self._task
