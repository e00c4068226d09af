"""Celery as every process knows it: where the queue is, and which task goes to which queue."""

from celery import Celery

from redis_server import REDIS_TIMEOUT, REDIS_URL

celery = Celery("postroom", broker=REDIS_URL, backend=REDIS_URL)
celery.conf.update(
    accept_content=["json"],  # a message is data; pickle would let whoever writes one run code
    task_default_queue="mail",
    task_routes={"report": {"queue": "reports"}},
    task_ignore_result=True,  # jobs.py keeps a better record; only `add` keeps Celery's
    result_expires=3600,
)

# Rather an error within a second than an answer after nineteen, which is how long Celery
# tries by default. Workers may be patient: tasks.py changes this for them.
celery.conf.update(
    task_publish_retry=False,
    broker_transport_options={
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0.1,
        "interval_max": 0.1,
        "socket_connect_timeout": REDIS_TIMEOUT,
        "socket_timeout": REDIS_TIMEOUT,
    },
    redis_socket_connect_timeout=REDIS_TIMEOUT,
    redis_socket_timeout=REDIS_TIMEOUT,
    result_backend_transport_options={"retry_policy": {"max_retries": 0}},
)
