"""`citycover models list`: what is offered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from citycover_cli.output import print_json, say
from citycover_cli.verb import Talk, talking

if TYPE_CHECKING:
    from citycover_models.catalogue.counts import Facts


@talking
def run(*, talk: Talk) -> None:
    """List the built-in models, which map as they are, and the networks, which are trained and exported."""
    from citycover.model.builtin import NAMES
    from citycover_models.catalogue.counts import read_facts, trained_facts

    rows = (*read_facts(), *trained_facts())
    if talk.as_json:
        print_json([plain_facts(facts, built_in=facts.name in NAMES) for facts in rows])
        return
    width = max(len(facts.name) for facts in rows)
    say(f"{'name':<{width}}  {'parameters':>11}  GFLOP/Mpx  {'window':>6}  scale  bands")
    for facts in rows:
        star = " (built in)" if facts.name in NAMES else ""
        say(
            f"{facts.name:<{width}}  {facts.parameters:>11,}  {facts.gflop_per_mpx:>9,.1f}  "
            f"{facts.window:>6}  {facts.output_scale:>5}  {', '.join(facts.bands)}{star}"
        )


def plain_facts(facts: Facts, built_in: bool) -> dict[str, Any]:
    """What other programs build on."""
    from dataclasses import asdict

    return asdict(facts) | {"bands": list(facts.bands), "built_in": built_in}
