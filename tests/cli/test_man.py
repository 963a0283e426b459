"""The manual pages: one a command, with all its options, and nothing that roff stumbles over."""

import subprocess
from pathlib import Path

import pytest

from imagestore.cli.main import cli
from imagestore.errors import ImageStoreError
from tests.cli.test_dry_run import leaves
from tools.man import main, pages


def test_each_command_has_a_page_with_all_its_options() -> None:
    made = dict(pages())
    for path, command in leaves(cli, ""):
        page = made[f"imagestore-{path.replace(' ', '-')}.1"].replace("\\-", "-")
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else ():
                assert option in page, f"{path} {option}"
        assert ".SH EXAMPLES" in page or path in ("drift", "demo", "completion", "token ls"), path


def test_the_first_page_lists_commands_and_exit_codes() -> None:
    page = dict(pages())["imagestore.1"].replace("\\-", "-")
    assert "imagestore-guest(1)" in page
    status = page.partition(".SH EXIT STATUS")[2]
    for error in ImageStoreError.__subclasses__():
        assert f"\\fB{error.exit_code}\\fP" in status


@pytest.mark.system
def test_roff_has_nothing_to_say(tmp_path: Path) -> None:
    main(str(tmp_path))
    for page in sorted(tmp_path.iterdir()):
        ended = subprocess.run(
            ["groff", "-man", "-ww", "-Tutf8", str(page)], capture_output=True, text=True, check=True
        )
        assert ended.stderr == "", page.name
