"""A Locust user that emits and does not wait. How long did it take? See `troubles_tools.py`."""

from locust import constant, task
from locust.contrib.socketio import SocketIOUser


class Shouter(SocketIOUser):
    """Sends `my event` to chapter 02's echo, five times a second."""

    wait_time = constant(0.2)

    def on_start(self) -> None:
        self.sio.connect(self.host, transports=["websocket"])

    @task
    def shout(self) -> None:
        self.sio.emit("my event", {"data": "hello"})

    def on_stop(self) -> None:
        self.sio.disconnect()
