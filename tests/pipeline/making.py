"""Small scenes, cards and runs for tests of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from torch import nn

from citycover.classes.legend import Legend, LegendClass
from citycover.engine.canvas import FinishedBlock
from citycover.engine.input import SweepInput
from citycover.engine.strips import reflect
from citycover.engine.sweep import sweep
from citycover.geometry.window import Window
from citycover.model.card import BandGroup, ModelCard, WindowRule
from citycover.model.predictor import FunctionPredictor
from citycover.plan.fit import PlanOptions, make_plan
from citycover.plan.plan import Plan
from citycover.product.record import Amount, Given, Machinery, RunInput, RunModel, RunRecord, Timing
from citycover.read.reader import ArrayReader
from citycover.scene.scene import BandSource, Scene, SceneGroup, Sheet

CLASSES = 5
FILL = (10.0, 20.0, 30.0)

torch.manual_seed(0)
CNN = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, CLASSES, 3, padding=1)).eval()
"""Receptive field 7: three pixels of contaminated margin."""


def cnn(image: torch.Tensor) -> torch.Tensor:
    return 30 * CNN(image.float() / 255)


def make_legend(classes: int = CLASSES) -> Legend:
    return Legend(
        name="test",
        nodata=0,
        classes=tuple(
            LegendClass(id=i + 1, name=f"class {i + 1}", color=f"#{40 * i:06x}") for i in range(classes)
        ),
    )


def make_card(window: int | WindowRule, trim: int, feather: int, **changes: Any) -> ModelCard:
    fields: dict[str, Any] = {
        "name": "test",
        "groups": (BandGroup(bands=("a", "b", "c"), dtypes=("uint8",), fill=FILL),),
        "window": WindowRule(size=window) if isinstance(window, int) else window,
        "trim": trim,
        "feather": feather,
        "legend": make_legend(),
    }
    return ModelCard(**(fields | changes))


def make_record(legend: Legend, **changes: Any) -> RunRecord:
    """What a run with this legend would say."""
    card = make_card(64, 0, 0, legend=legend).model_dump(mode="json")
    given = Given(
        request={"window": None},
        model=RunModel("test", "1", "ab" * 32),
        card=card,
        inputs=(RunInput("scene.tif", 10, 20),),
        gsd=1.0,
        time=None,
        plan={"windows": 3},
        identity={"model": "ab" * 32},
        versions={"citycover": "0"},
    )
    timing = Timing(2.0, 1.0, {"start": 0.5, "forward": 0.75}, {"read": 0.1}, 0.75)
    fields: dict[str, Any] = {
        "given": given,
        "timing": timing,
        "machine": Machinery("cpu", "fp32", 1, 1 << 30),
        "amount": Amount(100, {"run": 3, "skipped": 0}, 1.25),
        "holes": (),
        "shares": {name: 1 / len(legend.names) for name in legend.names},
    }
    return RunRecord(**(fields | changes))


def make_scene(shape: tuple[int, int], ratios: Sequence[int] = (1,), dtype: str = "uint8") -> Scene:
    groups = []
    for ratio in ratios:
        size = (-(-shape[0] // ratio), -(-shape[1] // ratio))
        grid = GeoBox(size, Affine(ratio, 0, 500_000, 0, -ratio, 5_800_000), "EPSG:32633")
        band = BandSource("memory", 1, "a", dtype, None, "none")
        sheet = Sheet((band,) * 3, grid, Window(0, 0, *size))
        groups.append(SceneGroup(f"r{ratio}", grid, (sheet,), dtype, (16, 16), ratio))
    return Scene(tuple(groups), gsd=1.0)


def run_sweeps(
    plan: Plan,
    card: ModelCard,
    function: Callable[..., torch.Tensor],
    images: Sequence[NDArray[Any]],
    valids: Sequence[NDArray[np.bool_] | None],
    **given: Any,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Every block of a plan, put together: classes and confidence."""
    classes = np.full(plan.shape, 99, np.uint8)
    confidence = np.full(plan.shape, 99, np.uint8)

    def readers() -> list[ArrayReader]:
        return [ArrayReader(i, v, (16, 16)) for i, v in zip(images, valids, strict=True)]

    start = SweepInput(plan, FunctionPredictor(card, function), readers, **given)
    for bx in range(plan.block_counts[1]):
        for block in sweep(start, [plan.block(by, bx) for by in range(plan.block_counts[0])]):
            put(block, classes, confidence)
    return classes, confidence


def put(block: FinishedBlock, classes: NDArray[np.uint8], confidence: NDArray[np.uint8]) -> None:
    classes[block.block.window.slices] = block.layers["classes"]
    confidence[block.block.window.slices] = block.layers["confidence"]


def whole(
    card: ModelCard, function: Callable[..., torch.Tensor], image: NDArray[Any], valid: NDArray[np.bool_]
) -> torch.Tensor:
    """(c, y, x) probabilities of one forward over the filled raster, reflect-padded by t + f."""
    height, width = valid.shape
    filled = np.where(valid[..., None], image, np.array(card.groups[0].fills).astype(image.dtype))
    pad = card.trim + card.feather
    rows, cols = (reflect(-pad, n + 2 * pad, n) for n in (height, width))
    padded = torch.from_numpy(filled[rows][:, cols]).permute(2, 0, 1)[None]
    with torch.no_grad():
        return torch.softmax(function(padded), 1)[0, :, pad : pad + height, pad : pad + width]


def plan_of(scene: Scene, card: ModelCard, **options: Any) -> Plan:
    batch, precision = options.pop("batch", 1), options.pop("precision", "fp32")
    return make_plan(scene, card, PlanOptions(**options), batch=batch, precision=precision)


def pointwise(image: torch.Tensor) -> torch.Tensor:
    x = image.float() / 64
    return torch.stack([x[:, 0], x[:, 1], x[:, 2], x[:, 0] - x[:, 1], x[:, 2] * x[:, 1] / 3], 1)


CASE = {"window": 24, "trim": 3, "feather": 2, "batch": 1, "mask": "none"}
"""What most cases that are written out have in common."""


def make_case(run: dict) -> tuple:
    rng = np.random.default_rng(3)
    height, width = run["shape"]
    image = rng.integers(0, 255, (height, width, 3), np.uint8)
    valid = np.ones((height, width), np.bool_)
    if run["mask"] == "scattered":
        valid = rng.random((height, width)) < 0.7
    elif run["mask"] == "half":
        valid[:, : width // 2] = False
    elif run["mask"] == "corner":
        valid[: height * 2 // 3, : width * 2 // 3] = False
    elif run["mask"] == "all":
        valid[:] = False
    card = make_card(run["window"], run["trim"], run["feather"])
    plan = plan_of(make_scene((height, width)), card, block=run["block"], batch=run["batch"])
    return image, valid, card, plan
