"""`citycover models`: which models and networks there are."""

from __future__ import annotations

import typer

from citycover_cli.verbs.models import bench, show
from citycover_cli.verbs.models import list as list_

app = typer.Typer(help="List models and networks, show one, or measure its speed.", no_args_is_help=True)
app.command("list")(list_.run)
app.command("show")(show.run)
app.command("bench")(bench.run)
