"""``imagestore serve``: run the store until SIGTERM.

Owns the settings, the log and the line that says "ready"; the store itself
and its signals are ``imagestore.store``.
"""

import os
import resource
import shlex

import click

from imagestore.cli import logs
from imagestore.cli.connection import examples
from imagestore.cli.settings import configured
from imagestore.client import DEFAULT_SERVER
from imagestore.config import Config


@click.command(
    epilog=examples(
        "imagestore serve --pool dir:/srv/imagestore/pool --journal /srv/imagestore/journal",
        "imagestore serve -z mistify -p 19999 -i image.services.lochness.local -l warning",
        "imagestore serve --config /etc/imagestore/imagestore.toml --set shutdown_seconds=5",
    )
)
@configured
def serve(config: Config) -> None:
    """Run the store until SIGTERM or Ctrl-C.

    Flags win over the environment (IMAGESTORE_PORT=…), that over the TOML file, that over the
    defaults. A missing or empty pool and journal are begun afresh; the two then belong together.
    """
    import trio

    _allow_many_files()
    logs.configure(config.log_level, no_colour=bool(os.environ.get("NO_COLOR")))
    trio.run(_serve, config)


def _allow_many_files() -> None:
    """As many descriptors as the system grants: connections, data files and journal share them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(config: Config) -> None:
    import trio

    from imagestore.store import Served
    from imagestore.store import serve as run_store

    async with trio.open_nursery() as nursery:
        served: Served = await nursery.start(run_store, config)
        click.echo(ready_line(served.address, config, served.socket))


def ready_line(address: str, config: Config, socket: str = "") -> str:
    """What is served where, and what to type next.  ``address`` is ``http://HOST:PORT``."""
    beside = f" and unix:{socket}" if socket else ""
    server = "" if address == DEFAULT_SERVER else f" --server {shlex.quote(address)}"
    return (
        f"imagestore: ready at {address}{beside}, pool {config.pool}, journal {config.journal}; "
        f"try: imagestore image ls{server}"
    )
