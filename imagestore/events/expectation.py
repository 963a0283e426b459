"""What the state will be once everything before an event was applied, as far as the next event needs it.

Owns the check before the write: an event that ``apply`` would refuse must never
become durable, since replay would refuse it for ever.  Pure; an overlay over
the state for the events of one commit group.
"""

from collections.abc import Sequence

from imagestore.events.catalogue import (
    DatasetAdopted,
    DatasetCreated,
    DatasetDestroyed,
    DatasetLost,
    DatasetReleased,
    DatasetRenamed,
    Event,
    ImageCompleted,
    ImageDeleted,
    ImageFailed,
    ImagePublished,
    ImageReleased,
    ImageRequested,
    ImageRetired,
    OperationFinished,
    OperationResumed,
    OperationStarted,
)
from imagestore.events.state import Key, State


class Expectation:
    """The state plus the events admitted so far; None in an overlay means gone."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._operations: dict[str, bool] = {}
        self._images: dict[str, bool] = {}
        self._datasets: dict[str, Key | None] = {}

    def admit(self, events: Sequence[tuple[str, Event]]) -> None:
        """Admit one append's events, each with its operation, or none of them.

        Raises:
            ValueError: an event does not follow from what came before it.
        """
        if len(events) == 1:
            self._admit(*events[0])
            return
        before = (self._operations.copy(), self._images.copy(), self._datasets.copy())
        try:
            for operation, event in events:
                self._admit(operation, event)
        except ValueError:
            self._operations, self._images, self._datasets = before
            raise

    def _admit(self, operation: str, event: Event) -> None:
        match event:
            case OperationStarted():
                if not operation:
                    raise ValueError("an operation needs an id")
                self._operations[operation] = True
            case OperationResumed():
                self._require_operation(operation)
            case OperationFinished():
                self._require_operation(operation)
                self._operations[operation] = False
            case ImageRequested() | ImagePublished():
                self._images[event.image] = True
            case ImageCompleted() | ImageFailed() | ImageRetired():
                self._require_image(event.image)
            case ImageDeleted() | ImageReleased():
                self._require_image(event.image)
                self._images[event.image] = False
            case DatasetCreated() | DatasetAdopted():
                self._datasets[event.name] = (event.guid, event.createtxg)
            case DatasetDestroyed() | DatasetLost() | DatasetReleased():
                if self._key(event.name) == (event.guid, event.createtxg):
                    self._datasets[event.name] = None
            case DatasetRenamed():
                self._rename(event)
            case _:
                pass

    def _require_operation(self, operation: str) -> None:
        if not self._operations.get(operation, operation in self._state.operations):
            raise ValueError(f"no operation {operation!r} is under way")

    def _require_image(self, image: str) -> None:
        if not self._images.get(image, image in self._state.images):
            raise ValueError(f"image {image!r} was never requested")

    def _key(self, name: str) -> Key | None:
        if name in self._datasets:
            return self._datasets[name]
        record = self._state.datasets.get(name)
        return None if record is None else (record.guid, record.createtxg)

    def _rename(self, event: DatasetRenamed) -> None:
        if self._key(event.name) != (event.guid, event.createtxg):
            raise ValueError(f"no dataset {event.name!r} to rename")
        self._datasets[event.name] = None
        self._datasets[event.new_name] = (event.guid, event.createtxg)
