"""A section brought into the report of a finished product."""

from __future__ import annotations

import re
from pathlib import Path

from citycover.errors import ConfigError
from citycover.files.atomic import write_atomic
from citycover.files.failures import machine_errors
from citycover.files.remote import Place, RemotePath, place_of
from citycover.product.folder import holds_product
from citycover.product.stac import renew_file
from citycover.show.parts import style

_NAME = "report.html"

_SECTION = re.compile(r'<section id="([a-z]+)"[^>]*>.*?</section>', re.DOTALL)


def check_report(folder: str | Place) -> Path:
    """The folder of a product whose report can take a section; for a look before anything is reckoned.

    Raises:
        ConfigError: it is no finished product of this machine, or has no report that can take one.
    """
    folder = place_of(folder)
    if isinstance(folder, RemotePath):
        raise ConfigError(
            f"--report writes into the {_NAME} of a product, and {folder} lies in an object store, where "
            "products are not changed; copy it into a folder and name that, or leave --report out"
        )
    if not holds_product(folder):
        raise ConfigError(
            f"--report brings the result into the {_NAME} of a product, and {folder} is none that is whole; "
            "give the folder that `citycover map` wrote, or leave --report out"
        )
    _read(folder)
    return folder


def revise_report(folder: Path, section: str) -> Path:
    """Put a section in the place of the one with its id, and note the new file in item.json.

    Returns:
        The report.

    Raises:
        ConfigError: as `check_report`.
        MachineError: the folder cannot be written.
    """
    page, whole = _read(folder), _SECTION.fullmatch(section)
    assert whole is not None, "it is one section with an id"
    page = _SECTION.sub(lambda found: section if found[1] == whole[1] else found[0], page)
    page = re.sub(r"<style>.*?</style>", lambda _: style(), page, count=1, flags=re.DOTALL)
    with machine_errors(folder):
        write_atomic(folder / _NAME, page)
        renew_file(folder, _NAME)
    return folder / _NAME


def _read(folder: Path) -> str:
    try:
        page = (folder / _NAME).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        page = ""
    if {"accuracy", "change"} - {found[1] for found in _SECTION.finditer(page)}:
        raise ConfigError(
            f"{folder / _NAME} is missing, or was written by an earlier version; map again with --overwrite, "
            "or leave --report out"
        )
    return page
