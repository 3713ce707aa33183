"""sharpen: labels of a place and an image of it into a finer map. The facade for the command line and Python.

Understand (every mistake in image and labels, before a step) -> train -> map with the labels as evidence ->
judge on cells that were kept back -> picture and report. Each stage goes on where an earlier run was killed:
the training from its checkpoint, the map from its blocks; the report is written last, and says that it is
done.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from citycover.errors import FinishedError, StoppedError
from citycover.evidence.labels import understand_labels
from citycover.files.identity import sha256_of
from citycover.job.job import prepare_request
from citycover.job.request import MapRequest
from citycover.machine.device import choose_device
from citycover.model.predictor import ModelPredictor
from citycover.product.earlier import differences
from citycover.product.folder import holds_product
from citycover.product.product import Product
from citycover.product.record import RunLabels, read_record
from citycover.run.map import map_scene
from citycover_models.sharpen.folder import PICTURE, REPORT, claim_sharpening
from citycover_models.sharpen.judge import Judgement, judge
from citycover_models.sharpen.learn import Learned, learn
from citycover_models.sharpen.picture import draw_sharpening
from citycover_models.sharpen.report import Report
from citycover_models.sharpen.request import Sharpened, SharpenRequest, SharpenWatch
from citycover_models.sharpen.understand import Understood, understand


def sharpen(request: SharpenRequest, watch: SharpenWatch | None = None) -> Sharpened:
    """Train on the very place, map it with its labels, and say what that brought.

    Raises:
        FinishedError: the folder holds this very product.
        HeldError: another run writes into the folder.
        CitycoverError: anything else the user can mend; nothing that was finished is lost.
        StoppedError: `watch.stop` was set; the same request goes on.
    """
    watch = watch or SharpenWatch()
    known = understand(request)
    wanted = request.product
    with claim_sharpening(
        request.out, known.identity, overwrite=wanted.overwrite, restart=wanted.restart
    ) as finished:
        learned = learn(request, known, watch)
        if watch.stop.is_set():
            raise StoppedError
        product = _map(request, learned.model, watch, finished=finished)
        report = _report(request, known, learned, product)
        words = f"{Path(request.imagery.files[0]).name}: labels sharpened by {learned.recipe.network}"
        picture = request.out / PICTURE
        draw_sharpening(picture, known.training_set.pairs[0], request.out, known.training_set.legend, words)
        report.write(request.out / REPORT)
    return Sharpened(product, learned.model, report, picture)


def _map(request: SharpenRequest, model: Path, watch: SharpenWatch, *, finished: bool) -> Product:
    """The product: made, gone on with, or found as an earlier run left it before the report was written."""
    asked = map_request(request, model)
    if not finished:
        asked = replace(asked, product=replace(asked.product, overwrite=_other(request, asked, model)))
    try:
        return map_scene(asked, watch.map)
    except FinishedError:
        if finished:
            raise
    files = tuple(sorted(path for path in request.out.iterdir() if path.is_file()))
    return Product(request.out, files, read_record(request.out / "run.json"))


def map_request(request: SharpenRequest, model: Path) -> MapRequest:
    """The map that a sharpening asks for once its network is there.

    The labels' legend is left to the model: it knows what it learned from.
    """
    return MapRequest(
        request.imagery,
        request.out,
        str(model),
        where=request.where,
        engine=request.engine,
        product=replace(request.product, overwrite=False),
        labels=replace(request.labels, legend=None),
    )


def _other(request: SharpenRequest, asked: MapRequest, model: Path) -> bool:
    """Whether the folder holds a product of another network, or another one that may be replaced."""
    if not holds_product(request.out):
        return False
    record = read_record(request.out / "run.json")
    if record.given.model.sha256 != sha256_of(model):
        return True
    job = prepare_request(asked)
    return request.product.overwrite and bool(differences(job, record))


def _report(request: SharpenRequest, known: Understood, learned: Learned, product: Product) -> Report:
    labels = product.run.labels
    assert labels is not None, "it was mapped with labels"
    return Report(
        classes=known.training_set.legend.names,
        recipe=learned.recipe.name,
        method=learned.recipe.method.name,
        why=learned.why,
        trust=labels.trust,
        noise=str(labels.belief),
        labels=labels.shares,
        mapped=product.run.shares,
        judgement=_judge(request, known, learned, labels),
    )


def _judge(
    request: SharpenRequest, known: Understood, learned: Learned, labels: RunLabels
) -> Judgement | None:
    pair = known.training_set.pairs[0]
    predictor = ModelPredictor.load(learned.model, choose_device(request.engine.device))
    understood = understand_labels(replace(request.labels, legend=None), predictor.card, pair.scene.grid)
    return judge(predictor, understood.believed(labels.belief), pair, learned.plan)
