"""The same echo where asyncio is at home: python-socketio's own server, without Flask.

Run it: uvicorn native_asyncio:app --port 8002
For HTTP routes beside it, Quart has Flask's API on asyncio.
"""

import socketio

server = socketio.AsyncServer(async_mode="asgi")
app = socketio.ASGIApp(server)


@server.event
async def connect(sid: str, environ: dict[str, object]) -> None:
    await server.emit("my response", {"data": "Connected"}, to=sid)


@server.on("my event")
async def echo(sid: str, message: object) -> None:
    if isinstance(message, dict):
        await server.emit("my response", {"data": message.get("data")}, to=sid)
