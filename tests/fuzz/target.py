"""What a target of fuzzing is, and in which ways it may end."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from mutate import edited_bytes, edited_values

from citycover.errors import CitycoverError


@dataclass(frozen=True)
class Target:
    """One reader of files."""

    name: str
    ending: str
    """Of the file that it reads."""
    inputs: st.SearchStrategy[bytes]
    run: Callable[[Path], None]


def allowed(run: Callable[[Path], Any]) -> Callable[[Path], None]:
    """The reader, with the errors that a user is meant to meet taken as an answer."""

    def inner(path: Path) -> None:
        try:
            run(path)
        except CitycoverError:
            return
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # every verb has a message for it
                raise

    return inner


@functools.cache
def command_line() -> Callable[[list[str]], None]:
    """The command line, whose tree of verbs and options is built once and not for each input."""
    import typer.main

    from citycover_cli.app import main

    vars(typer.main)["get_command"] = functools.cache(typer.main.get_command)
    return main


def command(*arguments: str) -> Callable[[Path], None]:
    """A verb of the command line on the file, which stands where an argument says FILE."""

    def run(path: Path) -> None:
        main = command_line()
        out = path.parent / "out"
        shutil.rmtree(out, ignore_errors=True)
        words = [a.replace("FILE", str(path)).replace("OUT", str(out)) for a in arguments]
        with tempfile.TemporaryFile() as said:
            kept = os.dup(1), os.dup(2)
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            try:
                main(words)
                code: object = 0
            except SystemExit as end:
                code = end.code
            finally:
                os.dup2(kept[0], 1)
                os.dup2(kept[1], 2)
                os.close(kept[0])
                os.close(kept[1])
            said.seek(0)
            if b"out of memory" in said.read():
                raise AssertionError("a small file took all memory")
        if code not in (0, None, 2, 3, 4, 5, 6):
            raise AssertionError(f"exit code {code}")

    return run


def either(texts: list[bytes], values: list[Any], write: Callable[[Any], str]) -> st.SearchStrategy[bytes]:
    """Edits of the text, and edits of what the text says."""
    spelled = edited_values(values).map(lambda v: write(v).encode("utf-8", "surrogatepass"))
    return st.one_of(edited_bytes(texts), spelled)
