"""Task events for Flower, of which the worker throws none away.

The threads of a pool append their events to a list, and the worker publishes that list. celery
5.6.3 then empties it, together with what a thread has appended in the meantime: Flower never hears
of that, and shows such a task as STARTED for ever. celery 5.7.0 does as this file does.
"""

from celery.app.events import Events
from celery.events import EventDispatcher


class Dispatcher(EventDispatcher):
    """Celery's own, but what it takes off the list is what it has published."""

    def flush(self, errors: bool = True, groups: bool = True) -> None:
        """Publish the events that wait. Threads that send one meanwhile do not wait for that."""
        super().flush(errors=errors, groups=False)
        if groups:
            with self.mutex:
                for group, waiting in self._group_buffer.items():
                    batch = list(waiting)
                    self._publish(batch, self.producer, f"{group}.multi")
                    del waiting[: len(batch)]


class TaskEvents(Events):
    """What `Celery(events=…)` takes."""

    dispatcher_cls = "task_events:Dispatcher"
