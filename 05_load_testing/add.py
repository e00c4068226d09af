"""Celery in its smallest form: a task, a route that sends it, a route that looks it up."""

from typing import Annotated

from celery.result import AsyncResult
from flask import Blueprint, Response, jsonify, request, url_for
from kombu.exceptions import OperationalError
from pydantic import BaseModel, ConfigDict, Field

import contract
from celery_app import celery

routes = Blueprint("add", __name__)
Number = Annotated[int | float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]


class Numbers(BaseModel):
    """`POST /add`: what to add."""

    model_config = ConfigDict(extra="forbid", strict=True)

    x: Number
    y: Number


@celery.task(ignore_result=False)
def add(x: float, y: float) -> float:
    return x + y


@routes.post("/add")
def post_add() -> Response:
    numbers = Numbers.model_validate_json(contract.read_json(request))
    try:
        task = add.delay(numbers.x, numbers.y)
    except RuntimeError as error:  # what Celery raises when the result backend is away
        raise OperationalError(str(error)) from error
    response = jsonify({"status": "Task submitted", "id": task.id})
    response.status_code = 202
    response.location = url_for("add.get_add", task_id=task.id)
    return response


@routes.get("/add/<task_id>")
def get_add(task_id: str) -> Response:
    """Celery's own word for it. Of an id that never was it says PENDING, for ever."""
    task = AsyncResult(task_id, app=celery)
    state, result = task.state, task.result
    return jsonify(
        {
            "id": task_id,
            "state": state,
            "result": result if state == "SUCCESS" else None,
            "error": str(result) if state == "FAILURE" else None,
        }
    )
