"""Word of the end of a command, for those who do not watch it: a command that is run, or a web hook.

Both get one JSON document, also where the command failed or was stopped: where nobody watches, silence must
not mean that all is well.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from citycover.errors import ConfigError
from citycover_cli.endings import exit_code_of, failure_of
from citycover_cli.logs import logger

_PATIENCE = 30.0
"""Seconds that a command or a server has."""


def check_target(target: str | None) -> None:
    """Raise ConfigError unless word can be sent there."""
    if target is None or target.startswith(("http://", "https://")):
        return
    try:
        words = shlex.split(target)
    except ValueError as error:
        raise ConfigError(f"--on-end takes a command or an address, got {target!r} ({error})") from None
    if not words:
        raise ConfigError("--on-end takes a command or an address, got nothing")


@contextmanager
def noticing(target: str | None, verb: str) -> Iterator[dict[str, Any]]:
    """Send what was put into the facts when the body ends, with the exit code, and the error if there is one.

    Args:
        target: command (words as a shell would split them; none is run), or http(s) address; None: nothing.
        verb: of the command line.

    Raises:
        ConfigError: the target is neither.
    """
    check_target(target)
    facts: dict[str, Any] = {"verb": verb, "exit_code": 0}
    try:
        yield facts
    except BaseException as error:
        facts["exit_code"] = exit_code_of(error)
        if not isinstance(error, typer.Exit):
            failure = failure_of(error)
            kind, said = (
                (type(error).__name__, str(error)) if failure is None else (failure.kind, failure.message)
            )
            facts["error"] = {"kind": kind, "message": said}
        raise
    finally:
        if target is not None:
            _send(target, facts)


def _send(target: str, facts: dict[str, Any]) -> None:
    """Send; what goes wrong is said, with `-q` too, and no more: the command has ended as it has."""
    import urllib.request
    from http.client import HTTPException

    from citycover.files.plain import to_json

    content = to_json(facts).encode()
    try:
        if target.startswith(("http://", "https://")):
            asked = urllib.request.Request(target, content, {"Content-Type": "application/json"})  # noqa: S310
            with urllib.request.urlopen(asked, timeout=_PATIENCE):  # noqa: S310 - the user named it
                return
        environment = {**os.environ, "CITYCOVER_EXIT_CODE": str(facts["exit_code"])}
        done = subprocess.run(  # noqa: S603 - the user named it
            shlex.split(target),
            input=content,
            env=environment,
            timeout=_PATIENCE,
            check=False,
            stdout=subprocess.DEVNULL,
        )
        if done.returncode:
            logger.error(
                "--on-end could not be told: %s ended with %d; where it has pipes, > or $, give sh -c '...'",
                target, done.returncode,
            )  # fmt: skip
    except subprocess.TimeoutExpired:
        logger.error("--on-end could not be told: %s took more than %g s, and was ended", target, _PATIENCE)
    except (OSError, HTTPException, ValueError) as error:
        logger.error("--on-end could not be told: %s", error)
