"""``imagestore drift``: where the pool is not what the journal says, over RPC."""

import click
from msgspec import UNSET

from imagestore.cli.connection import connected, examples
from imagestore.cli.output import Column, Format, output_option, show_rows
from imagestore.client import Client
from imagestore.model import Drifted

_COLUMNS = (
    Column[Drifted]("change", lambda row: row.change),
    Column[Drifted]("dataset", lambda row: row.id),
    Column[Drifted]("kind", lambda row: row.kind),
    Column[Drifted]("guid", lambda row: f"{row.guid:x}", right=True),
    Column[Drifted]("is now", lambda row: "-" if row.now is UNSET else str(row.now)),
)


@click.command(epilog=examples("imagestore drift", "imagestore drift -o json"))
@output_option
@connected
def drift(client: Client, output: Format) -> None:
    """What others did to the pool: ours renamed or lost, and datasets that are not ours.

    Lost and renamed datasets are journaled at the next start. A foreign one becomes the store's
    with `imagestore adopt`.
    """
    show_rows(client.get_drift(), _COLUMNS, output)
