"""Rectangles of pixels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle of pixels of a grid; it may lie partly outside of it.

    >>> Window(0, 0, 4, 6).clip(Window(2, 3, 10, 10))
    Window(row=2, col=3, height=2, width=3)
    """

    row: int
    """First row."""
    col: int
    """First column."""
    height: int
    """Rows; at least 1."""
    width: int
    """Columns; at least 1."""

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a window needs at least one row and column, got {self.height} x {self.width}")

    @property
    def row_end(self) -> int:
        """One past the last row."""
        return self.row + self.height

    @property
    def col_end(self) -> int:
        """One past the last column."""
        return self.col + self.width

    @property
    def pixels(self) -> int:
        """Area in pixels."""
        return self.height * self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """(y, x) slices into an array that covers the whole grid."""
        return slice(self.row, self.row_end), slice(self.col, self.col_end)

    def shift(self, rows: int, cols: int) -> Window:
        """The same rectangle, moved."""
        return Window(self.row + rows, self.col + cols, self.height, self.width)

    def grow(self, halo: int) -> Window:
        """The same rectangle with `halo` more pixels on each side."""
        return Window(self.row - halo, self.col - halo, self.height + 2 * halo, self.width + 2 * halo)

    def scale(self, ratio: int) -> Window:
        """The same place in pixels that are `ratio` times finer."""
        return Window(self.row * ratio, self.col * ratio, self.height * ratio, self.width * ratio)

    def clip(self, other: Window) -> Window | None:
        """The common part of both, or None."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        row_end, col_end = min(self.row_end, other.row_end), min(self.col_end, other.col_end)
        if row_end <= row or col_end <= col:
            return None
        return Window(row, col, row_end - row, col_end - col)
