"""A sample of the states that a power cut may leave; `make crash` goes through all of them."""

from pathlib import Path

import pytest
from crash import BLOCK, explore
from scenarios import scenarios

from citycover.plan import fit

SHARES = {"run": 0.01, "resume": 0.05, "restart": 0.008, "overwrite": 0.006}


@pytest.mark.parametrize("name", SHARES)
def test_a_power_cut_leaves_what_can_be_gone_on_with(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for side in ("MAX_BLOCK_HEIGHT", "MAX_BLOCK_WIDTH"):
        monkeypatch.setattr(fit, side, BLOCK)
    (scenario,) = [s for s in scenarios(tmp_path) if s.name == name]
    place = tmp_path / "of"
    place.mkdir()
    found = list(explore(scenario, place, share=SHARES[name]))
    assert len(found) > 4
    assert not [f"{verdict}: {state.lost}" for state, verdict in found if verdict.startswith("FAULT")]
