"""Where the TOML files that ship with citycover are: the one place that knows."""

from __future__ import annotations

import os
from pathlib import Path

from citycover.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]


def config_path(*parts: str) -> Path:
    """Path below `configs/`: inside the installed package, or the repository in an editable install."""
    installed = _PACKAGE / "configs"
    root = installed if installed.is_dir() else _PACKAGE.parents[1] / "configs"
    return root.joinpath(*parts)


def config_names(folder: str) -> tuple[str, ...]:
    """Stems of the TOML files in one folder of `configs/`, sorted."""
    return tuple(sorted(path.stem for path in config_path(folder).glob("*.toml")))


def find_config(folder: str, what: str, name_or_file: str | Path) -> Path:
    """A TOML file that ships below `configs/FOLDER` by its name, or a file of the user by its path.

    Raises:
        ConfigError: there is neither; the message lists the names.
    """
    path = Path(name_or_file)
    if path.suffix == ".toml" and os.path.isfile(path):  # noqa: PTH113 - False for names that cannot be
        return path
    return find_builtin(folder, what, str(name_or_file))


def find_builtin(folder: str, what: str, name: str) -> Path:
    """A TOML file that ships below `configs/FOLDER`.

    Raises:
        ConfigError: there is none of this name; the message lists the names.
    """
    names = config_names(folder)
    if name not in names:
        raise ConfigError(
            f"there is no {what} {name[:200]!r}; built in: {', '.join(names)}; give one of these or the path "
            "of a .toml file"
        )
    return config_path(folder, f"{name}.toml")
