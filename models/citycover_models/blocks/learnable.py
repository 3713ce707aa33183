"""What a network that can be trained says about itself."""

from __future__ import annotations

from torch import nn


class Learnable(nn.Module):
    """Raw digital numbers (n, band, y, x) -> scores (n, class, y, x)."""

    def __init__(self) -> None:
        super().__init__()
        self.multiple = 1
        """Sides of windows are multiples of this."""
        self.first_class = 0
        """Output channel of the heads where the classes begin: 1 where channel 0 means "no label"."""
