"""A model card as a STAC item of the Machine Learning Model extension, and back."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from citycover.classes.legend import Legend
from citycover.errors import ModelError
from citycover.files.problems import problems_of
from citycover.model.card import ModelCard

MLM_SCHEMA = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"


def card_to_item(card: ModelCard) -> dict[str, Any]:
    """The card as a STAC item, geometry null.

    Our own fields stand under `citycover:card` as they are, so nothing is lost on the way.
    """
    output = _output(card)
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM_SCHEMA],
        "id": f"{card.name}-{card.version}",
        "geometry": None,
        "properties": {
            "datetime": None,
            "start_datetime": "1970-01-01T00:00:00Z",
            "end_datetime": "9999-12-31T23:59:59Z",
            "description": card.description or card.name,
            "license": "other" if card.licence == "not said" else card.licence,
            "mlm:name": card.name,
            "mlm:architecture": card.name,
            "mlm:tasks": output["tasks"],
            "mlm:framework": "pytorch",
            "mlm:input": _inputs(card),
            "mlm:output": [output],
            "citycover:card": json.loads(card.model_dump_json(exclude_none=True)),
        },
        "links": [],
        "assets": {},
    }


def card_to_json(card: ModelCard) -> str:
    """The item as text, the same for the same card."""
    return json.dumps(card_to_item(card), indent=1, sort_keys=True)


def _inputs(card: ModelCard) -> list[dict[str, Any]]:
    side = card.window.size
    return [
        {
            "name": group.name,
            "bands": [{"name": name} for name in group.names],
            "input": {
                "shape": [-1, len(group.bands), side // group.ratio, side // group.ratio],
                "dim_order": ["batch", "bands", "height", "width"],
                "data_type": group.dtypes[0],
            },
            "description": "raw digital numbers; normalisation happens inside the network",
        }
        for group in card.groups
    ]


def _output(card: ModelCard) -> dict[str, Any]:
    side = int(card.window.size * card.output_scale)
    return {
        "name": card.task,
        "tasks": ["semantic-segmentation" if card.task == "classes" else "multi-label-classification"],
        "result": {
            "shape": [-1, card.scores, side, side],
            "dim_order": ["batch", "classes", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": _classes(card.legend),
    }


def _classes(legend: Legend) -> list[dict[str, Any]]:
    return [
        {
            "value": c.id,
            "name": c.name.lower().replace(" ", "-"),
            "title": c.name,
            "color_hint": c.color[1:].upper(),
        }
        for c in legend.classes
    ]


def parse_card(data: dict[str, Any], where: str) -> ModelCard:
    """Build a card from a STAC item or from the plain fields of a card.toml.

    Raises:
        ModelError: fields are missing, unknown or contradict each other.
    """
    if data.get("type") == "Feature":
        properties = data.get("properties")
        data = properties.get("citycover:card", {}) if isinstance(properties, dict) else {}
    try:
        return ModelCard.model_validate(data)
    except ValidationError as error:
        problems = problems_of(error, ModelCard, whole="card")
        raise ModelError(f"the card of {where} is not valid: {problems}; see docs/card.md") from None
