"""The end of a training: weights, card, margins, model file."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from citycover.errors import ProductError
from citycover.files.atomic import write_atomic
from citycover.files.plain import parse_json
from citycover_models.export.margins import measurable, measure_margins
from citycover_models.export.proof import safe_precision
from citycover_models.export.write import export_pt2, export_torchscript
from citycover_models.training.folder import BEST, CHECKPOINT, RESULT
from citycover_models.training.loop import Run
from citycover_models.training.request import TrainRequest
from citycover_models.training.trainee import Trainee
from citycover_models.weights.weights import load_weights, write_weights


def finish(run: Run) -> dict[str, Any]:
    """Write weights and model file, and put the result, which is returned, in the place of the checkpoint.

    Raises:
        StoppedError: the training is to end; the checkpoint is there still.
    """
    request, trainee, state, preset = run.request, run.trainee, run.state, run.material.preset
    out = request.out
    if request.recipe.patience and (out / BEST).is_file():
        load_weights(trainee.kept, out / BEST)
    conclusion = run.material.conclude(trainee, state.step)
    network = trainee.kept.cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    write_weights(network, out / "weights.safetensors")
    card, network = conclusion.card, conclusion.form(network)
    if preset.fold is not None:
        network = preset.fold(network)
    trainee.heed_stop()
    if request.measure:
        card = card.model_copy(update={"precision": safe_precision(network, card)})
        with torch.inference_mode():
            margins = measure_margins(_heeding(network, trainee), card) if measurable(card) else None
        card = margins.on(card) if margins else card
    report = export_torchscript(network, card, out / "model.pt", heed=trainee.heed_stop)
    if request.pt2:
        export_pt2(network, card, out / "model.pt2", heed=trainee.heed_stop)
    result = {
        "finished": True,
        "identity": state.identity,
        "steps": state.step,
        "sha256": report.sha256,
        "kept": state.kept,
        **(conclusion.knowledge.facts if conclusion.knowledge else {}),
        **({"test": conclusion.test} if conclusion.test else {}),
    }
    write_atomic(out / RESULT, json.dumps(result, indent=1))
    (out / CHECKPOINT).unlink(missing_ok=True)
    return result


def finished_before(request: TrainRequest, identity: str) -> dict[str, Any] | None:
    """The result of the very training that is asked for, where it is to be gone on with and was finished.

    Args:
        request: of the training.
        identity: of its recipe, data and seed.

    Raises:
        ProductError: another training was finished there, or files of this one are missing.
    """
    out = request.out
    if not (request.resume and (out / RESULT).is_file()):
        return None
    try:
        result = parse_json((out / RESULT).read_text(encoding="utf-8"))
    except ValueError:
        result = None  # damaged
    if not isinstance(result, dict) or result.get("identity") != identity:
        raise ProductError(
            f"{out} holds a finished training of another request or version: recipe, images, labels, legend "
            f"or seed differ; to learn on from it give --weights {out / 'weights.safetensors'} and another "
            "--out, or --overwrite to train anew"
        )
    wanted = ("model.pt", *(("model.pt2",) if request.pt2 else ()))
    if lacking := [name for name in wanted if not (out / name).is_file()]:
        raise ProductError(
            f"{out} holds this training, finished, without {' and '.join(lacking)}; model files are made "
            "at its end alone (model.pt2 with --pt2); give --overwrite to train anew"
        )
    return result


def _heeding(network: nn.Module, trainee: Trainee) -> Callable[..., Tensor]:
    """The network, asking before each window whether the training is to end."""

    def scores(*windows: Tensor) -> Tensor:
        trainee.heed_stop()
        found: Tensor = network(*windows)
        return found

    return scores
