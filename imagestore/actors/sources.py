"""Where images come from, if not from the image service: addresses, and what is registered of them.

Pure: what may be an address, what registering and removing a source means for
the journal.  An address is journaled, listed and logged, so one that carries a
credential is refused before anything is done with it, and its text does not
appear in the refusal either.
"""

import re
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from imagestore import names
from imagestore.actors.commands import RegisterSource, RemoveSource
from imagestore.actors.origin import SERVICE, CheckAddress, Origin
from imagestore.actors.plans import Plan, Settled
from imagestore.errors import AlreadyExists, InvalidArgument, NotFound
from imagestore.events.catalogue import NoteIntent, SourceRegistered, SourceRemoved
from imagestore.events.state import SourceRecord, State
from imagestore.serviceaddress import is_host, is_ip_address
from imagestore.streams.sums import check_sha256

MOST_CHARACTERS = 2048

_SAFE = "/%:=&?~+!$,;'@()*[]"

_SIGNING_WORDS = re.compile(
    r"(^|[-_.])(sig|signature|signed|token|secret|pass|password|passwd|pwd|key|apikey|accesskey|accesskeyid"
    r"|awsaccesskeyid|googleaccessid|credential|credentials|auth|authorization|jwt|hmac|policy|session"
    r"|sessionid|ticket|expires|md5)($|[-_.])|keypairid",
    re.IGNORECASE,
)
"""Names of a query's fields in the addresses that storage services and mirrors sign."""

_LONG_SECRET = re.compile(r"[A-Za-z0-9+/_=-]{32,}\Z")


def check_address(text: str) -> str:
    """An address that an image or a list of sums may be fetched from, as it is used and journaled.

    Raises:
        InvalidArgument: it is no HTTP address, or carries credentials.
    """
    try:
        parts = urlsplit(text)
        host = (parts.hostname or "").encode("idna").decode()
        port = parts.port
    except ValueError as error:
        raise InvalidArgument("the address of an image is no address") from error
    if parts.scheme not in {"http", "https"} or not is_host(host):
        raise InvalidArgument(
            "the address of an image is not http:// or https://",
            detail="for example https://example.net/deb.qcow2",
        )
    if len(text) > MOST_CHARACTERS or not text.isprintable() or " " in text:
        raise InvalidArgument(f"the address of an image has blanks or over {MOST_CHARACTERS} characters")
    if "@" in parts.netloc:
        raise InvalidArgument(
            "the address of an image has credentials (user@host), which would end up in the journal",
            detail="give an address without them, or download the file and pull it as a file",
        )
    if is_signed(parts.query):
        raise InvalidArgument(
            "the address of an image has a signed query, which would end up in the journal",
            detail="give an address without it, or download the file and pull it as a file",
        )
    shown = f"[{host}]" if ":" in host else host
    place = shown if port is None else f"{shown}:{port}"
    path, query = quote(parts.path or "/", safe=_SAFE), quote(parts.query, safe=_SAFE)
    return urlunsplit((parts.scheme, place, path, query, ""))


def is_signed(query: str) -> bool:
    """Whether a query looks as if it held a secret: by the names of its fields, or by a long random value."""
    fields = parse_qsl(query.replace(";", "&"), keep_blank_values=True)
    return any(_SIGNING_WORDS.search(name) or _LONG_SECRET.match(value) for name, value in fields)


def check_reachable(address: str, check: CheckAddress | None) -> None:
    """Raises FetchFailed for an address that names its host by an IP address which may not be asked.

    A name may lead anywhere by the time it is asked; that is looked at then.
    """
    host = urlsplit(address).hostname or ""
    if check is not None and is_ip_address(host):
        check(host, host)


def last_component(address: str) -> str:
    """The name of the file at an address: what lists of sums call it."""
    return unquote(urlsplit(address).path.rpartition("/")[2])


def source_of(image: str, state: State) -> SourceRecord | None:
    """Where the image is registered to come from; None: the image service."""
    return state.sources.get(image)


def origin_of(source: SourceRecord | None) -> Origin:
    """The origin that a source means, but for what its sums say."""
    if source is None:
        return SERVICE
    return Origin(source=source.address, sha256=source.sha256)


def checked(address: str, sha256: str, sums: str) -> SourceRecord:
    """A source as it was given. Raises InvalidArgument."""
    if not address:
        raise InvalidArgument("need a source", detail="the http:// or https:// address of an image")
    if sha256 and sums:
        raise InvalidArgument("a sha256 and a sums file are given; one of them is enough")
    return SourceRecord(
        address=check_address(address),
        sha256=check_sha256(sha256) if sha256 else "",
        sums=check_address(sums) if sums else "",
    )


def register_source(command: RegisterSource, state: State) -> Settled | Plan:
    """Raises AlreadyExists: the image is registered with another source, which is not to be replaced."""
    known = state.sources.get(command.image)
    if known == SourceRecord(address=command.address, sha256=command.sha256, sums=command.sums):
        return Settled()
    if known is not None and not command.replace:
        raise AlreadyExists(
            f"source already exists: {command.image}", detail=f"it is {known.address}; remove it first"
        )
    fact = SourceRegistered(
        image=command.image, address=command.address, sha256=command.sha256, sums=command.sums
    )
    return Plan(method="RegisterSource", subject=names.image(command.image), intent=NoteIntent(fact=fact))


def remove_source(command: RemoveSource, state: State) -> Plan:
    if command.image not in state.sources:
        raise NotFound(detail=f"image {command.image} has no source of its own")
    fact = SourceRemoved(image=command.image)
    return Plan(method="RemoveSource", subject=names.image(command.image), intent=NoteIntent(fact=fact))
