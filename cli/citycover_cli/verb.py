"""What all verbs have in common: how they talk, and what comes before torch."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from citycover.errors import FinishedError
from citycover_cli.logs import logger, set_up_logging
from citycover_cli.output import is_first, print_json, print_table

Verb = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Talk:
    """How a verb talks."""

    as_json: bool = False
    """The result is for machines: one JSON document on stdout."""
    verbose: int = 0
    """0: warnings; 1: events; 2: everything."""
    quiet: bool = False
    """Errors alone."""
    log_file: Path | None = None
    """Where everything goes too."""
    log_json: bool = False
    """Events are JSON, one a line; progress, which is for people, is not shown."""

    @property
    def silent(self) -> bool:
        """No progress is shown."""
        return self.quiet or self.as_json or self.log_json


_option = partial(typer.Option, rich_help_panel="Messages")

_OPTIONS = {
    "as_json": (Annotated[bool, _option("--json", help="Print the result as JSON.")], False),
    "verbose": (
        Annotated[
            int,
            _option(
                "--verbose", "-v", count=True, show_default=False, help="Say more; twice for everything."
            ),
        ],
        0,
    ),
    "quiet": (Annotated[bool, _option("--quiet", "-q", help="Say only what is wrong.")], False),
    "log_file": (Annotated[Path | None, _option(help="Also write everything to this file.")], None),
    "log_json": (
        Annotated[bool, _option("--log-json", help="Log events as JSON, one a line, instead of progress.")],
        False,
    ),
}


@contextlib.contextmanager
def skipping(skip: bool, out: str | Path, talk: Talk) -> Iterator[None]:
    """With --skip-finished, a product that is there already, and identical, ends the verb well."""
    try:
        yield
    except FinishedError as error:
        if not skip:
            raise
        logger.info("skipped: %s", error)
        if talk.as_json:
            print_json({"product": str(out), "skipped": True})
        elif not talk.quiet:
            print_table(str(out), [("skipped", "it is finished already, and identical")])
        raise typer.Exit from None


def talking(verb: Verb, least: int = 0) -> Verb:
    """Give a verb the options of Talk, as one argument `talk`, and open its log before it begins.

    Args:
        verb: takes `talk` as a keyword.
        least: how verbose it is without -v.
    """
    signature = inspect.signature(verb, eval_str=True)
    own = [p for p in signature.parameters.values() if p.name != "talk"]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in _OPTIONS.items()
    ]

    called = {p.name: _called(p) for p in (*own, *shared)}

    @wraps(verb)
    def run(**given: Any) -> None:
        given = {name: _here(called[name], value) for name, value in given.items()}
        talk = Talk(**{name: given.pop(name) for name in _OPTIONS})
        if not is_first():
            talk = replace(talk, quiet=True, as_json=False)
        verbose = max(talk.verbose, least, int(talk.log_json))
        set_up_logging(verbose, talk.quiet, talk.log_file, given.get("out"), as_json=talk.log_json)
        verb(**given, talk=talk)

    run.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*own, *shared)}
    return run


def _called(parameter: inspect.Parameter) -> str:
    """What users call a parameter of a verb."""
    said = next(iter(getattr(parameter.annotation, "__metadata__", ())), None)
    if isinstance(said, typer.models.ArgumentInfo):
        return said.metavar or parameter.name.upper()
    return next(iter(getattr(said, "param_decls", None) or ()), f"--{parameter.name.replace('_', '-')}")


def _here(called: str, value: Any) -> Any:
    """What was given, with a path for `file://`; files that are no imagery lie on this machine.

    Raises:
        ConfigError: such a file lies across the network.
    """
    if isinstance(value, list):
        return [_here(called, one) for one in value]
    if not isinstance(value, (str, Path)):
        return value
    from citycover.files.local import local_name, refuse_far

    here = local_name(str(value))
    if isinstance(value, str):
        return here
    refuse_far(here, called)
    return Path(here)


def heavy(verb: Verb) -> Verb:
    """Mark a verb that runs a network: the allocator is set up before torch can be imported."""

    @wraps(verb)
    def run(**given: Any) -> None:
        from citycover.machine.memory import tune_allocator

        tune_allocator()
        verb(**given)

    return run
