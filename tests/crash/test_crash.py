"""A sample of the states that a power cut may leave; `make crash` goes through all of them."""

from pathlib import Path

import pytest
from crash import explore
from lessons import lessons
from scenarios import hasty, scenarios

SHARES = {
    "run": 0.03, "resume": 0.03, "restart": 0.025, "overwrite": 0.03, "refine": 0.05, "label-cache": 1.0,
    "train-resume": 0.06,
}  # fmt: skip


@pytest.mark.parametrize("name", SHARES)
def test_a_power_cut_leaves_what_can_be_gone_on_with(name: str, tmp_path: Path) -> None:
    (scenario,) = [s for s in (*scenarios(tmp_path), *lessons(tmp_path)) if s.name == name]
    place = tmp_path / "of"
    place.mkdir()
    with hasty():
        found = list(explore(scenario, place, share=SHARES[name]))
    assert len(found) >= 2
    assert not [f"{verdict}: {state.lost}" for state, verdict in found if verdict.startswith("FAULT")]
