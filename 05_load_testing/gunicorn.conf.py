"""gunicorn reads this file by itself."""

import logs
import metrics  # noqa: F401  (makes the folder that the processes share, before there are several)

logconfig_dict = logs.CONFIG
