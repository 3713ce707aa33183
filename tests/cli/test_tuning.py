"""docs/tuning.md: what it names is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
from typer.main import get_command

from citycover.machine.stages import SIDE_STAGES, SWEEP_STAGES
from citycover.product.record import Timing
from citycover_cli.app import app

PAGE = (Path(__file__).parents[2] / "docs/tuning.md").read_text()


def every_option(command: click.Command) -> Iterator[str]:
    yield from (option for parameter in command.params for option in parameter.opts)
    for below in getattr(command, "commands", {}).values():
        yield from every_option(below)


def test_every_option_and_every_figure_that_the_page_names_exists() -> None:
    named = set(re.findall(r"--[a-z][a-z-]*", PAGE))
    assert named <= set(every_option(get_command(app()))) and len(named) > 10
    figures = re.findall(r"`(stages|beside)\.(\w+)`", PAGE)
    assert {name for _, name in figures} <= {*SWEEP_STAGES, *SIDE_STAGES, "start"} and len(figures) > 4
    assert {"wall_s", "sweep_s"} <= {field.name for field in fields(Timing)}
