"""Chapter 05 on five hosts: who is reached by whom, and what a host takes with it."""

import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

import lab
from lab import figures_hosts, hosts
from lab.hosts import Network
from lab.waiting import wait_until

from .conftest import ROOT

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(180),  # the first test waits for the start
]


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    """A test of hosts is skipped where none can be made."""
    can, reason = hosts.allowed()
    if not can:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with hosts.start(MAIL_DELAY=0.1, BATCH=25) as running:
        yield running


# --- Hosts ----------------------------------------------------------------------------


def test_each_worker_has_the_name_of_its_host(network: Network) -> None:
    answer = requests.get(f"{network.url}/health/workers", timeout=10).json()
    assert set(answer["alive"]) == {
        f"{kind}@{host}" for kind in ("mail", "report") for host in ("worker1", "worker2")
    }


def test_each_host_has_data_of_its_own(network: Network) -> None:
    metrics = {host: network.place / host / "metrics" for host in hosts.HOSTS}
    assert {p.name for p in metrics["web"].iterdir()} == {"web", "beat"}
    for worker in ("worker1", "worker2"):
        assert {p.name for p in metrics[worker].iterdir()} == {"mail", "report"}
    assert (network.place / "redis" / "appendonlydir").is_dir()
    assert not list((network.place / "data").iterdir())  # each host has its own in this place


def test_a_worker_reads_what_the_web_host_was_sent(network: Network) -> None:
    log = "".join(f"{line}\n" for line in lab.sample_log("05", 500)).encode()
    answer = requests.post(f"{network.url}/reports", files={"log": ("access.log", log)}, timeout=30)
    job = lab.finish(network.url, answer)
    assert (job["state"], job["result"]["lines"]) == ("SUCCESS", log.count(b"\n"))
    wait_until(lambda: not list((network.place / "uploads").iterdir()), 10)


ASK_REDIS = """
import os, redis
from redis.backoff import NoBackoff
from redis.retry import Retry

for password in (None, "secret", os.environ["REDIS_PASSWORD"]):
    try:
        client = redis.Redis(host="redis", password=password, retry=Retry(NoBackoff(), 0))
        print(client.ping())
    except redis.AuthenticationError as error:
        print("refused:", error)
"""


def test_redis_refuses_who_does_not_know_its_password(network: Network, tmp_path: Path) -> None:
    (tmp_path / "ask.py").write_text(ASK_REDIS)
    processes = network.run({"stranger": f"{sys.executable} {tmp_path / 'ask.py'}"})
    wait_until(lambda: "stranger" in processes.ended)
    without, wrong, right = processes.log("stranger").splitlines()
    assert without.startswith("refused: ")
    assert wrong.startswith("refused: invalid username-password pair")
    assert right == "True"


def test_redis_does_not_listen_to_a_network_without_a_password() -> None:
    before = hosts.made()
    with pytest.raises(lab.LabError, match=r"(?s)redis ended .*needs a password"):
        hosts.start(REDIS_PASSWORD="")
    assert mine(os.getpid()) <= set(before)  # what could not start is removed, all of it


def test_a_host_that_is_cut_off_lives_on_and_is_not_heard(network: Network) -> None:
    before = network.processes("web")
    network.cut_off("web")
    try:
        assert not network.answers(timeout=1)
        assert network.processes("web") == before
    finally:
        network.reconnect("web")
    wait_until(network.answers, 30)
    with pytest.raises(lab.LabError, match="no host 'wbe'.*web"):
        network.cut_off("wbe")


# --- Work -----------------------------------------------------------------------------


def test_a_worker_that_comes_back_leaves_its_work_to_the_one_who_has_it_now(
    network: Network,
) -> None:
    """It is cut off in the middle of a newsletter, and comes back when another is on it."""
    outcome = figures_hosts.cut_off(network, mails=25, come_back=True)
    assert (outcome.lost, outcome.twice) == (0, 0)
    assert outcome.away is not None
    assert outcome.away < outcome.seconds < 28  # sent again after 30 s: too late, it came back
    assert "LeaseLost" in network.log(f"mail@{outcome.host}", 10**6)


def test_a_worker_that_is_cut_off_for_good_takes_no_mail_with_it(network: Network) -> None:
    """Long newsletters, in batches, and a mail server that takes each copy: at most one mail of
    each batch, the one under way, is sent twice."""
    outcome = figures_hosts.cut_off(network, mails=40, deduplicate=False)
    assert outcome.lost == 0
    assert outcome.twice <= 4  # two batches (25 and 15) of each of two newsletters


# --- Load -----------------------------------------------------------------------------

LOCUSTFILE = """
import os
from locust import FastHttpUser, constant, events, task

class Visitor(FastHttpUser):
    wait_time = constant(0.1)

    @task
    def ping(self):
        self.client.get("/ping")

@events.request.add_listener
def note(name, exception, **_):
    with open(os.environ["DATA"] + "/requests", "a") as rows:
        rows.write(f"{name} {exception}\\n")
"""


def test_locust_on_three_hosts_sends_what_the_web_host_counts(
    network: Network, tmp_path: Path
) -> None:
    """One that leads and two that send; each of them has rows of its own."""
    (tmp_path / "locustfile.py").write_text(LOCUSTFILE)
    locust = f"{sys.executable} -m locust -f {tmp_path / 'locustfile.py'}"
    lead = "--master --headless --expect-workers 2 -u 4 -r 100 -t 2s -s 10 --host http://web:8000"
    before = pings(network)
    processes = network.run(
        {
            "locust": f"{locust} {lead}",
            "locust1": f"{locust} --worker --master-host locust",
            "locust2": f"{locust} --worker --master-host locust",
        }
    )
    wait_until(lambda: len(processes.ended) == 3)
    assert set(processes.ended.values()) == {0}, processes.log("locust", 30)
    rows = [(network.place / f"locust{n}" / "requests").read_text().splitlines() for n in (1, 2)]
    assert min(len(part) for part in rows) >= 10
    assert {row for part in rows for row in part} == {"/ping None"}
    assert pings(network) - before == sum(len(part) for part in rows)


def pings(network: Network) -> int:
    metrics = requests.get(f"{network.url}/metrics", timeout=10).text
    found = re.findall(
        r'^postroom_requests_total\{endpoint="ping",.*\} (\S+)$', metrics, re.MULTILINE
    )
    return int(sum(map(float, found)))


# --- What is left ---------------------------------------------------------------------


def mine(pid: int) -> set[str]:
    """The namespaces and links that process `pid` has made."""
    return {name for name in hosts.made() if name.startswith(f"unb{pid}-")}


def inside(names: set[str]) -> set[int]:
    """The ids of the processes in these namespaces, as far as these exist."""
    found = (hosts.ip("netns", "pids", name, check=False).split() for name in names)
    return {int(pid) for pids in found for pid in pids}


def test_nothing_outlives_a_caller_that_is_killed(network: Network) -> None:
    """Its processes end by themselves; its hosts are removed by whoever comes next."""
    ours = mine(os.getpid())
    caller = subprocess.Popen(
        [sys.executable, "-c", "from lab import hosts; hosts.start()"],
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        wait_until(lambda: len(inside(mine(caller.pid))) >= 8)
        pids = inside(mine(caller.pid))
    finally:
        caller.send_signal(signal.SIGKILL)
        caller.wait(30)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    assert mine(caller.pid)
    hosts.remove_leftovers()
    assert not mine(caller.pid)
    assert mine(os.getpid()) == ours


def test_two_who_choose_the_same_subnet_get_different_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same time: neither sees the other's route when it looks."""
    monkeypatch.setattr(random, "sample", lambda *_: [250, 251])
    look = hosts.ip

    def blind(*arguments: str, check: bool = True) -> str:
        return "[]" if "show" in arguments else look(*arguments, check=check)

    monkeypatch.setattr(hosts, "ip", blind)
    names = [f"unb{os.getpid()}-test{n}" for n in range(3)]
    try:
        assert hosts.make_bridge(names[0]) != hosts.make_bridge(names[1])
        with pytest.raises(lab.LabError, match="No subnet"):
            hosts.make_bridge(names[2])
    finally:
        for name in names:
            look("link", "delete", name, check=False)


def test_a_subnet_that_is_in_use_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    look = hosts.ip

    def vpn(*arguments: str, check: bool = True) -> str:
        taken = '[{"dst": "default"}, {"dst": "10.77.0.0/16"}]'
        return taken if "show" in arguments else look(*arguments, check=check)

    monkeypatch.setattr(hosts, "ip", vpn)
    name = f"unb{os.getpid()}-test"
    try:
        with pytest.raises(lab.LabError, match="No subnet"):
            hosts.make_bridge(name)
    finally:
        look("link", "delete", name, check=False)


def test_who_may_not_make_hosts_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert hosts.allowed() == (False, "Only root may make network namespaces.")
    with pytest.raises(lab.LabError, match="Only root"):
        hosts.start()
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    assert hosts.allowed() == (False, "There is no ip on PATH. On Debian: apt-get install iproute2")
