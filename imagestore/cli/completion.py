"""``imagestore completion``: what a shell needs to complete our commands and options; click's own."""

import click
from click.shell_completion import get_completion_class

from imagestore.cli.connection import examples

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_IMAGESTORE_COMPLETE"
"""Where the shell's functions tell the program what to complete; click's name for it."""


@click.command(
    epilog=examples(
        'eval "$(imagestore completion bash)"                        # in ~/.bashrc',
        'eval "$(imagestore completion zsh)"                         # in ~/.zshrc',
        "imagestore completion fish > ~/.config/fish/completions/imagestore.fish",
    )
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the lines that make SHELL complete imagestore's commands and options."""
    from imagestore.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    made = kind(cli, {}, "imagestore", VARIABLE)
    # source() of bash starts a bash to look at its version, which is not ours to do.
    click.echo(made.source_template % made.source_vars())
