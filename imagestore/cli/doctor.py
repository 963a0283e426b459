"""``imagestore doctor``: what works on this machine, what does not, and the command that mends it."""

import click

from imagestore.cli.connection import examples
from imagestore.cli.output import Format, output_option, print_json, print_line, printable, styled
from imagestore.cli.settings import configured
from imagestore.config import Config
from imagestore.doctor import Finding, examine

PROBLEMS = 1
COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


@click.command(
    epilog=examples(
        "imagestore doctor --config /etc/imagestore/imagestore.toml",
        "imagestore doctor --pool dir:/srv/imagestore/pool --journal /srv/imagestore/journal",
        "sudo -u imagestore imagestore doctor -o json",
    )
)
@output_option
@configured
def doctor(config: Config, output: Format) -> None:
    """Look whether a store with these settings would work here, as the user who asks. None has to run.

    Exits 1 if there is a problem. A note is about what the store works without.
    """
    findings: list[Finding] = []
    for finding in examine(config):
        findings.append(finding)
        if output == "table":
            _show(finding)
        elif output == "jsonl":
            print_line(finding)
    if output == "json":
        print_json(findings)
    problems = sum(finding.verdict == "problem" for finding in findings)
    if output == "table":
        _conclude(problems)
    if problems:
        click.get_current_context().exit(PROBLEMS)


def _show(finding: Finding) -> None:
    verdict = styled(finding.verdict.ljust(7), fg=COLOURS[finding.verdict])
    click.echo(f"{verdict}  {finding.what}: {printable(finding.found)}")
    if finding.mend:
        click.echo(f"         {finding.mend}")


def _conclude(problems: int) -> None:
    if problems:
        click.echo(f"{problems} problem{'' if problems == 1 else 's'}; below each is what mends it")
    else:
        click.echo("no problems: imagestore serve would start")
