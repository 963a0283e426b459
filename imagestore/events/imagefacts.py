"""The events about images: asked for, whole, failed, named, given a source, deleted.

A part of the catalogue, whose rules hold here.
"""

from imagestore.events.record import DatasetId, Record


class ImageRequested(Record, frozen=True, kw_only=True, tag="image-requested", tag_field="event"):
    """An image id became known, or is fetched again; the order of these is the order of ListImages."""

    image: str
    type: str = ""
    source: str = ""


class ImageCompleted(Record, frozen=True, kw_only=True, tag="image-completed", tag_field="event"):
    """The image is whole under its name.  ``sha256`` is of the body as it was fetched, hex, "" if unknown."""

    image: str
    volume: DatasetId
    snapshot: DatasetId
    size_bytes: int
    sha256: str = ""


class ImageFailed(Record, frozen=True, kw_only=True, tag="image-failed", tag_field="event"):
    image: str
    reason: str


class ImagePublished(Record, frozen=True, kw_only=True, tag="image-published", tag_field="event"):
    """An image id became known, or is another image now: a copy of ``snapshot``, a volume's of this pool."""

    image: str
    snapshot: DatasetId
    type: str = ""


class ImageRetired(Record, frozen=True, kw_only=True, tag="image-retired", tag_field="event"):
    """Hidden from now on, and deleted by the store itself when its last clone goes."""

    image: str


class ImageRevived(Record, frozen=True, kw_only=True, tag="image-revived", tag_field="event"):
    """Asked for again while it was retired: an image as before."""

    image: str


class AliasSet(Record, frozen=True, kw_only=True, tag="alias-set", tag_field="event"):
    """The alias names this image from now on, whatever it named before."""

    alias: str
    image: str


class AliasRemoved(Record, frozen=True, kw_only=True, tag="alias-removed", tag_field="event"):
    alias: str


class SourceRegistered(Record, frozen=True, kw_only=True, tag="source-registered", tag_field="event"):
    """The image is fetched from ``address`` from now on, not from the image service.

    ``sha256`` (hex, "" if not given) is what its body must be; ``sums`` the
    address of a list of sums that has the image's, "" if there is none.
    Addresses carry no credentials.
    """

    image: str
    address: str
    sha256: str = ""
    sums: str = ""


class SourceRemoved(Record, frozen=True, kw_only=True, tag="source-removed", tag_field="event"):
    """The image is the image service's again."""

    image: str


class ImageReleased(Record, frozen=True, kw_only=True, tag="image-released", tag_field="event"):
    """The image is no image any more; what it consisted of stays in the pool."""

    image: str


class ImageDeleted(Record, frozen=True, kw_only=True, tag="image-deleted", tag_field="event"):
    image: str
