"""Errors of the store as problems (RFC 9457), for every endpoint that is not of the old wire."""

import msgspec

from imagestore.errors import Blocked, ImageStoreError
from imagestore.http.answer import NOSNIFF, Answer
from imagestore.http.incidents import one_line

PROBLEM_TYPE = (b"content-type", b"application/problem+json")


def problem_of(error: ImageStoreError) -> dict[str, object]:
    """An error of the store as a problem, with what a program needs to go on."""
    problem: dict[str, object] = {
        "type": "about:blank",
        "title": one_line(str(error)),
        "status": error.http_status,
        "retryable": error.retryable,
        "error": type(error).__name__,
    }
    if error.detail:
        problem["detail"] = one_line(error.detail)
    if error.operation:
        problem["operation"] = error.operation
    if isinstance(error, Blocked) and error.blockers:
        problem["blockers"] = error.blockers
    return problem


def problem_answer(error: ImageStoreError) -> Answer:
    """The answer that refuses with ``error``."""
    body = msgspec.json.encode(problem_of(error))
    return Answer(status=error.http_status, headers=(PROBLEM_TYPE, NOSNIFF), body=body)
