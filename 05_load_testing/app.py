"""The Postroom's routes."""

import os
import secrets
from pathlib import Path

from flask import Flask, Response, jsonify, render_template, request, url_for
from werkzeug.exceptions import NotFound

import add
import browser_client
import contract
import dead_letters
import events
import flower_server
import jobs
import logs
import monitoring
import queues
from redis_server import REDIS_URL
from samples import sample_subscribers

app = Flask(__name__)
app.config["SECRET_KEY"] = os.environ.get("SECRET_KEY") or secrets.token_hex()
logs.install(app)
monitoring.install(app)
contract.install(app)
browser_client.install(app)
events.socketio.init_app(app, message_queue=REDIS_URL, **events.OPTIONS)
app.register_blueprint(add.routes)
app.register_blueprint(dead_letters.routes)


@app.get("/")
def page() -> str:
    chapter = Path(app.root_path).name
    flower = f"http://127.0.0.1:{flower_server.PORT}"
    subscribers = sample_subscribers(20)
    return render_template("index.html", chapter=chapter, subscribers=subscribers, flower=flower)


@app.get("/ping")
def ping() -> Response:
    """Does no work. If this is slow, everything is."""
    return Response("pong\n", mimetype="text/plain")


@app.post("/newsletters")
def post_newsletter() -> Response:
    newsletter = contract.read_newsletter(request)
    queues.let_in("mail")
    return accepted(jobs.start_newsletter(newsletter, contract.read_countdown(request)))


@app.post("/reports")
def post_report() -> Response:
    report = contract.read_report(request)
    queues.let_in("reports")
    return accepted(jobs.start_report(report, contract.read_countdown(request)))


def accepted(job: jobs.Job) -> Response:
    """202: the work is not done, but here is where to look."""
    response = jsonify(job.document())
    response.status_code = 202
    response.location = url_for("get_job", job_id=job.id)
    return response


@app.get("/jobs/<job_id>")
def get_job(job_id: str) -> Response:
    return jsonify(found(jobs.find(job_id), job_id).document())


@app.delete("/jobs/<job_id>")
def delete_job(job_id: str) -> Response:
    """Cancel: the job stops before its next step."""
    job = found(jobs.cancel(job_id), job_id)
    events.push(job)
    return accepted(job)


def found(job: jobs.Job | None, job_id: str) -> jobs.Job:
    if job is None:
        raise NotFound(f"There is no job {job_id!r}.")
    return job


@app.get("/jobs")
def get_jobs() -> Response:
    return jsonify([job.document() for job in jobs.recent()])
