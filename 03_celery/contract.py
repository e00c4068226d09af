"""What may be sent to the Postroom, and how it says no.

Bodies are checked with Pydantic. Every error is an RFC 9457 problem document.
"""

import csv
import io
from dataclasses import dataclass
from http import HTTPStatus
from typing import IO, Annotated, Any

from flask import Flask, Request, Response, jsonify, request
from kombu.exceptions import OperationalError
from pydantic import AfterValidator, BaseModel, ConfigDict, EmailStr, Field, ValidationError
from redis import RedisError
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import BadRequest, Forbidden, HTTPException, UnsupportedMediaType

import work

LARGEST_UPLOAD = 64 * 1024 * 1024
LARGEST_JSON = 4 * 1024 * 1024
LONGEST_COUNTDOWN = 3600  # seconds
TOO_LARGE = "Too large: a form with its file may have 64 MB, JSON 4 MB."
HEADERS = {
    # A browser loads nothing into the page but our own files and Socket.IO's client, runs no
    # script that stands in the page itself, and shows the page in no frame of another site.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' https://cdn.socket.io; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",  # and takes each for what we say that it is
    "Referrer-Policy": "same-origin",  # and does not tell other sites whence it comes
}


def one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable characters")
    return text


def without_repeats(addresses: list[str]) -> list[str]:
    first: dict[str, str] = {}
    for address in addresses:
        first.setdefault(address.lower(), address)
    return list(first.values())


class Newsletter(BaseModel):
    """`POST /newsletters`: an address that is given twice gets one mail."""

    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=True)

    subject: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(one_line)]
    body: Annotated[str, Field(min_length=1, max_length=100_000)]
    recipients: Annotated[
        list[EmailStr], Field(min_length=1, max_length=10_000), AfterValidator(without_repeats)
    ]


class SampleReport(BaseModel):
    """`POST /reports` as JSON: how many lines of sample log to summarise."""

    model_config = ConfigDict(extra="forbid", strict=True)

    lines: Annotated[int, Field(ge=1, le=10_000_000)]


@dataclass
class Report:
    """A report to make: of an uploaded log, or of a sample log where there is none."""

    lines: int
    log: IO[bytes] | None = None


def read_newsletter(request: Request) -> Newsletter:
    """JSON, or a form with `subject`, `body` and a CSV file `subscribers` (column `email`)."""
    if request.mimetype == "multipart/form-data":
        fields: dict[str, Any] = dict(request.form)
        fields["recipients"] = read_subscribers(uploaded(request, "subscribers"))
        return Newsletter.model_validate(fields)
    return Newsletter.model_validate_json(read_json(request))


def read_report(request: Request) -> Report:
    """JSON `{"lines": N}`, or a form with an access log as the file `log`."""
    if request.mimetype == "multipart/form-data":
        log = uploaded(request, "log").stream
        lines = work.count_lines(log)
        if lines == 0:
            raise Problem("log", "the file is empty")
        return Report(lines, log)
    return Report(SampleReport.model_validate_json(read_json(request)).lines)


def read_countdown(request: Request) -> float:
    """`?countdown=30`: in how many seconds to start, an hour at most; 0 is now."""
    given = request.args.get("countdown", "0")
    try:
        countdown = float(given)
    except ValueError:
        countdown = -1
    if not 0 <= countdown <= LONGEST_COUNTDOWN:
        raise Problem("countdown", f"must be 0 to {LONGEST_COUNTDOWN} seconds")
    return countdown


def read_json(request: Request) -> bytes:
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("Send application/json, or multipart/form-data with a file.")
    request.max_content_length = LARGEST_JSON
    return request.get_data()


def uploaded(request: Request, field: str) -> FileStorage:
    if field not in request.files or not request.files[field].filename:
        raise Problem(field, "choose a file to upload")
    return request.files[field]


def read_subscribers(upload: FileStorage) -> list[str]:
    """The `email` column of a CSV file."""
    try:
        rows = csv.DictReader(io.TextIOWrapper(upload.stream, "utf-8-sig", newline=""))
        columns = {name.strip().lower(): name for name in rows.fieldnames or []}
        if "email" not in columns:
            raise Problem("subscribers", "the first line must name a column `email`")
        return [row[columns["email"]] or "" for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise Problem("subscribers", f"not a CSV file in UTF-8: {error}") from error


# --- Errors, all in one shape ---------------------------------------------------------


class Problem(BadRequest):
    """400, naming the field that is wrong."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.errors = [{"field": field, "detail": detail}]


def problem(status: int, detail: str | None, **more: Any) -> Response:
    """An `application/problem+json` answer (RFC 9457)."""
    title = HTTPStatus(status).phrase
    response = jsonify(
        {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    )
    response.status_code = status
    response.mimetype = "application/problem+json"
    return response


def wrong_body(error: ValidationError) -> Response:
    errors = [
        {"field": name_of(entry["loc"]), "detail": explain(entry["msg"], entry["input"])}
        for entry in error.errors(include_url=False, include_context=False)[:20]
    ]
    return problem(400, "{field}: {detail}".format(**errors[0]), errors=errors)


def name_of(location: tuple[str | int, ...]) -> str:
    """`("recipients", 3)` → `recipients[3]`; none at all → `whole body`."""
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return name.lstrip(".") or "whole body"


def explain(message: str, given: object) -> str:
    return f"{given[:80]!r}: {message}" if isinstance(given, str) else message


def http_error(error: HTTPException) -> Response:
    more = {"errors": error.errors} if isinstance(error, Problem) else {}
    detail = TOO_LARGE if error.code == 413 else error.description
    response = problem(error.code or 500, detail, **more)
    response.headers.update({k: v for k, v in error.get_headers() if k in ("Allow", "Retry-After")})
    return response


def broker_away(error: Exception) -> Response:
    response = problem(503, "The broker is away. Nothing was accepted; try again.")
    response.headers["Retry-After"] = "1"
    return response


def refuse_other_sites() -> None:
    """A page of another site must not post here in the name of this browser's user."""
    if request.method in ("POST", "DELETE") and request.headers.get("Sec-Fetch-Site") in (
        "cross-site",
        "same-site",
    ):
        raise Forbidden("This request came from a page of another site.")


def add_headers(response: Response) -> Response:
    response.headers.update(HEADERS)
    return response


def install(app: Flask) -> None:
    """Make every answer of `app` keep to this page."""
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_UPLOAD
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.before_request(refuse_other_sites)
    app.after_request(add_headers)
    app.register_error_handler(ValidationError, wrong_body)
    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(RedisError, broker_away)
    app.register_error_handler(OperationalError, broker_away)
