"""A model card for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from citycover_cli.output import print_table

if TYPE_CHECKING:
    from citycover.model.archive import ModelFile


def model_facts(model: ModelFile) -> dict[str, Any]:
    """A model file as plain values: its card, and what the file itself says."""
    card = model.card.model_dump(mode="json")
    return {"path": str(model.path), "sha256": model.sha256, "format": model.format, "card": card}


def print_model(model: ModelFile) -> None:
    """The card for people."""
    card = model.card
    groups = [
        f"{g.name}: {', '.join(g.names)} ({'/'.join(g.dtypes)}"
        + (f", {g.ratio} x coarser)" if g.ratio > 1 else ")")
        for g in card.groups
    ]
    gsd = "any" if card.gsd is None else f"{card.gsd[0]:g} to {card.gsd[1]:g} m"
    rule = card.window
    sizes = (
        f"{rule.size} only"
        if rule.fixed
        else f"{rule.size}, any multiple of {rule.multiple} up to {rule.maximum}"
    )
    left = card.disagreement
    margins = (
        "not measured" if left is None else f"measured: deeper than trim, {left:.3%} of pixels still differ"
    )
    rows = [
        ("description", card.description),
        ("bands", "\n".join(groups)),
        ("gsd", gsd),
        ("window", f"{sizes}; trim {card.trim}, feather {card.feather}, stride {card.stride}"),
        ("margins", margins),
        ("output", f"{card.task}, scale {card.output_scale}"),
        ("classes", ", ".join(f"{c.id} {c.name}" for c in card.legend.classes)),
        ("offset", card.offset_tag or "none"),
        ("training", card.training or "not said"),
        ("sources", "\n".join(card.sources) or "not said"),
        ("licence", card.licence),
        ("file", f"{model.path.name}, {model.format}, sha256 {model.sha256}"),
    ]
    print_table(f"{card.name} {card.version}", rows)
