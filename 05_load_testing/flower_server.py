"""Flower: a page with every worker and every task. It shows and does much: so it has a password."""

import os
import secrets
import sys

from redis_server import DATA, LISTEN

PORT = os.environ.get("FLOWER_PORT", "5555")
MOST_TASKS = 5_000  # with Flower's own bound of 100 000, each save stops it for seconds

if __name__ == "__main__":
    given = os.environ.get("FLOWER_BASIC_AUTH")
    # By the environment: everybody on this machine may read a command line.
    os.environ["FLOWER_BASIC_AUTH"] = login = given or f"postroom:{secrets.token_urlsafe(12)}"
    if not given:
        print(f"Flower: http://127.0.0.1:{PORT} (name and password: {login})", flush=True)
    DATA.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "celery", "--quiet", "--app", "celery_app", "flower"]
    command += [f"--address={LISTEN}", f"--port={PORT}", "--logging=warning"]
    command += ["--tasks_columns=name,args,state,received,started,runtime,worker"]
    command += [f"--max_tasks={MOST_TASKS}"]
    # Saved every five seconds: Flower's own default saves when it stops, not when it is killed.
    command += ["--persistent=True", f"--db={DATA / 'flower'}", "--state_save_interval=5000"]
    os.execv(command[0], command)  # noqa: S606
