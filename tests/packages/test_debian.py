"""The packages: the Debian one in a clean Debian, where removing it leaves the disks; its units;
the image of a container; the wheel."""

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from imagestore import __version__

ROOT = Path(__file__).parent.parent.parent
STORE = "var/lib/imagestore"
SECURE_ENOUGH = 5.0

pytestmark = pytest.mark.system


def command(*words: str, check: bool = True, cwd: Path | str = ROOT) -> str:
    """What a command said. Raises AssertionError when it fails."""
    ended = subprocess.run(words, capture_output=True, text=True, cwd=cwd, check=False)
    assert not check or ended.returncode == 0, f"{words}: {ended.stdout}{ended.stderr}"
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def package() -> Path:
    return ROOT / command("packages/deb", sys.executable).strip()


@pytest.fixture(scope="module")
def clean_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Debian that has nothing but Python and what the package depends on."""
    root = tmp_path_factory.mktemp("debian") / "root"
    command("packages/root", str(root))
    yield root
    shutil.rmtree(root)


@contextmanager
def with_proc(root: Path) -> Iterator[None]:
    command("mount", "-t", "proc", "proc", str(root / "proc"))
    try:
        yield
    finally:
        command("umount", str(root / "proc"))


def inside(root: Path, *words: str) -> str:
    return command("chroot", str(root), "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *words)


SESSION = """
imagestore serve --config /etc/imagestore/imagestore.toml --image-service 127.0.0.1:1 > /tmp/out 2>&1 &
store=$!
for i in $(seq 300); do grep -q ready /tmp/out && break; sleep 0.1; done
cat /tmp/out
imagestore volume create kept 8M && imagestore volume ls
kill $store; wait $store; echo ended $?
"""


def test_it_installs_serves_is_upgraded_and_removed_and_leaves_the_disks(
    package: Path, clean_root: Path
) -> None:
    root = clean_root
    shutil.copy(package, root / "tmp" / "imagestore.deb")
    with with_proc(root):
        inside(root, "dpkg", "--install", "/tmp/imagestore.deb")
        assert inside(root, "imagestore", "--version").strip().endswith(__version__)
        assert (root / "usr/share/man/man1/imagestore-serve.1.gz").exists()
        assert (root / "usr/lib/systemd/system/imagestore.socket").exists()
        (root / STORE).mkdir(exist_ok=True)
        inside(root, "chown", "imagestore:imagestore", f"/{STORE}")
        said = inside(root, "runuser", "-u", "imagestore", "--", "sh", "-c", SESSION)
        assert "pool/kept" in said
        assert "ended 0" in said
        before = tree(root / STORE)
        assert any("kept" in path for path in before)

        inside(root, "dpkg", "--install", "/tmp/imagestore.deb")  # an upgrade, as far as dpkg knows
        assert tree(root / STORE) == before
        inside(root, "dpkg", "--remove", "imagestore")
        assert not (root / "usr/bin/imagestore").exists()
        assert (root / "etc/imagestore/imagestore.toml").exists()
        inside(root, "dpkg", "--purge", "imagestore")
        assert tree(root / STORE) == before
        assert not (root / "etc/imagestore/imagestore.toml").exists()


def tree(directory: Path) -> dict[str, int]:
    return {
        os.path.relpath(path, directory): path.lstat().st_size
        for path in directory.rglob("*")
        if not path.is_dir()
    }


IN_A_CONTAINER = """
imagestore serve --image-service 127.0.0.1:1 > /tmp/out 2>&1 &
store=$!
for i in $(seq 300); do grep -q ready /tmp/out && break; sleep 0.1; done
cat /tmp/out
imagestore volume create made 8M --server unix:/run/imagestore/imagestore.sock
kill $store; wait $store; echo ended $?
"""


def test_the_container_image_is_whole_and_its_command_serves(clean_root: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    command("cp", "--archive", "--reflink=auto", str(clean_root), str(base))
    image = ROOT / command("packages/container", sys.executable, str(base)).strip()
    described = json.loads(command("skopeo", "--insecure-policy", "inspect", f"oci-archive:{image}"))
    assert described["Labels"]["org.opencontainers.image.version"] == __version__
    layout = tmp_path / "layout"  # as a tool of others' reads and writes it, not as it was written
    command("skopeo", "--insecure-policy", "copy", f"oci-archive:{image}", f"oci:{layout}:copy")
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads(blob(layout, entry))
    configuration = json.loads(blob(layout, manifest["config"]))
    (packed,) = manifest["layers"]
    root = tmp_path / "unpacked"
    root.mkdir()
    plain = gzip.decompress(blob(layout, packed))
    assert configuration["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(plain).hexdigest()}"]
    (tmp_path / "layer.tar").write_bytes(plain)
    command("tar", "--extract", "--numeric-owner", f"--file={tmp_path / 'layer.tar'}", f"--directory={root}")

    assert configuration["config"]["Entrypoint"] == ["/usr/bin/imagestore"]
    user, settings = configuration["config"]["User"], configuration["config"]["Env"]
    (root / "proc").mkdir(exist_ok=True)
    with with_proc(root):
        said = inside(root, "runuser", "-u", user, "--", "env", *settings, "sh", "-c", IN_A_CONTAINER)
    assert "ready at http://0.0.0.0:19999" in said
    assert "pool/made" in said
    assert "ended 0" in said


def blob(layout: Path, described: dict[str, Any]) -> bytes:
    """A blob, once it is what its description says."""
    algorithm, _, digest = described["digest"].partition(":")
    data: bytes = (layout / "blobs" / algorithm / digest).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (described["size"], digest)
    return data


def test_the_unit_is_hardened(tmp_path: Path) -> None:
    unit = tmp_path / "imagestore.service"
    shutil.copy(ROOT / "packages/imagestore.service", unit)
    said = command("systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit), check=False)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= SECURE_ENOUGH


def test_the_units_are_such_that_systemd_takes_them(tmp_path: Path) -> None:
    unit = tmp_path / "imagestore.service"
    text = (ROOT / "packages/imagestore.service").read_text()
    unit.write_text(text.replace("/usr/bin/imagestore", "/bin/true"))
    sockets = shutil.copy(ROOT / "packages/imagestore.socket", tmp_path)
    assert (
        command("systemd-analyze", "verify", "--man=no", str(unit), str(sockets), check=False).strip() == ""
    )


def test_wheel_and_sdist_are_built_and_the_wheel_is_installed_from_a_clean_state(tmp_path: Path) -> None:
    command(sys.executable, "-m", "hatchling", "build", "--directory", str(tmp_path))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".gz", ".whl"]
    (wheel,) = tmp_path.glob("*.whl")
    (source,) = tmp_path.glob("*.tar.gz")
    command("tar", "--extract", f"--file={source}", f"--directory={tmp_path}")
    unpacked = tmp_path / source.name.removesuffix(".tar.gz")
    again = tmp_path / "again"
    command(
        sys.executable, "-m", "hatchling", "build", "--target", "wheel", f"--directory={again}", cwd=unpacked
    )
    assert members(next(again.iterdir())) == members(wheel)  # the sdist has all that the wheel is made of

    environment = tmp_path / "environment"
    command(sys.executable, "-m", "venv", str(environment))
    pip = (str(environment / "bin/python"), "-m", "pip", "--disable-pip-version-check")
    command(*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel))
    (packages,) = environment.glob("lib/python*/site-packages")
    # The libraries are those that the lock has put here; imagestore itself is found in the wheel first.
    (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    program = str(environment / "bin/imagestore")
    assert command(program, "--version").strip() == f"imagestore, version {__version__}"
    where = command(
        str(environment / "bin/python"), "-c", "import imagestore; print(imagestore.__file__)", cwd="/"
    )
    assert where.startswith(str(packages))
    settings = command(program, "config", "show", "-o", "json", cwd="/")
    assert json.loads(settings)["journal"] == "/var/lib/imagestore/journal"


def members(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as file:
        return sorted(file.namelist())
