"""Defects of ours: logged under an incident id that the caller is told, and nothing else of them."""

import logging
import secrets

logger = logging.getLogger(__name__)


def report_incident(what: str) -> str:
    """Log the exception being handled under a fresh incident id, and return the id."""
    incident = secrets.token_hex(4)
    logger.exception("incident %s: %s", incident, what)
    return incident


def one_line(text: str) -> str:
    """``text`` without line breaks: an error is one line."""
    return " ".join(text.splitlines()) if "\n" in text or "\r" in text else text
