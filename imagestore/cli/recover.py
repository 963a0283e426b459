"""``imagestore recover``: a new journal for a pool whose own was lost."""

import click

from imagestore.cli.connection import examples
from imagestore.cli.settings import configured
from imagestore.config import Config


@click.command(
    epilog=examples(
        "imagestore recover --pool dir:/srv/imagestore/pool --journal /srv/imagestore/journal-new",
    )
)
@configured
def recover(config: Config) -> None:
    """Rebuild a lost journal from the tags that everything in the pool carries.

    The same objects are listed as before; their history is lost. The journal's directory must be
    missing or empty, and no store may run on the pool.
    """
    import trio

    from imagestore.rebuild import rebuild

    found = trio.run(rebuild, config)
    click.echo(
        f"imagestore: {config.journal} now describes {config.pool}: {found.images} images, "
        f"{found.datasets} datasets of ours, {found.foreign} foreign; their history is lost"
    )
