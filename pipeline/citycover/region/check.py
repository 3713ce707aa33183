"""What a region file says that no scene can be mapped by, here or anywhere: refused before one is tried."""

from __future__ import annotations

from pathlib import Path

from citycover.derive.features import check_ending
from citycover.derive.refine import check_steps
from citycover.derive.table import check_table
from citycover.derive.zones import check_zones
from citycover.job.job import check_engine
from citycover.job.labels import check_label_request
from citycover.job.request import EngineOptions
from citycover.model.form import check_form
from citycover.model.joint import MapModel, read_map_model
from citycover.plan.layers import layers_of
from citycover.region.config import Region
from citycover.scene.area import check_area_file
from citycover.scene.assemble import read_lattice
from citycover.scene.choose import check_count
from citycover.scene.lattice import check_lattice


def check_region(region: Region) -> None:
    """Refuse what the region file, the files that it names and its model show to be wrong for every scene.

    What is wrong with one scene alone is told of that scene.

    Raises:
        CitycoverError: a file is not there or none that is asked for, or an option goes with no scene.
    """
    model = None if region.model is None else read_map_model(region.model, region.tta)
    _check_map(region, model)
    if region.refine is not None:
        check_steps(region.refine, model.card.legend if model else None)
    if region.polygons is not None:
        check_ending(Path(f"polygons.{region.polygons.format}"))
    if region.areas is not None:
        check_table(Path(f"areas.{region.areas.format}"))
        if region.areas.zones is not None:
            check_zones(region.areas.zones, region.areas.by)


def check_machine(engine: EngineOptions) -> None:
    """Refuse a device that is not there, a form that cannot run on it, a cluster that does not answer.

    Workers look for themselves whether they have the device and the form.

    Raises:
        MachineError: what is asked for is not there.
    """
    if engine.scheduler:
        from citycover.compute.cluster.connect import open_cluster  # dask, which others do without

        with open_cluster(None, engine.scheduler):
            return
    if engine.workers:
        return
    from citycover.machine.device import choose_device  # torch, which a forecast does without

    device = choose_device(engine.device)
    if engine.form != "auto":
        check_form(engine.form, device.type)


def _check_map(region: Region, model: MapModel | None) -> None:
    """What the maps are asked for; of the model nothing where it depends on the scene."""
    trust, laying = region.imagery.trust, region.imagery.laying
    check_engine(region.engine, model.card if model else None)
    check_lattice(laying, read_lattice(laying, trust))
    if region.where.aoi is not None:
        check_area_file(region.where.aoi)
    several = region.tta != "none" if model is None else not model.alone
    layers_of(model.card.task if model else "classes", region.layers, several=several)
    if model is not None and region.imagery.bands is not None and len(model.card.groups) == 1:
        check_count(region.imagery.bands, model.card.groups[0].bands, model.card.called)
    if region.labels is not None:
        check_label_request(region.labels, model.card if model else None, trust)
