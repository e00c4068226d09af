"""A chapter's tasks with Celery's own event dispatcher, to see what the chapter's is worth.

The lab starts a worker on this module instead of `tasks` (see `lab/task_events.py`).
"""

from celery.app.events import Events

from tasks import celery  # type: ignore[import-not-found]

__all__ = ["celery"]

celery.events_cls = Events
