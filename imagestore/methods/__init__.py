"""The RPC methods: from the wire's requests to commands, from rows to answers.

Owns what CONTRACT.md says of each method: the checks in their order, what a
name means, which actor is asked, what is answered.  Reads come from state and
view and wait for nobody.  Knows nothing of HTTP, files or start-up.  One file
holds the methods of one kind of thing.
"""

from imagestore.methods.addressing import Actors
from imagestore.methods.adoption import AdoptionMethods
from imagestore.methods.audit import AuditMethods
from imagestore.methods.calls import CallMethods
from imagestore.methods.feed import FeedMethods
from imagestore.methods.guestlist import GuestListMethods
from imagestore.methods.guests import GuestMethods
from imagestore.methods.imagelife import ImageLifeMethods
from imagestore.methods.imageuploads import ImageUploadMethods
from imagestore.methods.keyeduploads import KeyedUploadMethods
from imagestore.methods.past import PastMethods
from imagestore.methods.planning import PlanningMethods
from imagestore.methods.status import StatusMethods
from imagestore.methods.streams import StreamMethods
from imagestore.methods.tokens import TokenMethods
from imagestore.methods.volumes import VolumeMethods

__all__ = ["Actors", "Methods"]


class Methods(
    KeyedUploadMethods,
    CallMethods,
    StatusMethods,
    PastMethods,
    ImageLifeMethods,
    ImageUploadMethods,
    VolumeMethods,
    StreamMethods,
    GuestMethods,
    GuestListMethods,
    AdoptionMethods,
    PlanningMethods,
    FeedMethods,
    AuditMethods,
    TokenMethods,
):
    """The methods of ``imagestore.service.Service`` over a store's actors."""
