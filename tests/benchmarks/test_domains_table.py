"""The table of adaptation: gains are of the same seeds."""

from __future__ import annotations

import domains


def test_a_row_is_compared_with_the_row_before_over_the_same_seeds() -> None:
    def row(name: str, seed: int, miou: float) -> dict[str, object]:
        return {"system": "lovecs", "row": name, "seed": seed, "steps": 9, "miou": miou}

    rows = [row("source only", 1, 0.4), row("source only", 2, 0.5), row("AdaBN", 1, 0.5)]
    lines = domains.table("lovecs", rows).splitlines()
    assert lines[2] == "| source only | 1, 2 | 9 | 45.0 ± 63.5 |  |"
    assert lines[3] == "| AdaBN | 1 | 9 | 50.0 | +10.0 |"
    assert domains.table("daspm", rows).count("\n") == 1
