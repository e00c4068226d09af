"""The Postroom's routes."""

from pathlib import Path

from flask import Flask, Response, jsonify, render_template, request
from werkzeug.exceptions import NotFound

import contract
import jobs
from samples import sample_subscribers

app = Flask(__name__)
contract.install(app)


@app.get("/")
def page() -> str:
    chapter = Path(app.root_path).name
    return render_template("index.html", chapter=chapter, subscribers=sample_subscribers(20))


@app.get("/ping")
def ping() -> Response:
    """Does no work. If this is slow, everything is."""
    return Response("pong\n", mimetype="text/plain")


@app.post("/newsletters")
def post_newsletter() -> Response:
    newsletter = contract.read_newsletter(request)
    return jsonify(jobs.start_newsletter(newsletter).document())


@app.post("/reports")
def post_report() -> Response:
    report = contract.read_report(request)
    return jsonify(jobs.start_report(report).document())


@app.get("/jobs/<job_id>")
def get_job(job_id: str) -> Response:
    job = jobs.find(job_id)
    if job is None:
        raise NotFound(f"There is no job {job_id!r}.")
    return jsonify(job.document())


@app.get("/jobs")
def get_jobs() -> Response:
    return jsonify([job.document() for job in jobs.recent()])
