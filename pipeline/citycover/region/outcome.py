"""What became of the scenes of a region in one run."""

from __future__ import annotations

import socket
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from citycover.version import __version__

What = Literal["mapped", "renamed", "completed", "done", "held", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one scene."""

    scene: str
    what: What
    """Mapped; product renamed; what is made of the map made; nothing to do; another run's; not done."""
    why: str = ""
    """Of a scene that was mapped before: what had changed."""
    seconds: float = 0.0
    pixels: int = 0
    holes: int = 0
    message: str = ""
    """Of what failed: got, needed, do this."""
    kind: str = ""
    """Of what failed: the name of the error; `bug`: not foreseen, with its `trace`."""
    trace: str = ""

    @property
    def failed(self) -> bool:
        """Whether it has no product of what is there now."""
        return self.what == "failed"

    def facts(self) -> dict[str, Any]:
        """As plain values, without what is empty."""
        return {name: value for name, value in asdict(self).items() if value or name in ("scene", "what")}


@dataclass
class RegionReport:
    """What became of all of them; grows while the run lasts."""

    region: str
    shard: str
    outcomes: list[Outcome] = field(default_factory=list)
    """Of scenes that had something to do."""
    done: int = 0
    """Scenes that had nothing to do."""
    stopped: bool = False
    """By a signal, before all were through."""
    error: str = ""
    """What ended it before all were through; empty: nothing."""
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    finished: datetime | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Scenes by what became of them."""
        found: Counter[str] = Counter(outcome.what for outcome in self.outcomes)
        found["done"] += self.done
        return dict(found)

    @property
    def exit_code(self) -> int:
        """0: all is well; 3: a scene failed, is another run's, or has holes."""
        return 3 if any(o.what in ("failed", "held") or o.holes for o in self.outcomes) else 0

    def facts(self) -> dict[str, Any]:
        """As plain values: a line of runs.jsonl."""
        return {
            "region": self.region,
            "shard": self.shard,
            "started": self.started.isoformat(timespec="seconds"),
            "finished": None if self.finished is None else self.finished.isoformat(timespec="seconds"),
            "stopped": self.stopped,
            "error": self.error,
            "exit_code": None if self.stopped or self.error else self.exit_code,
            "counts": self.counts,
            "pixels": sum(outcome.pixels for outcome in self.outcomes),
            "seconds": round(sum(outcome.seconds for outcome in self.outcomes), 3),
            "scenes": [outcome.facts() for outcome in self.outcomes],
            "host": socket.gethostname(),
            "citycover": __version__,
        }
