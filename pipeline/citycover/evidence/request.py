"""Which labels of the place are asked to be evidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from citycover.errors import ConfigError
from citycover.files.local import local_name, refuse_far


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """Which labels of the place are to be believed, and how far."""

    files: tuple[Path | str, ...]
    """Sheets on this machine, or products by name (`worldcover`, `esri:2021`); where several have a label,
    all vote."""
    legend: str | None = None
    """What their numbers mean, `NAME` or `NAME:TABLE`; None: the legend that the model learned from, and of a
    product by name its own."""
    trust: float | None = None
    """1: every label is right, 0: none says anything; None: as was measured."""
    change: bool = False
    """Look where the place has changed since, trust them no more there, and write the layer `change`."""

    def __post_init__(self) -> None:
        """Raise ConfigError where there is none, one lies elsewhere, or no such trust; one may be alone."""
        given: object = self.files
        named = (given,) if isinstance(given, (str, Path)) else self.files
        if not named:
            raise ConfigError("labels name no file and no product; name them, or leave labels out")
        files = tuple(local_name(file) if isinstance(file, str) else file for file in named)
        for file in files:
            refuse_far(file, "--labels")
        object.__setattr__(self, "files", files)
        if self.trust is not None and not 0 <= self.trust <= 1:
            raise ConfigError(f"--trust takes auto or a number from 0 to 1, got {self.trust:g}")
