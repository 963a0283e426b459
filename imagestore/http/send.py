"""Sending an :class:`~imagestore.http.answer.Answer` through ASGI."""

from hypercorn.typing import ASGISendCallable

from imagestore.http.answer import Answer


async def send_answer(send: ASGISendCallable, answer: Answer, *, close: bool = False) -> None:
    """Send ``answer``; ``close`` tells the client that the connection ends with it."""
    headers = answer.all_headers()
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})
