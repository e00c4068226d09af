"""Make the troubles of TROUBLESHOOTING.md happen, one at a time: `make trouble NAME=…`.

Each takes some seconds, on this machine and on free ports, and ends all that it has started.
"""

import inspect
from collections.abc import Callable

from lab import troubles_celery, troubles_tools, troubles_web
from lab.chapters import LabError

TROUBLES: dict[str, Callable[[], str]] = {
    "invalid-session": troubles_web.invalid_session,
    "other-origin": troubles_web.other_origin,
    "client-version": troubles_web.client_version,
    "unsafe-werkzeug": troubles_web.unsafe_werkzeug,
    "request-context": troubles_web.request_context,
    "gevent-by-itself": troubles_web.gevent_by_itself,
    "lost-emit": troubles_web.lost_emit,
    "circular-import": troubles_web.circular_import,
    "address-in-use": troubles_web.address_in_use,
    "worker-timeout": troubles_web.worker_timeout,
    "unregistered-task": troubles_celery.unregistered_task,
    "pending": troubles_celery.pending,
    "no-backend": troubles_celery.no_backend,
    "application-context": troubles_celery.application_context,
    "eager": troubles_celery.eager,
    "not-json": troubles_celery.not_json,
    "async-task": troubles_celery.async_task,
    "connection-refused": troubles_celery.connection_refused,
    "broker-away": troubles_celery.broker_away,
    "too-many-clients": troubles_celery.too_many_clients,
    "runs-twice": troubles_celery.runs_twice,
    "takes-nothing": troubles_celery.takes_nothing,
    "hoarding": troubles_celery.hoarding,
    "revoke": troubles_celery.revoke,
    "two-beats": troubles_celery.two_beats,
    "chord-callback": troubles_celery.chord_callback,
    "flower-empty": troubles_tools.flower_empty,
    "flower-refuses": troubles_tools.flower_refuses,
    "metrics-folder": troubles_web.metrics_folder,
    "locust-websocket": troubles_tools.locust_websocket,
    "locust-notebook": troubles_tools.locust_notebook,
    "locust-early": troubles_tools.locust_early,
    "no-python": troubles_tools.no_python,
    "no-venv": troubles_tools.no_venv,
    "no-npm": troubles_tools.no_npm,
    "not-a-clone": troubles_tools.not_a_clone,
}
"""Each trouble by the name that `make trouble` takes: it returns the text that people see."""


def show(name: str) -> None:
    """Make one trouble happen and print what people see of it; without a name, list them all.

    Raises LabError for a name that no trouble has, or if it did not happen this time.
    """
    if not name:
        for known, trouble in TROUBLES.items():
            print(f"{known:20} {inspect.getdoc(trouble)}")
        print("\nOne of them: make trouble NAME=invalid-session")
        return
    if name not in TROUBLES:
        raise LabError(f"There is no trouble {name!r}. There are: {', '.join(TROUBLES)}.")
    print(f"{inspect.getdoc(TROUBLES[name])}\n")
    print(TROUBLES[name]())
