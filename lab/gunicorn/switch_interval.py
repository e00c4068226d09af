"""A gunicorn configuration that sets Python's switch interval: see `sys.setswitchinterval`.

It is how long a thread that computes may hold the GIL when another thread wants it: 0.005 s
unless somebody says otherwise. Here the variable SWITCH_INTERVAL says it, in seconds.
"""

import os
import sys
from typing import Any


def post_worker_init(worker: Any) -> None:
    sys.setswitchinterval(float(os.environ["SWITCH_INTERVAL"]))
