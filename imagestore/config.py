"""The settings of a store: names, types, limits, defaults, and where they come from.

Promises: flags win over the environment (``IMAGESTORE_*``), that over the
TOML file, that over the defaults; which one it was is told.  A key that does not exist, a value of the
wrong type and two settings that contradict each other are a ``ConfigError``
that names the key, where it stood, and what would be right.  Settings that
name secret files may begin with ``${CREDENTIALS_DIRECTORY}``, systemd's.  Nothing here
touches the pool, the journal or the network.

The original's keys (``ImageServer``, ``NumFetchers``, ``MaxPending``,
``Zpool``) are accepted in the file, spelled as they were.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from imagestore.access import is_loopback, parse_client_roles
from imagestore.errors import ConfigError
from imagestore.guard import parse_allowed
from imagestore.serviceaddress import DEFAULT_SERVICE, TLS, parse_service

PREFIX = "IMAGESTORE_"
"""What every environment variable of ours begins with."""

NOT_SETTINGS = (
    "IMAGESTORE_CONFIG",
    "IMAGESTORE_SERVER",
    "IMAGESTORE_TOKEN_FILE",
    "IMAGESTORE_CA_FILE",
    "IMAGESTORE_CERT_FILE",
    "IMAGESTORE_KEY_FILE",
)
"""Variables of that prefix which are no settings of the store: the file, and what clients use."""

CREDENTIALS = "${CREDENTIALS_DIRECTORY}"

MAY_BE_CREDENTIALS = (
    "tls_certificate",
    "tls_key",
    "tls_client_ca",
    "sums_keyring",
    "image_service_token",
    "image_service_ca",
)
"""Settings whose files systemd may hand over (LoadCredential=)."""

DEFAULT_SOCKET = "/run/imagestore/imagestore.sock"
"""What ``socket = "auto"`` means, if it can be made."""

ORIGINAL_KEYS = {
    "ImageServer": "image_service",
    "NumFetchers": "num_fetchers",
    "MaxPending": "max_pending",
    "Zpool": "zpool",
}
"""The keys of the original's configuration file, and ours."""

LogLevel = Literal["debug", "info", "warning", "error"]
LoopbackRole = Literal["admin", "operator", "reader", "none"]
VolumeMode = Literal["dev", "full", "geom", "none", "default"]
Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
RequestBytes = Annotated[int, Meta(ge=1024, le=1 << 30)]
ImageBytes = Annotated[int, Meta(ge=512, le=1 << 60)]
SpoolBytes = Annotated[int, Meta(ge=0, le=1 << 60)]
SegmentBytes = Annotated[int, Meta(ge=1 << 16, le=1 << 32)]


class PoolAddress(NamedTuple):
    """``dir`` and an absolute path, or ``zfs`` and a pool's name."""

    driver: Literal["dir", "zfs"]
    place: str


class Config(Struct, frozen=True, kw_only=True):
    """All settings of one store.  Build it with :func:`load`, or by hand when embedding."""

    pool: str
    """``dir:PATH`` or ``zfs:NAME``. Default: ``dir:pool`` in a checkout, else ``zfs:mistify``."""

    journal: str
    """Directory of the journal. Default: ``journal`` in a checkout, else ``/var/lib/imagestore/journal``."""

    host: str = "127.0.0.1"
    """Address to listen on. Default 127.0.0.1."""

    port: Port = 19999
    """TCP port; 0 takes a free one. Default 19999."""

    socket: str = "none"
    """Unix socket to serve as well: PATH, none, or auto, /run/imagestore/imagestore.sock if that can be made.
    Whoever may open it is an admin, known by the user's name. Default auto; none in a checkout."""

    socket_group: str = ""
    """Group whose members may use the socket. Default: that of the process."""

    loopback_role: LoopbackRole = "admin"
    """What programs of this machine may do by TCP without a token: admin, operator, reader, or none. Default
    admin."""

    tls_certificate: str = ""
    """PEM file: the store's certificate and those above it. With it the TCP port speaks TLS. Default none."""

    tls_key: str = ""
    """PEM file with its key, without a passphrase; like the other files of TLS it may be one of systemd's
    credentials, ${CREDENTIALS_DIRECTORY}/NAME. Default: in the file of the certificate."""

    tls_client_ca: str = ""
    """PEM file of the authority whose certificates clients may show instead of tokens. Default none."""

    tls_client_roles: str = "*=reader"
    """Roles by the certificates' common names: backup=reader, ops=admin; * is everybody else. Default
    *=reader."""

    open_images: bool = False
    """Whether anybody may fetch images, as the stores of other hosts do. Default false."""

    allow_unauthenticated: bool = False
    """Whether everybody who reaches the store may do everything: the network is guarded. Default false."""

    image_service: str = DEFAULT_SERVICE
    """HOST or HOST:PORT that images are fetched from, or https://HOST:PORT. Default
    image.services.lochness.local; without a port it is looked up by SRV, with https it is 443."""

    image_service_token: str = ""
    """File with the token that the image service asks for: another store's, made there for a reader. It is
    read anew for every fetch, and sent to the service alone. Default none."""

    image_service_ca: str = ""
    """PEM file of the authority of the image service's certificate, read once. Default: the system's
    authorities."""

    allow_token_in_clear: bool = False
    """Whether that token may go to another machine without TLS: the network is guarded. Default false."""

    log_level: LogLevel = "warning"
    """Least severe messages to log. Default warning."""

    traces: str = ""
    """Collector that gets a span of each call and operation, by OTLP over HTTP: http://HOST:4318. Needs
    ``pip install 'imagestore[traces]'``. Default none."""

    num_fetchers: Count = os.cpu_count() or 1
    """Images fetched at once. Default: the number of CPUs."""

    max_pending: Count = 256
    """Images that may wait to be fetched; one more is refused as temporarily unavailable. Default 256."""

    fetch_tries: Count = 3
    """Tries without progress before a fetch fails. Default 3."""

    fetch_wait_seconds: Seconds = 5.0
    """Waiting between the tries of one fetch, in all, in seconds. Default 5."""

    head_log_seconds: Annotated[float, Meta(ge=0, le=604_800)] = 3600.0
    """How often the journal's head goes to the system's log (syslog); 0 never. Default 3600."""

    fetch_stall_seconds: Seconds = 60.0
    """A fetch that gets no byte for so many seconds, or less than 1 KiB, is broken off and tried again.
    Default 60."""

    max_image_bytes: ImageBytes = 1 << 40
    """Longest image, in bytes: as it is sent, and as it unpacks. Default 1 TiB."""

    allow_private_sources: str = "none"
    """Which private networks images may be pulled from by address: none, all, or networks with commas
    between them (10.1.0.0/16, fd00:12::/32). The image service may be anywhere. Default none."""

    sums_keyring: str = ""
    """File of OpenPGP public keys. With it, a list of sums counts only if one of them signed it.
    Default: none."""

    spool: str = ""
    """Directory that keeps what came of images, for fetches that are broken off. Default: in a directory
    pool its own, so that a raw image's file becomes the volume's; else the journal's path and ``.spool``."""

    spool_bytes: SpoolBytes = 32 << 30
    """How much of that is kept, in bytes; a fetch over it begins anew after a crash. 0 keeps nothing, and
    takes no qcow2, vmdk, vdi or vhd. Default 32 GiB."""

    download_stall_seconds: Seconds = 30.0
    """A transfer, in or out, that moves no byte for so many seconds is broken off. Default 30."""

    max_request_bytes: RequestBytes = 1 << 20
    """Largest RPC body, in bytes. Default 1 MiB."""

    shutdown_seconds: Seconds = 8.0
    """After SIGTERM, requests under way have so many seconds to end. Default 8."""

    journal_segment_bytes: SegmentBytes = 64 << 20
    """Size of one journal file, in bytes. Default 64 MiB."""

    checkpoint_events: Count = 20_000
    """A checkpoint is written after so many events. Default 20000."""

    cache: str = ""
    """Directory of the journal's index, which can be deleted at any time. Default: beside the journal, as
    JOURNAL.cache."""

    allow_unsafe_filesystem: bool = False
    """Whether the journal may lie where fsync does nothing (ZFS with sync=disabled). Default false."""

    mailbox_size: Count = 256
    """Requests that may wait for one actor; one more is refused as temporarily unavailable. Default 256."""

    driver_concurrency: Count = 8
    """Pool commands that run at once. Default 8."""

    guest_idle_seconds: Seconds = 60.0
    """A guest's actor ends after so many seconds without work. Default 60."""

    zfs_volmode: VolumeMode = "dev"
    """How the host shows new volumes of a ZFS pool (the property volmode): dev, full, geom, none or default.
    Default dev: a guest's partitions are not the host's business."""

    pool_stuck_seconds: Seconds = 300.0
    """A change of a ZFS pool that has not ended after so many seconds makes the store read-only: its disks do
    not answer, and only a restart can tell what came of it. Default 300."""

    recovery_wait_seconds: Seconds = 30.0
    """At start, wait so many seconds for commands of an earlier life to end. Default 30."""

    @property
    def pool_address(self) -> PoolAddress:
        """The driver and its place. Raises ConfigError."""
        return parse_pool(self.pool)


def parse_pool(text: str) -> PoolAddress:
    """What ``dir:PATH`` or ``zfs:NAME`` means; a path becomes absolute.

    Raises:
        ConfigError: it is neither.
    """
    driver, colon, place = text.partition(":")
    if colon and place and driver == "dir":
        return PoolAddress("dir", str(Path(place).absolute()))
    if colon and place and driver == "zfs":
        return PoolAddress("zfs", place)
    raise ConfigError(
        f"pool {text!r} is neither dir:PATH nor zfs:NAME",
        detail="for example --pool dir:/srv/images, or --pool zfs:mistify",
    )


def checkout() -> str | None:
    """The directory of the source checkout this package runs from, if it runs from one."""
    parent = Path(__file__).resolve().parent.parent
    return str(parent) if (parent / "pyproject.toml").is_file() else None


class Settings(NamedTuple):
    """All settings, and the origin of each: ``flag``, ``environment:NAME``, ``file:PATH`` or ``default``."""

    config: Config
    origins: dict[str, str]


def load(
    flags: Mapping[str, object],
    *,
    environment: Mapping[str, str],
    file: str | None = None,
    base: str | None = None,
) -> Config:
    """The settings alone, of :func:`settle`."""
    return settle(flags, environment=environment, file=file, base=base).config


def settle(
    flags: Mapping[str, object],
    *,
    environment: Mapping[str, str],
    file: str | None = None,
    base: str | None = None,
) -> Settings:
    """The settings that flags, environment, file and defaults amount to.

    Parameters:
        flags: settings given on the command line, by our keys (plus ``zpool``),
            as texts or typed; None counts as not given.
        environment: usually ``os.environ``.
        file: path of a TOML file; None looks at ``IMAGESTORE_CONFIG``.
        base: the checkout whose ``pool`` and ``journal`` are the defaults; None means installed.

    Raises:
        ConfigError: see the module's docstring.
    """
    file = file or environment.get("IMAGESTORE_CONFIG") or None
    layers = [_from_file(file)] if file is not None else []
    layers.append(_from_environment(environment))
    given = {key: _Given(value, "flag") for key, value in flags.items() if value is not None}
    layers.append(_layer("the command line", given, strict=False))
    settings: dict[str, object] = {
        "pool": f"dir:{base}/pool" if base is not None else "zfs:mistify",
        "journal": f"{base}/journal" if base is not None else "/var/lib/imagestore/journal",
        "socket": "none" if base is not None else "auto",
    }
    origins = dict.fromkeys(Config.__struct_fields__, "default")
    for layer in layers:
        settings.update({key: value for key, (value, _) in layer.items()})
        origins.update({key: origin for key, (_, origin) in layer.items()})
    config = _with_credentials(msgspec.convert(settings, Config), environment)
    address = config.pool_address
    socket = config.socket if config.socket in ("none", "auto") else str(Path(config.socket).absolute())
    config = msgspec.structs.replace(
        config,
        pool=f"{address.driver}:{address.place}",
        journal=str(Path(config.journal).absolute()),
        spool=config.spool and str(Path(config.spool).absolute()),
        image_service_token=config.image_service_token and str(Path(config.image_service_token).absolute()),
        image_service_ca=config.image_service_ca and str(Path(config.image_service_ca).absolute()),
        socket=socket,
    )
    _check_together(config)
    return Settings(config, origins)


def _with_credentials(config: Config, environment: Mapping[str, str]) -> Config:
    """``config`` with the place of systemd's credentials put in. Raises ConfigError where there is none."""
    directory = environment.get("CREDENTIALS_DIRECTORY", "")
    found: dict[str, str] = {}
    for key in MAY_BE_CREDENTIALS:
        value: str = getattr(config, key)
        if not value.startswith(CREDENTIALS):
            continue
        if not directory:
            raise ConfigError(
                f"{key} = {value!r}: there are no credentials",
                detail="give the unit LoadCredential=NAME:/path, and let systemd start it",
            )
        found[key] = directory + value.removeprefix(CREDENTIALS)
    return msgspec.structs.replace(config, **found)


class _Given(NamedTuple):
    value: object
    origin: str


def _from_file(path: str) -> dict[str, _Given]:
    try:
        with open(path, "rb") as stream:
            document = tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    origin = f"file:{Path(path).absolute()}"
    given = {key: _Given(value, origin) for key, value in document.items()}
    return _layer(path, given, strict=True, original_keys=True)


def _from_environment(environment: Mapping[str, str]) -> dict[str, _Given]:
    given = {
        name[len(PREFIX) :].lower(): _Given(value, f"environment:{name}")
        for name, value in environment.items()
        if name.startswith(PREFIX) and name not in NOT_SETTINGS
    }
    return _layer("the environment", given, strict=False)


def _layer(
    source: str, given: Mapping[str, _Given], *, strict: bool, original_keys: bool = False
) -> dict[str, _Given]:
    """One source's settings, checked, by our keys.  ``strict`` refuses "1" for 1."""
    fields = {field.name: field.type for field in msgspec.structs.fields(Config)}
    settings: dict[str, _Given] = {}
    written_as: dict[str, str] = {}
    for written, (value, origin) in given.items():
        key = ORIGINAL_KEYS.get(written, written) if original_keys else written
        if key in ("num_fetchers", "max_pending") and written != key and value == 0:
            continue  # in the original's file, 0 means the default
        if key == "zpool":
            key, value = "pool", f"zfs:{value}" if isinstance(value, str) and value else value
        if key not in fields:
            raise _unknown(source, written, (*fields, "zpool", *(ORIGINAL_KEYS if original_keys else ())))
        if key in written_as:
            raise ConfigError(
                f"{source}: {written_as[key]} and {written} both say what {key} is",
                detail="give one of them",
            )
        written_as[key] = written
        settings[key] = _Given(_typed(source, written, value, fields[key], strict=strict), origin)
    return settings


def _unknown(source: str, written: str, known: Iterable[str]) -> ConfigError:
    near = difflib.get_close_matches(written, known, n=1, cutoff=0.5)
    detail = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(known))}"
    return ConfigError(f"{source}: there is no setting {written!r}", detail=detail)


def _typed(source: str, written: str, value: object, wanted: object, *, strict: bool) -> object:
    try:
        return msgspec.convert(value, wanted, strict=strict)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{source}: {written} = {value!r} is not valid", detail=f"needed is {_describe(wanted)}"
        ) from error


def _describe(wanted: object) -> str:
    """A setting's type in words."""
    kind = msgspec.inspect.type_info(wanted)
    match kind:
        case msgspec.inspect.IntType():
            return f"a whole number from {kind.ge} to {kind.le}"
        case msgspec.inspect.FloatType():
            return f"a number of seconds over 0 and up to {kind.le:g}"
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.LiteralType():
            return f"one of {', '.join(str(value) for value in kind.values)}"
        case _:
            return "a text in quotes"


def _check_together(config: Config) -> None:
    """What no single setting can tell."""
    if not config.tls_certificate and (config.tls_key or config.tls_client_ca):
        raise ConfigError(
            "tls_key and tls_client_ca are of no use without tls_certificate",
            detail="give the file of the store's own certificate: --set tls_certificate=FILE",
        )
    parse_client_roles(config.tls_client_roles)
    collector = urlsplit(config.traces)
    if config.traces and (
        collector.scheme not in ("http", "https") or not collector.hostname or "@" in collector.netloc
    ):
        raise ConfigError(
            f"traces = {config.traces!r} is not http://HOST:PORT", detail="for example http://127.0.0.1:4318"
        )
    driver, place = config.pool_address
    if driver == "dir" and Path(config.journal).is_relative_to(place):
        raise ConfigError(
            f"the journal {config.journal} lies in the pool {place} that it describes",
            detail="give --journal a directory outside the pool",
        )
    parse_allowed(config.allow_private_sources)
    _check_image_service(config)


def _check_image_service(config: Config) -> None:
    service = parse_service(config.image_service)
    if config.image_service_ca and not service.tls:
        raise ConfigError(
            "image_service_ca is of no use without TLS", detail=f'give image_service = "{TLS}{service}"'
        )
    in_clear = not (service.tls or is_loopback(service.host))
    if config.image_service_token and in_clear and not config.allow_token_in_clear:
        raise ConfigError(
            f"the token in image_service_token would go to {service} in the clear",
            detail=f'give image_service = "{TLS}{service}", or allow_token_in_clear = true on a guarded net',
        )
