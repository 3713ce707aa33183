"""`citycover train`: images and coarse labels into a model file."""

from __future__ import annotations

import shlex
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from citycover.errors import StoppedError
from citycover_cli import options
from citycover_cli.logs import logger
from citycover_cli.output import duration, print_json, print_table
from citycover_cli.progress import Progress, show_progress
from citycover_cli.signals import catch_signals, stopped
from citycover_cli.sources import GROUP, Sources, prepare
from citycover_cli.verb import Talk, heavy, talking

if TYPE_CHECKING:
    from citycover_models.data.patch_set import PatchSet
    from citycover_models.data.prepare import TrainingSet
    from citycover_models.training.request import Trained, TrainRequest, TrainWatch

HELP = """Train a network on imagery and coarse labels, or on BigEarthNet, and leave a model file that maps.

Labels may lie on any grid, in any CRS and resolution. Several --labels are taken in order, the first that
has a label gives it, or with --agree K those that K of them share. A recipe that adapts (lovecs, daspm) also
takes images without labels, --target: another sensor or city, which is what the model will map. DIR gets
model.pt, weights.safetensors, metrics.jsonl, TensorBoard events, curves.png and predictions of every epoch.

The band-fusion recipes learn from --folder BIGEARTHNET, v1 or v2: --region trains on some of its regions, and
--test-region tests on others, at the end; --share of the training patches, --weights and --set learn=head
carry a network from one region to another.

Exit codes: 0 done; 2 input or options; 4 no space, memory or device; 130 / 143 stopped by a signal.
"""


@talking
@heavy
@partial(options.grouped, more=GROUP)
def run(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the training.")],
    recipe: Annotated[str, typer.Option(help="Built-in recipe (vcnet, l2hnet-light, ...) or a .toml file.")],
    given: Sources,
    weights: Annotated[
        Path | None, typer.Option(help="Begin with these weights (.safetensors): fine-tuning.")
    ] = None,
    seed: options.TrainingSeed = 0,
    device: options.Device = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode chips.")] = 1,
    set_: options.RecipeChanges = None,
    pt2: Annotated[
        bool, typer.Option("--pt2", help="Write model.pt2, an ExportedProgram, beside model.pt.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be sampled, and stop.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished training; a finished one is left.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier training.")] = False,
    *,
    seen: options.Reading,
    talk: Talk,
) -> None:
    """See HELP."""
    from citycover_models.training.recipe import read_recipe
    from citycover_models.training.request import TrainRequest

    chosen = read_recipe(recipe, set_ or ())
    training_set = prepare(given, chosen, seen, seed)
    request = TrainRequest(
        training_set, chosen, out, seed=seed, device=device, weights=weights, workers=workers, resume=resume,
        overwrite=overwrite, pt2=pt2,
    )  # fmt: skip
    if plan:
        _print_plan(request, talk.as_json)
        return
    trained = _train_with_progress(request, talk.quiet or talk.log_json)
    if talk.as_json:
        print_json(_facts(trained))
    elif not talk.quiet:
        _print_trained(trained, training_set)


def _facts(trained: Trained) -> dict[str, Any]:
    """What came out, as plain values."""
    return {
        "model": str(trained.model),
        "steps": trained.steps,
        "seconds": round(trained.seconds, 1),
        **trained.validation,
        **{name: fact for name, fact in trained.labels.items() if name != "labels"},
        **({"test": trained.test} if trained.test else {}),
    }


def _train_with_progress(request: TrainRequest, quiet: bool) -> Trained:
    """Train, show progress, and turn a signal into its exit code and the way to go on."""
    from citycover_models.training.start import train

    with catch_signals() as (stop, caught), show_progress("training", 1.0, quiet) as progress:
        try:
            return train(request, watch_training(progress, stop))
        except StoppedError:
            pass
    raise stopped(caught, "what was learned is kept", "--resume", without=("--overwrite",))


def watch_training(progress: Progress, stop: threading.Event) -> TrainWatch:
    """Show how far a training is."""
    from citycover_models.training.request import TrainWatch

    def planned(facts: dict[str, Any], done: int) -> None:
        logger.info(
            "%d chips of %d px an epoch, %d held out%s", facts["chips_per_epoch"], facts["chip"],
            facts["validation_chips"], f"; going on after step {done}" if done else "",
        )  # fmt: skip

    return TrainWatch(
        planned=planned,
        advanced=lambda step, steps, note: progress.update(step / steps, note),
        stop=stop,
    )


def _print_trained(trained: Trained, training_set: TrainingSet | PatchSet) -> None:
    """What came out and where to look."""
    took = duration(trained.seconds)
    rows = [
        ("model", str(trained.model)),
        ("classes", ", ".join(training_set.legend.names)),
        ("steps", f"{trained.steps}{', finished before' if trained.before else f' in {took}'}"),
    ]
    if "validation_map" in trained.validation:
        held = trained.validation
        rows.append(
            ("held out", f"mAP {held['validation_map']:.1%}, micro F2 {held['validation_micro_f2']:.1%}")
        )
    if "micro_f2" in trained.test:
        rows.append(("tested", _tested(trained.test)))
    if "validation_miou" in trained.validation:
        miou, accuracy = trained.validation["validation_miou"], trained.validation["validation_accuracy"]
        those = "coarse labels" if trained.labels else "reference maps"
        rows.append(("held out", f"mIoU {miou:.1%}, accuracy {accuracy:.1%}, against {those}"))
        rows += _by_class(trained.validation)
    if "target_miou" in trained.test:
        miou, accuracy = trained.test["target_miou"], trained.test["target_accuracy"]
        rows.append(("target", f"mIoU {miou:.1%}, accuracy {accuracy:.1%}, against its labels"))
    if trained.labels:
        rows.append(("evidence", trained.labels["labels"]))
    rows += [
        ("look at", f"{trained.folder / 'curves.png'} and predictions-*.png"),
        ("map with", _map_command(training_set, trained.model)),
    ]
    print_table("trained", rows)


def _tested(test: dict[str, Any]) -> str:
    return (
        f"{test['patches']} patches: mAP {test['macro_ap']:.1%}, micro F2 {test['micro_f2']:.1%}; labels lie "
        f"{test['label_distance']:.2f} (chi-square, 0 to 1) from those of training"
    )


def _by_class(validation: dict[str, float]) -> list[tuple[str, str]]:
    """How well each class of the held-out labels is met, and which the network does not know."""
    prefix = "validation_iou/"
    ious = {name.removeprefix(prefix): v for name, v in validation.items() if name.startswith(prefix)}
    never = ", ".join(name for name, iou in ious.items() if not iou)
    rows = [("IoU", ", ".join(f"{name} {iou:.0%}" for name, iou in ious.items()))] if ious else []
    return rows + ([("never right", f"{never}: of these no labelled pixel was found")] if never else [])


def _map_command(training_set: TrainingSet | PatchSet, model: Path) -> str:
    """The command that maps the first image, of the target where there is one."""
    from citycover_models.data.pairs import PLACED
    from citycover_models.data.patch_set import PatchSet

    if isinstance(training_set, PatchSet):
        return f"citycover map SENTINEL2 --model {shlex.quote(str(model))} --out DIR"
    bands = (training_set.target or training_set).pairs[0].scene.groups[0].bands
    files = tuple(dict.fromkeys(band.path for band in bands))
    named = ["IMAGE"] if any(file.startswith(PLACED) for file in files) else files
    return f"citycover map {shlex.join(named)} --model {shlex.quote(str(model))} --out DIR"


def _print_plan(request: TrainRequest, as_json: bool) -> None:
    from citycover_models.data.patch_set import PatchSet
    from citycover_models.training.patches import describe_patches
    from citycover_models.training.start import coarse_material_of

    training_set = request.training_set
    if isinstance(training_set, PatchSet):
        facts = describe_patches(training_set, request.recipe)
        if as_json:
            print_json(facts)
            return
        counts = ", ".join(f"{name} {count}" for name, count in facts.pop("labels").items())
        print_table("patches", [("labels", counts), *_plain_rows(facts)])
        return
    material = coarse_material_of(request, training_set)
    facts = material.describe()
    chips = [
        {"image": training_set.pairs[c.pair].name, "row": c.window.row, "col": c.window.col}
        for c in material.plan.epoch(0)
    ]
    if as_json:
        print_json({**facts, "first_epoch": chips})
        return
    names = training_set.legend.names
    shares = ", ".join(f"{n} {s:.1%}" for n, s in zip(names, facts.pop("label_shares"), strict=True))
    target = facts.pop("target", None)
    rows = [("labels", shares), *_plain_rows(facts), *(_target_rows(target) if target else ())]
    first = "\n".join(f"{c['image']} at row {c['row']}, column {c['col']}" for c in chips[:5])
    print_table("samples", [*rows, ("first chips", first)])


def _plain_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    return [(key.replace("_", " "), str(value)) for key, value in facts.items()]


def _target_rows(target: dict[str, Any]) -> list[tuple[str, str]]:
    """What is planned for the target domain, and when it comes in."""
    images, steps = target["images"], target["steps"]
    own, other, mapped = (
        ", ".join(f"{scale:g}" for scale in target[key])
        for key in ("source_enlarged", "enlarged", "mapped_enlarged")
    )
    first, labelled = target["first_step"], target["labelled_at_steps"]
    rows = [
        ("target", "\n".join([*images[:5], *([f"and {len(images) - 5} more"] if len(images) > 5 else ())])),
        ("target judged", f"{target['judged']} of {len(images)}, by labels of its own"),
        ("target pixels", f"{target['gsd']:.3g} m, {target['gsd_ratio']:.3g} times those of the source"),
        ("enlarged", f"chips of the source by {own}, of the target by {other}; mapped by {mapped}"),
        ("target seen", "by no step" if first is None else f"after {first} of {steps} steps"),
    ]
    if labelled:
        rows.append(("target labelled", f"after {', '.join(map(str, labelled))} steps"))
    return rows
