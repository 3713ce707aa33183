"""Whether the torch that was installed is the one that was asked for: `check_torch.py cuda|cpu|base`."""

from __future__ import annotations

import sys

import torch

FOUND = f"torch {torch.__version__}, {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'without CUDA'}"


def main(asked: str) -> None:
    """End with a message where the two differ."""
    if (asked == "cuda" and not torch.version.cuda) or (asked == "cpu" and torch.version.cuda):
        sys.exit(f"TORCH={asked}, but {FOUND} was installed; look at the index that pip is set to")
    print(f"TORCH={asked}: {FOUND}")


if __name__ == "__main__":
    main(sys.argv[1])
