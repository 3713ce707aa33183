"""Where the TOML files that ship with citycover are: the one place that knows."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def config_path(*parts: str) -> Path:
    """Path below `configs/`: inside the installed package, or the repository in an editable install."""
    installed = _PACKAGE / "configs"
    root = installed if installed.is_dir() else _PACKAGE.parents[1] / "configs"
    return root.joinpath(*parts)


def config_names(folder: str) -> tuple[str, ...]:
    """Stems of the TOML files in one folder of `configs/`, sorted."""
    return tuple(sorted(path.stem for path in config_path(folder).glob("*.toml")))
