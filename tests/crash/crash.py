"""Every state that a power cut may leave: make crash.

    make crash                                      all states of all scenarios: some minutes
    python tests/crash/crash.py --scenarios run     one of them
    python tests/crash/crash.py --share 0.1         a tenth of the states

Each state is made for real and gone on with by the command that a user would type. It must end in the same
pixels as an undisturbed run, or be refused with a message; what says it is finished may be nothing
else.
"""

from __future__ import annotations

import argparse
import collections
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1] / "pipeline"))

from disk import State, record, states
from lessons import lessons
from scenarios import ANSWERS, Scenario, copy_tree, hasty, scenarios


def judge(scenario: Scenario, state: State, place: Path, before: str | None, after: str) -> str:
    """What becomes of one state, in a word.

    Raises:
        AssertionError: it must not.
    """
    root = place / "state"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    state.write(root)
    found = scenario.results(root)
    assert found in (None, before, after), "something that says it is finished is neither old nor new"
    code = scenario.go_on(root)
    assert code in ANSWERS, f"exit code {code}"
    ended = scenario.results(root)
    if code in (0, 5):  # done, or found done
        assert ended == after, f"ended with something else: {ended}"
    assert ended in (None, before, after), "what was refused was changed"
    if ended == after:
        return "was finished" if found == after else "went on"
    return f"refused ({code})"


def explore(
    scenario: Scenario, place: Path, *, share: float = 1.0, seed: int = 0
) -> Iterator[tuple[State, str]]:
    """Record a scenario, and judge a share of its states; yields each with what became of it."""
    root = place / scenario.name
    scenario.prepare(root)
    copy_tree(root, place / "before") if root.exists() else root.mkdir()
    before = scenario.results(root)
    with record(root) as recording:
        scenario.act(root)
    after = scenario.results(root)
    assert after is not None, "an undisturbed run leaves a product"
    chance = random.Random(seed)
    for state in states(recording):
        if chance.random() >= share:
            continue
        try:
            yield state, judge(scenario, state, place, before, after)
        except AssertionError as error:
            yield state, f"FAULT: {error}"


def main() -> None:
    """Explore, count, and exit with 1 where a state ends wrongly."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--scenarios", nargs="*")
    parser.add_argument("--share", type=float, default=1.0)
    given = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as folder, hasty():
        for scenario in (*scenarios(Path(folder)), *lessons(Path(folder))):
            if given.scenarios and scenario.name not in given.scenarios:
                continue
            begin, counts = time.time(), collections.Counter[str]()
            place = Path(folder) / f"of-{scenario.name}"
            place.mkdir()
            for state, verdict in explore(scenario, place, share=given.share):
                counts[verdict.split(":", maxsplit=1)[0]] += 1
                if verdict.startswith("FAULT"):
                    faults += 1
                    print(f"  {verdict}\n    {state.lost}", flush=True)
            said = ", ".join(f"{n} {what}" for what, n in counts.most_common())
            print(
                f"{scenario.name}: {counts.total()} states in {time.time() - begin:.0f} s: {said}", flush=True
            )
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
