"""Figures that matplotlib draws, into files of its formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from citycover.errors import ConfigError
from citycover.files.output import write_output


def check_figure(path: Path) -> None:
    """Raise ConfigError unless a figure can be written into such a file: before the work, not after it."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError:
        raise ConfigError("a figure needs the plots extra: pip install 'citycover[plots]'") from None
    if path.suffix.lower().lstrip(".") not in FigureCanvasAgg.get_supported_filetypes():
        raise ConfigError(f"a figure is written as .png, .svg or .pdf; {path} ends in {path.suffix!r}")


def write_figure(path: Path, figure: Any) -> None:
    """Write a matplotlib figure in the format that the ending says.

    Raises:
        MachineError: the file cannot be written.
    """
    write_output(path, lambda file: figure.savefig(file, format=path.suffix.lower().lstrip(".")))
