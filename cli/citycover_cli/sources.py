"""What `citycover train` learns from, in its options, and which of them belong to which kind of training.

options ─▶ Sources ─▶ kind of the recipe ─▶ options of another kind are refused ─▶ TrainingSet or PatchSet

An option of another kind would change nothing, and nothing would say so.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from citycover.errors import ConfigError
from citycover_cli import options

if TYPE_CHECKING:
    from citycover.job.request import Imagery
    from citycover_models.data.patch_set import PatchSet
    from citycover_models.data.prepare import TrainingSet
    from citycover_models.training.recipe import Recipe


class Kind(Enum):
    """What a recipe learns from; its value says how to get there."""

    COARSE = "a recipe that learns from one domain (--recipe l2hnet-light)"
    DOMAINS = "a recipe that adapts (--recipe lovecs-light)"
    PATCHES = "a band-fusion recipe (--recipe band-fusion-light) with --folder BIGEARTHNET"


_LEARNS = {
    Kind.COARSE: "images with coarse labels, in one domain",
    Kind.DOMAINS: "two domains: images with coarse labels, and targets without",
    Kind.PATCHES: "--folder BIGEARTHNET, which has bands and labels of its own",
}

_READING = tuple(inspect.signature(options.reading).parameters)

_BOTH, _BIGEARTHNET = (Kind.COARSE, Kind.DOMAINS), (Kind.PATCHES,)

_BELONG: tuple[tuple[tuple[str, ...], str, tuple[Kind, ...]], ...] = (
    (
        ("image", "labels", "legend", "agree", "listing", *_READING),
        "coarse labels",
        _BOTH,
    ),
    (("truth_legend",), "coarse labels of one domain", (Kind.COARSE,)),
    (("target", "target_labels"), "two domains", (Kind.DOMAINS,)),
    (("region", "test_region", "share", "shards"), "BigEarthNet", _BIGEARTHNET),
)
"""Options, what they are for, and the kinds that look at them; all kinds look at those that are not here."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The options that say what is learned from."""

    said: dict[str, str]
    """Arguments that the command line names -> how an option is called."""
    values: dict[str, Any]
    """Each argument of `sources` but the context."""


def sources(
    context: typer.Context,
    image: Annotated[
        list[str] | None,
        typer.Option(help="Image to learn from; give several. A file a band: a.tif,b.tif,c.tif."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|NAME", help="Coarse label raster, or a product by name (worldcover); give several."
        ),
    ] = None,
    legend: Annotated[
        list[str] | None,
        typer.Option(
            help="Legend of the labels: one for all, or one each in order; products by name know it."
        ),
    ] = None,
    to: Annotated[str | None, typer.Option(help="Legend to learn; without it, that of the labels.")] = None,
    agree: Annotated[int, typer.Option(min=1, help="Label rasters that must agree on a pixel.")] = 1,
    truth_legend: Annotated[
        str | None,
        typer.Option(
            help="Legend of the finer truth that a list or folder has: the network is judged by it."
        ),
    ] = None,
    listing: Annotated[
        Path | None, typer.Option("--list", help="CSV of image_fn,label_fn[,gt_label_fn].")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder in a published layout.")] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="bigearthnet, chesapeake, paraformer, skwanda, folders; two domains: cross-sensor, "
            "gaofen-sentinel, loveda-to-urban, loveda-to-rural; found out without it."
        ),
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Image without labels that is to be mapped; give several.")
    ] = None,
    target_labels: Annotated[
        list[str] | None,
        typer.Option(help="Labels of the targets: maps are judged by them, nothing is learned from them."),
    ] = None,
    region: Annotated[
        list[str] | None, typer.Option(help="BigEarthNet: region to train on; give several. All without it.")
    ] = None,
    test_region: Annotated[
        list[str] | None, typer.Option(help="BigEarthNet: region to test on; those of --region without it.")
    ] = None,
    share: Annotated[float, typer.Option(help="BigEarthNet: share of the training patches.")] = 1.0,
    shards: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="BigEarthNet: decode patches once into this folder, and read there."
        ),
    ] = None,
) -> Sources:
    """The options of Sources."""
    values = {name: value for name, value in locals().items() if name != "context"}
    said = {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if parameter.name and (source := context.get_parameter_source(parameter.name))
        if source.name != "DEFAULT"
    }
    return Sources(said, values)


GROUP: options.Groups = {Sources: ("What is learned from", sources)}
"""For `options.grouped`."""


def prepare(given: Sources, recipe: Recipe, seen: Imagery, seed: int) -> TrainingSet | PatchSet:
    """What the options name, as a training takes it.

    Args:
        given: options.
        recipe: whose kind of training it is.
        seen: how images are read.
        seed: of the draw of patches.

    Raises:
        CitycoverError: options of another kind of training, or anything else that the user can mend.
    """
    from citycover_models.data.sources import find_sources, prepare_sources

    v = given.values
    kind = _kind_of(recipe)
    _refuse_others(given.said, v["layout"], kind, recipe)
    if kind is Kind.PATCHES:
        return _patches(v, seed)
    found = find_sources(
        images=v["image"] or (), labels=v["labels"] or (), listing=v["listing"], folder=v["folder"],
        layout=v["layout"], targets=v["target"] or (), target_labels=v["target_labels"] or (),
    )  # fmt: skip
    return prepare_sources(
        found, v["legend"] or (), v["to"], agree=v["agree"], seen=seen, truth_legend=v["truth_legend"]
    )


def _kind_of(recipe: Recipe) -> Kind:
    from citycover_models.catalogue.registry import is_fusion

    if is_fusion(recipe.network):
        return Kind.PATCHES
    return Kind.DOMAINS if recipe.method.adapts else Kind.COARSE


def _refuse_others(said: dict[str, str], layout: str | None, kind: Kind, recipe: Recipe) -> None:
    """Raise ConfigError if an option is given that this kind of training does not look at."""
    from citycover_models.data.layouts import BIGEARTHNET

    of_layout = () if layout is None else _BIGEARTHNET if layout == BIGEARTHNET else _BOTH
    wrong, way = [], ""
    for names, what, kinds in _BELONG:
        found = [said[name] for name in names if name in said]
        if of_layout == kinds:
            found.append(f"--layout {layout}")
        if found and kind not in kinds:
            wrong.append(f"{', '.join(found)} {'are' if len(found) > 1 else 'is'} for {what}")
            way = way or kinds[0].value
    if wrong:
        raise ConfigError(
            f"{'; '.join(wrong)}; recipe {recipe.name} (network {recipe.network}, method "
            f"{recipe.method.name}) learns from {_LEARNS[kind]}; leave out what is not for it, or take {way}"
        )


def _patches(values: dict[str, Any], seed: int) -> PatchSet:
    """Patches of a folder, as `prepare_patches` chooses them."""
    from citycover_models.data.patch_set import prepare_patches

    if values["folder"] is None:
        raise ConfigError("band-fusion networks learn from BigEarthNet; give its folder by --folder DIR")
    return prepare_patches(
        values["folder"],
        to=values["to"],
        regions=values["region"] or (),
        test_regions=values["test_region"] or (),
        share=values["share"],
        seed=seed,
        shards=values["shards"],
    )
