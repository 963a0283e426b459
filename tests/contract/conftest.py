"""The servers that the recorded examples run against."""

from tests.http.conftest import address, start, store

__all__ = ["address", "start", "store"]
