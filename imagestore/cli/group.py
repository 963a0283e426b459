"""What all groups of commands share: whole sentences in the list, and a word to whoever mistyped."""

import difflib

import click


class Group(click.Group):
    """A group that tells where an option belongs, and which command was meant."""

    group_class = type
    """Groups within it are of the same kind."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as problem:
            if problem.possibilities:
                raise
            placed = f"{ctx.command_path} COMMAND {problem.option_name}"
            raise click.UsageError(
                f"{problem.message} An option of a command stands behind it: {placed}", ctx
            ) from problem

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as problem:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx))
            if not near:
                raise
            raise click.UsageError(f"{problem.message} Did you mean {' or '.join(near)}?", ctx) from problem

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(self.lines(ctx))

    def lines(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Each command, and its first sentence."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        return [(name, command.get_short_help_str(limit=1000)) for name, command in commands if command]
