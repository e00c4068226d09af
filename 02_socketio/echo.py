"""Flask-SocketIO in its smallest form: what you send comes back.

Run it: python echo.py
Then open http://127.0.0.1:8003
"""

import os
import secrets

from flask import Flask, render_template
from flask_socketio import SocketIO, emit

import browser_client

app = Flask(__name__)
app.config["SECRET_KEY"] = os.environ.get("SECRET_KEY") or secrets.token_hex()
socketio = SocketIO(app, async_mode="threading")
browser_client.install(app)


@app.get("/")
def page() -> str:
    return render_template("echo.html")


@socketio.on("connect")
def handle_connect() -> None:
    emit("my response", {"data": "Connected"})


@socketio.on("my event")
def handle_my_event(message: object) -> None:
    if isinstance(message, dict):
        emit("my response", {"data": message.get("data")})


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8003"))
    # Flask's development server, with a socket: fine here, chapter 02 itself runs on gunicorn.
    socketio.run(app, port=port, allow_unsafe_werkzeug=True)
