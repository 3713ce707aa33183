"""How threads of a process share the interpreter."""

from __future__ import annotations

import sys

from citycover.machine.cores import short_turns


def test_turns_become_short_and_are_never_made_longer() -> None:
    before = sys.getswitchinterval()
    try:
        for turn, wanted in ((0.005, 1e-4), (1e-5, 1e-5)):
            sys.setswitchinterval(turn)
            short_turns()
            assert abs(sys.getswitchinterval() - wanted) < 1e-6
    finally:
        sys.setswitchinterval(before)
