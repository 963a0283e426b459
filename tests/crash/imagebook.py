"""What is known about the images that all clients share.

Several clients ask for, clone and delete the same images at once, so what an
image is may be uncertain: the book keeps, for each, every state that it may
have.  Calls that overlap with a contrary one leave both outcomes possible.
"""

from typing import Literal

from tests.crash.content import IMAGES

ImageState = Literal["absent", "complete", "error"]
Kind = Literal["request", "delete", "lean"]


class ImageCall:
    """One call about an image under way; ``kinds`` are those of the calls that it overlaps with."""

    def __init__(self, image: str, kind: Kind) -> None:
        self.image = image
        self.kind: Kind = kind
        self.kinds: set[Kind] = set()
        self.at_first: frozenset[ImageState] = frozenset()

    @property
    def is_disputed(self) -> bool:
        """Whether a call that changes the image another way was under way beside it."""
        return bool(self.kinds - {self.kind, "lean"})


class ImageBook:
    def __init__(self) -> None:
        self.possible: dict[str, set[ImageState]] = {image: {"absent"} for image in IMAGES}
        self._calls: list[ImageCall] = []

    @property
    def under_way(self) -> list[tuple[str, Kind]]:
        """Image and kind of each call that has not ended."""
        return [(call.image, call.kind) for call in self._calls]

    def begin(self, image: str, kind: Kind) -> ImageCall:
        call = ImageCall(image, kind)
        for other in self._calls:
            if other.image == image:
                other.kinds.add(kind)
                call.kinds.add(other.kind)
        call.at_first = frozenset(self.possible[image])
        self._calls.append(call)
        return call

    def end(self, call: ImageCall, state: ImageState | None) -> None:
        """``state`` is what the image was made by the call; None: nothing."""
        self._calls.remove(call)
        if state is None:
            return
        if call.is_disputed:
            self.possible[call.image] |= {state}
        else:
            self.possible[call.image] = {state}

    def cut_off(self, call: ImageCall) -> None:
        """The store died: the call happened or did not; a fetch may have been given up after restarts."""
        self._calls.remove(call)
        if call.kind == "request":
            self.possible[call.image] |= {"error"}
            if IMAGES[call.image].is_good:
                self.possible[call.image] |= {"complete"}
        elif call.kind == "delete":
            self.possible[call.image] |= {"absent"}

    def settle(self, image: str, state: ImageState) -> None:
        self.possible[image] = {state}
