"""Where the page gets Socket.IO's browser client from.

`npm ci` puts it into node_modules, and the page works without a network. Where it is
missing the page takes it from Socket.IO's CDN; the hash makes sure that it is this file.
"""

from pathlib import Path
from typing import NamedTuple

from flask import Flask, Response, send_from_directory

FOLDER = Path(__file__).parent / "node_modules" / "socket.io-client" / "dist"
FILE = "socket.io.min.js"


class Script(NamedTuple):
    """The address of the client, and the hash that a copy from elsewhere must have."""

    src: str
    integrity: str


HERE = Script(f"/client/{FILE}", "")
CDN = Script(
    f"https://cdn.socket.io/4.8.4/{FILE}",
    "sha384-fBrXvbDtHoeKWJ/hcA6M+YGueiDW+h45I7V6F2kD1S8bOkrF9rZYPLVkCR6BLR/1",
)


def install(app: Flask) -> None:
    """Serve the client if it is here, and tell every template where it is."""

    @app.get(f"/client/{FILE}")
    def client() -> Response:
        return send_from_directory(FOLDER, FILE)

    @app.context_processor
    def script() -> dict[str, Script]:
        return {"socket_io_client": HERE if (FOLDER / FILE).exists() else CDN}
