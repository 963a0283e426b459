"""``imagestore image``, put together of its parts."""

from imagestore.cli import imagelife, pull, sources
from imagestore.cli.images import image

__all__ = ["image", "imagelife", "pull", "sources"]
