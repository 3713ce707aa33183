"""Every state that a power cut may leave: make crash.

    make crash                                      all states of all scenarios: half an hour
    python tests/crash/crash.py --scenarios run     one of them
    python tests/crash/crash.py --share 0.1         a tenth of the states

Each state is made for real and gone on with by the command that a user would type. It must end in the same
pixels as an undisturbed run, or be refused with a message; what says it is finished may be nothing
else, and nothing that is half written stays. What differs between states that count as one is not read: the
kernel says so.
"""

from __future__ import annotations

import argparse
import collections
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1] / "pipeline"))

from disk import State, is_passing, record, states
from lessons import lessons
from scenarios import ANSWERS, Scenario, copy_tree, hasty, scenarios
from unread import unread


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
    untouched = unread((root / path for path in state.unopened), (root / path for path in state.locks))
    with untouched, mock.patch.object(os, "fsync"):
        code = scenario.go_on(root)
    assert code in ANSWERS, f"exit code {code}"
    ended = scenario.results(root)
    if code in (0, 5):  # done, or found done
        assert ended == after, f"ended with something else: {ended}"
        litter = [path.name for path in root.rglob("*") if is_passing(path.name)]
        assert code or scenario.shared or not litter, f"half written files stay: {', '.join(litter)}"
    assert ended in (None, before, after), "what was refused was changed"
    if ended == after:
        return "was finished" if found == after else "went on"
    return f"refused ({code})"


def explore(scenario: Scenario, place: Path, *, share: float = 1.0) -> Iterator[tuple[State, str]]:
    """Record a scenario, and judge a share of its states, evenly; yields each with what became of it."""
    root = place / scenario.name
    scenario.prepare(root)
    copy_tree(root, place / "before") if root.exists() else root.mkdir()
    before = scenario.results(root)
    with record(root) as recording:
        scenario.act(root)
    after = scenario.results(root)
    assert after is not None, "an undisturbed run leaves a product"
    for number, state in enumerate(states(recording)):
        if int((number + 1) * share) == int(number * share):
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
