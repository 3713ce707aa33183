"""Which labels of the place are asked to be evidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from citycover.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """Which labels of the place are to be believed, and how far."""

    files: tuple[Path | str, ...]
    """Sheets, or products by name (`worldcover`, `esri:2021`); where several have a label, all vote."""
    legend: str | None = None
    """What their numbers mean, `NAME` or `NAME:TABLE`; None: the legend that the model learned from, and of a
    product by name its own."""
    trust: float | None = None
    """1: every label is right, 0: none says anything; None: as was measured."""
    change: bool = False
    """Look where the place has changed since, trust them no more there, and write the layer `change`."""

    def __post_init__(self) -> None:
        """Raise ConfigError where there is none, or no such trust; one file may be given as itself."""
        given: object = self.files
        if isinstance(given, (str, Path)):
            object.__setattr__(self, "files", (given,))
        if not self.files:
            raise ConfigError("labels name no file and no product; name them, or leave labels out")
        if self.trust is not None and not 0 <= self.trust <= 1:
            raise ConfigError(f"--trust takes auto or a number from 0 to 1, got {self.trust:g}")
