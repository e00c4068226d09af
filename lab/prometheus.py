"""Run Prometheus on a chapter, with the chapter's own configuration and alerts."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from lab.chapters import PORTS, ROOT, Chapter, LabError, Supervised, free_ports


class Prometheus:
    """A running Prometheus; `url` is its page."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What a PromQL expression finds now. Raises LabError if it is wrong."""
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10)
        document = answer.json()
        if document["status"] != "success":
            raise LabError(f"{expression}: {document['error']}")
        found: list[dict[str, Any]] = document["data"]["result"]
        return found

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        document = requests.get(f"{self.url}/api/v1/alerts", timeout=10).json()
        alerts = document["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def answers(self) -> bool:
        """Whether it is ready and has asked every service at least once."""
        try:
            return requests.get(f"{self.url}/-/ready", timeout=2).ok and len(self.query("up")) >= 4
        except requests.RequestException:
            return False


@contextmanager
def watching(chapter: Chapter) -> Iterator[Prometheus]:
    """Prometheus beside `chapter` while the block runs; it ends even if the caller is killed.

    Raises LabError where there is no `prometheus` on PATH, or if it is not ready within 30 s.
    """
    if shutil.which("prometheus") is None:
        raise LabError("There is no prometheus on PATH. On Debian: apt-get install prometheus")
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="unblocked-") as place:
        config = (chapter.path / "prometheus.yml").read_text()
        for name, number in chapter.ports.items():
            config = config.replace(f'"127.0.0.1:{PORTS[name]}"', f'"127.0.0.1:{number}"')
        (Path(place) / "prometheus.yml").write_text(config)
        shutil.copy(chapter.path / "alerts.yml", place)
        command = (
            f"prometheus --config.file={place}/prometheus.yml --storage.tsdb.path={place}/data "
            f"--web.listen-address=127.0.0.1:{port} --log.level=warn"
        )
        process = Supervised({"prometheus": command}, ROOT, dict(os.environ), Path(place))
        try:
            prometheus = Prometheus(port)
            deadline = time.monotonic() + 30
            while not prometheus.answers():
                if time.monotonic() > deadline:
                    raise LabError(
                        f"Prometheus was not ready after 30 s.\n\n{process.log('prometheus')}"
                    )
                time.sleep(0.1)
            yield prometheus
        finally:
            process.stop()
