"""A gunicorn configuration that hides hiredis: redis-py then reads Redis's answers in Python."""

import sys

sys.modules["hiredis"] = None  # type: ignore[assignment]  # importing it fails from now on
