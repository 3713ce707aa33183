"""`citycover models`: which models and networks there are."""

from __future__ import annotations

import typer

from citycover_cli.help import Command, Group
from citycover_cli.verbs.models import bench, show
from citycover_cli.verbs.models import list as list_

app = typer.Typer(
    cls=Group, help="List models and networks, show one, or measure its speed.", no_args_is_help=True
)
app.command("list", cls=Command)(list_.run)
app.command("show", cls=Command)(show.run)
app.command("bench", cls=Command)(bench.run)
