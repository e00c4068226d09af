"""Watch jobs over Socket.IO, as a browser does, and write down what comes and when."""

import threading
import time
from dataclasses import dataclass
from typing import Any

import socketio

from lab.chapters import LabError
from lab.load import ENDED


@dataclass(frozen=True)
class Receipt:
    """One `progress` event: its document, and the seconds from the server's clock to ours."""

    document: dict[str, Any]
    latency: float


class Watcher:
    """A Socket.IO client; use it as a context manager.

    `transport` is "websocket", "polling", or "" for the usual way: polling, then an upgrade.
    `receipts` fills with what is pushed. Raises LabError if the connection cannot be made.
    """

    def __init__(self, url: str, transport: str = "websocket") -> None:
        self.receipts: list[Receipt] = []
        self._changed = threading.Condition()
        self.client = socketio.Client(reconnection=False)
        self.client.on("progress", self._receive)
        try:
            transports = [transport] if transport else None
            self.client.connect(url, transports=transports, wait_timeout=20)
        except socketio.exceptions.ConnectionError as error:
            raise LabError(f"No Socket.IO connection to {url}: {error}") from error

    @property
    def transport(self) -> str:
        """The transport in use now: "websocket" or "polling"."""
        return str(self.client.transport())

    def watch(self, job: Any) -> Any:
        """Watch a job by its id; returns the acknowledgement: the document as it is now."""
        return self.client.call("watch", {"job": job}, timeout=10)

    def wait_for_end(self, job: str, timeout: float = 60.0) -> dict[str, Any]:
        """Wait for the event that says that the job has ended, and return its document.

        Raises LabError if none has come after `timeout` seconds.
        """

        def last() -> dict[str, Any] | None:
            for receipt in reversed(self.receipts):
                if receipt.document["id"] == job and receipt.document["state"] in ENDED:
                    return receipt.document
            return None

        with self._changed:
            if not self._changed.wait_for(last, timeout):
                raise LabError(f"The end of job {job} was not pushed within {timeout:g} s.")
            document = last()
            assert document is not None
            return document

    def _receive(self, document: dict[str, Any]) -> None:
        latency = time.time() - document["at"]
        with self._changed:
            self.receipts.append(Receipt(document, latency))
            self._changed.notify_all()

    def close(self) -> None:
        """Leave; safe to call twice."""
        self.client.disconnect()

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
