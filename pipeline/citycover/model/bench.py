"""How fast a model runs here in each of its forms and precisions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from citycover.errors import ModelError
from citycover.model.archive import ModelFile
from citycover.model.checks import probe_windows
from citycover.model.network import load_torchscript
from citycover.model.precision import PRECISIONS, Precision
from citycover.model.predictor import ModelPredictor, autocast

Form = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One form of a model in one precision."""

    form: str
    precision: str
    mpx_per_s: float
    """10^6 input pixels of the finest group a second; 0 where it cannot run."""
    note: str = ""
    """What `map` uses, or why it cannot run."""


def bench_model(
    file: ModelFile, device: torch.device, *, window: int | None = None, batch: int = 1, repeats: int = 5
) -> tuple[BenchRow, ...]:
    """Measure every form and precision on the same random windows, in turns, and take the medians.

    Args:
        file: model file.
        device: where.
        window: side in input pixels; None: the card's.
        batch: windows together.
        repeats: turns; in each, every form runs once, so that a busy machine disturbs all alike.

    Raises:
        ModelError: the model does not take such windows.
    """
    card = file.card
    side = window or card.window.size
    if side % card.window.multiple or (card.window.fixed and side != card.window.size):
        raise ModelError(
            f"model {card.name!r} takes windows that are multiples of {card.window.multiple}"
            f"{f' and {card.window.size} only' if card.window.fixed else ''}, got {side}"
        )
    eight_bit = all("uint8" in group.dtypes for group in card.groups)
    windows = probe_windows(card, side, device, eight_bit=eight_bit, count=batch)
    fast = [w.contiguous(memory_format=torch.channels_last) for w in windows]
    forms: dict[tuple[str, str], tuple[Form, Sequence[Tensor], str]] = {}
    predictor = ModelPredictor.load(file.path, device, sha256=file.sha256)
    for precision in PRECISIONS if device.type == "cuda" else PRECISIONS[:2]:
        if file.format == "torchscript":
            forms["as loaded", precision] = (_as_loaded(file, device, precision), windows, "")
        name = "frozen, channels_last" if file.format == "torchscript" else "exported program"
        forms[name, precision] = (predictor.at(precision), fast, f"what map runs in {precision}")
    return _measure(forms, batch * side * side / 1e6, repeats)


def _as_loaded(file: ModelFile, device: torch.device, precision: Precision) -> Form:
    module = load_torchscript(file.path, str(device)).eval()

    def run(windows: Sequence[Tensor]) -> Tensor:
        with torch.inference_mode(), autocast(device, precision):
            scores: Tensor = module(*windows)
        return scores

    return run


def _measure(
    forms: dict[tuple[str, str], tuple[Form, Sequence[Tensor], str]], mpx: float, repeats: int
) -> tuple[BenchRow, ...]:
    """Warm each up twice, then run all in turns."""
    seconds: dict[tuple[str, str], list[float]] = {}
    failed: dict[tuple[str, str], str] = {}
    for key, (run, windows, _) in forms.items():
        try:
            for _turn in range(2):  # TorchScript optimises at its second call
                run(windows)
            seconds[key] = []
        except RuntimeError as error:
            failed[key] = f"cannot run: {str(error).strip().splitlines()[-1]}"
    for _turn in range(repeats):
        for key, taken in seconds.items():
            run, windows, _ = forms[key]
            begin = time.perf_counter()
            run(windows).float().sum().item()  # waits for the device
            taken.append(time.perf_counter() - begin)
    return tuple(
        BenchRow(
            *key,
            mpx / statistics.median(seconds[key]) if seconds.get(key) else 0.0,
            failed.get(key, note),
        )
        for key, (_, _, note) in forms.items()
    )
