"""Make a container image's layout of a root directory: ``layout.py ROOT DIRECTORY VERSION ARCHITECTURE``.

One layer, one configuration, one manifest, as the OCI image specification 1.0
has them: https://github.com/opencontainers/image-spec.  Blobs are named by
their SHA-256.
"""

import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

SETTINGS = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "IMAGESTORE_POOL": "dir:/var/lib/imagestore/pool",
    "IMAGESTORE_JOURNAL": "/var/lib/imagestore/journal",
    "IMAGESTORE_HOST": "0.0.0.0",
    "IMAGESTORE_SOCKET": "/run/imagestore/imagestore.sock",
}
"""A container's loopback is its own: what comes from outside needs a token, the first of which is made by the socket."""

PIECE_BYTES = 1 << 20


def blob(layout: Path, data: bytes) -> tuple[str, int]:
    """Put ``data`` into the layout. Returns its digest and size."""
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(data)
    return f"sha256:{digest}", len(data)


def layer(root: Path, layout: Path) -> tuple[str, int, str]:
    """Pack ``root``. Returns digest and size of the packed layer, and the digest of the tar in it."""
    words = ["tar", "--create", "--one-file-system", "--numeric-owner", "--sort=name", f"--directory={root}"]
    place = layout / "blobs" / "sha256" / "layer"
    plain = hashlib.sha256()
    with (
        subprocess.Popen([*words, "--exclude=./proc/*", "--exclude=./sys/*", "."], stdout=subprocess.PIPE) as tar,
        open(place, "wb") as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=3, mtime=0) as packed,
    ):
        assert tar.stdout is not None
        while piece := tar.stdout.read(PIECE_BYTES):
            plain.update(piece)
            packed.write(piece)
    if tar.returncode:
        raise SystemExit(f"tar ended with {tar.returncode}")
    with open(place, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    os.rename(place, place.with_name(digest))
    return f"sha256:{digest}", place.with_name(digest).stat().st_size, f"sha256:{plain.hexdigest()}"


def as_json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def main() -> None:
    """Fill the directory that the command line names."""
    root, layout, version, architecture = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    (layout / "blobs" / "sha256").mkdir(parents=True)
    digest, size, plain = layer(root, layout)
    configuration = {
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": "imagestore",
            "Env": [f"{name}={value}" for name, value in SETTINGS.items()],
            "Entrypoint": ["/usr/bin/imagestore"],
            "Cmd": ["serve"],
            "ExposedPorts": {"19999/tcp": {}},
            "Volumes": {"/var/lib/imagestore": {}},
            "StopSignal": "SIGTERM",
            "Labels": {"org.opencontainers.image.title": "imagestore", "org.opencontainers.image.version": version},
        },
        "rootfs": {"type": "layers", "diff_ids": [plain]},
    }
    configured, configured_size = blob(layout, as_json(configuration))
    kind = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": {"mediaType": f"{kind}.config.v1+json", "digest": configured, "size": configured_size},
        "layers": [{"mediaType": f"{kind}.layer.v1.tar+gzip", "digest": digest, "size": size}],
    }
    described, described_size = blob(layout, as_json(manifest))
    entry = {
        "mediaType": f"{kind}.manifest.v1+json",
        "digest": described,
        "size": described_size,
        "annotations": {"org.opencontainers.image.ref.name": f"imagestore:{version}"},
    }
    (layout / "index.json").write_bytes(as_json({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_bytes(as_json({"imageLayoutVersion": "1.0.0"}))


main()
