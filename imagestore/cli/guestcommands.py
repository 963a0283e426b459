"""The group ``imagestore guest``, with all its commands."""

from imagestore.cli import guestxml
from imagestore.cli.guests import guest

__all__ = ["guest", "guestxml"]
