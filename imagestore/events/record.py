"""What all in the journal is made of: the base of events and intents, and how they name datasets."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

UInt64 = Annotated[int, Meta(ge=0)]

DatasetKind = Literal["filesystem", "volume", "snapshot"]
Role = Literal["image", "disk", "volume", "parent", "snapshot", "staging"]
"""What a dataset is to the store; the pool's tag ``imagestore:kind`` says the same."""


class Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """Base of everything in a frame's body."""


class DatasetId(Record, frozen=True, kw_only=True):
    """A dataset as an intent or fact names it."""

    name: str
    guid: UInt64
    createtxg: UInt64
