"""What has to be the same in every run of a history: no threads, no real network, no name of this machine."""

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

import trio

import imagestore.store
from imagestore.actors import download
from imagestore.events import writer
from imagestore.events.catalogue import Envelope
from imagestore.events.state import State, apply
from tests.simulation.machine import deterministic
from tests.simulation.network import Network

T = TypeVar("T")


class Stage:
    """Where the history that is being run puts what the store's modules find by name."""

    network: Network
    applied: Callable[[Envelope], None] = staticmethod(lambda envelope: None)
    """Told of every event that the journal's writer makes part of the state."""


STAGE = Stage()


async def _run_here(function: Callable[..., T], *args: Any, **settings: Any) -> T:
    await trio.lowlevel.checkpoint()
    return function(*args)


def _opened(*args: Any, **settings: Any) -> Any:
    return STAGE.network.opened(*args, **settings)


def _apply(state: State, envelope: Envelope) -> None:
    STAGE.applied(envelope)
    apply(state, envelope)


@contextmanager
def simulated() -> Iterator[None]:
    """Histories can be run in here, and nothing else."""
    with ExitStack() as stack:
        stack.enter_context(deterministic())
        for target, name, replacement in (
            (trio.to_thread, "run_sync", _run_here),
            (trio.from_thread, "check_cancelled", lambda: None),
            (download, "opened", _opened),
            (imagestore.store, "give_back_memory", lambda: None),
            (writer, "apply", _apply),
            (os, "getpid", lambda: 4242),
            (socket, "gethostname", lambda: "machine"),
        ):
            stack.enter_context(patch.object(target, name, replacement))
        logging.disable()
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
