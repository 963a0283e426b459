"""Copy imagestore and the libraries that it needs out of this environment: ``libraries.py DIRECTORY``.

The environment was installed from requirements.lock, by hashes, so nothing is
asked of the network.  What is there for development only is left out: whatever
no declared dependency leads to, as the installed packages' own metadata tell.
"""

import shutil
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def needed(declared: list[str]) -> set[str]:
    """Names of all packages that the ``declared`` requirements lead to."""
    found: set[str] = set()
    left = [(Requirement(text), "") for text in declared]
    while left:
        requirement, extra = left.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        asked = {"", *requirement.extras}
        if name in found and not requirement.extras:
            continue
        found.add(name)
        left += [(Requirement(text), each) for text in metadata.requires(name) or [] for each in asked]
    return found


def copy(name: str, target: Path) -> None:
    """Copy an installed package's modules and metadata; its scripts stay."""
    for file in metadata.files(name) or []:
        if ".." in file.parts or "__pycache__" in file.parts:
            continue
        place = target.joinpath(*file.parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(str(file.locate()), place)


def main() -> None:
    """Fill the directory that the command line names."""
    target = Path(sys.argv[1])
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for name in sorted(needed(declared)):
        copy(name, target)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "imagestore", target / "imagestore", ignore=ignored)


main()
