"""The outside world: a mail server that is as slow and as faulty as you tell it to be.

It speaks real SMTP and keeps what it accepts. A small HTTP door beside it shows
what arrived and sets the faults while it runs:

    curl 127.0.0.1:8026/messages
    curl -X PATCH 127.0.0.1:8026/faults -d '{"refuse_every": 3}'
"""

import asyncio
import os
import time
from email.parser import BytesHeaderParser

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from flask import Flask, Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.serving import make_server

LISTEN = os.environ.get("LISTEN", "127.0.0.1")  # this machine only; elsewhere: see chapter 05


class Faults(BaseModel):
    """What the mail server does wrong. All zero, empty or false: it works."""

    model_config = ConfigDict(extra="forbid")

    delay: float = Field(default=float(os.environ.get("MAIL_DELAY", "0.2")), ge=0)
    "Seconds that each message takes."
    refuse_every: int = Field(default=0, ge=0)
    "Refuse every n-th message for now: 451, try again later."
    refuse_addresses: list[str] = []
    "Refuse these recipients for good: 550, no such mailbox."
    silent: bool = False
    "Take the message, then say nothing until this is false again."
    drop_every: int = Field(default=0, ge=0)
    "Cut the connection at every n-th message, and lose that message."
    cut_answer_every: int = Field(default=0, ge=0)
    "Keep every n-th message, but cut the connection before saying so."
    deduplicate: bool = False
    "Accept the second copy of a Message-ID, and throw it away."


class Mailbox:
    """The handler that aiosmtpd calls: it delays, refuses, drops or keeps each message."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.messages: list[dict[str, object]] = []
        self.seen: set[str] = set()
        self.offered = 0

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.faults.refuse_addresses:
            return "550 5.1.1 No such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.offered += 1
        turn = self.offered
        await asyncio.sleep(self.faults.delay)
        while self.faults.silent:
            await asyncio.sleep(0.05)
        if is_nth(turn, self.faults.drop_every):
            return cut(server)
        if is_nth(turn, self.faults.refuse_every):
            return "451 4.3.2 Try again later"
        self.keep(envelope)
        if is_nth(turn, self.faults.cut_answer_every):
            return cut(server)
        return "250 OK"

    def keep(self, envelope: Envelope) -> None:
        message = BytesHeaderParser().parsebytes(envelope.original_content or b"")
        message_id = str(message["Message-ID"])
        if self.faults.deduplicate and message_id in self.seen:
            return
        self.seen.add(message_id)
        for recipient in envelope.rcpt_tos:
            self.messages.append(
                {
                    "message_id": message_id,
                    "recipient": recipient,
                    "subject": str(message["Subject"]),
                    "received": time.time(),
                }
            )


def is_nth(turn: int, every: int) -> bool:
    return every > 0 and turn % every == 0


def cut(server: SMTP) -> str:
    if isinstance(server.transport, asyncio.WriteTransport):
        server.transport.abort()
    return "421 4.3.0 Closing"


def create_door(mailbox: Mailbox) -> Flask:
    """The HTTP side, for people and for tests: look at the mailbox, set the faults."""
    door = Flask("mailserver")

    @door.get("/messages")
    def messages() -> Response:
        """All messages in order of arrival, or those of one job: `?job=<id>`."""
        prefix = "<" + request.args.get("job", "")
        return jsonify([m for m in mailbox.messages if str(m["message_id"]).startswith(prefix)])

    @door.delete("/messages")
    def empty() -> Response:
        mailbox.messages, mailbox.seen, mailbox.offered = [], set(), 0
        return jsonify([])

    @door.get("/faults")
    def faults() -> Response:
        return jsonify(mailbox.faults.model_dump())

    @door.patch("/faults")
    def set_faults() -> Response | tuple[Response, int]:
        """Change the faults that are named; the others stay."""
        try:
            change = Faults.model_validate_json(request.get_data())
        except ValidationError as error:
            return jsonify([f"{e['loc']}: {e['msg']}" for e in error.errors()]), 400
        mailbox.faults = mailbox.faults.model_copy(update=change.model_dump(exclude_unset=True))
        return faults()

    @door.delete("/faults")
    def mend() -> Response:
        mailbox.faults = Faults()
        return faults()

    return door


def open_smtp(mailbox: Mailbox, port: int) -> Controller:
    """Start the SMTP side in a thread of its own; `.stop()` ends it."""
    smtp = Controller(mailbox, hostname=LISTEN, port=port, enable_SMTPUTF8=True)
    smtp.start()
    return smtp


if __name__ == "__main__":
    mailbox = Mailbox()
    smtp_port = int(os.environ.get("SMTP_PORT", "8025"))
    door_port = int(os.environ.get("MAILBOX_PORT", "8026"))
    open_smtp(mailbox, smtp_port)
    print(f"Mail server on {LISTEN}:{smtp_port}, its mailbox on http://{LISTEN}:{door_port}")
    make_server(LISTEN, door_port, create_door(mailbox), threaded=True).serve_forever()
