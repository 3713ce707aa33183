"""A finished product in the folder that a run was to write: is it the one that was asked for?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from citycover.errors import FinishedError, ProductError
from citycover.files.remote import RemotePath
from citycover.job.job import Job
from citycover.job.request import ProductOptions
from citycover.product.names import ZARR
from citycover.product.record import RunRecord, read_record


def refuse_finished(out: Path | RemotePath, job: Job, asked: ProductOptions) -> NoReturn:
    """Say of the finished product in a folder whether a run of the job would give it once more, as asked for.

    Raises:
        FinishedError: it would, pixel for pixel.
        ProductError: it would not, or the product does not say what it is.
    """
    record = read_record(out / "run.json")
    if different := (*differences(job, record), *_made_otherwise(out, record, asked)):
        raise ProductError(
            f"{out} holds a finished product that differs from this one in: {', '.join(different)}; give "
            "--overwrite to replace it, or choose another --out"
        )
    raise FinishedError(
        f"{out} holds this product already, finished and identical; give --skip-finished to "
        "take that for success, or --overwrite to map again"
    )


def _made_otherwise(out: Path | RemotePath, record: RunRecord, asked: ProductOptions) -> Iterator[str]:
    """Options of the product, of the same pixels, that the finished one was not made by."""
    if "zarr" in asked.formats and not (out / ZARR).exists():
        yield "format"
    # What an earlier version did not write down is taken as it is asked for.
    if asked.compress != record.given.request.get("product", {}).get("compress", asked.compress):
        yield "compress"
    if asked.verify_seams and record.seams is None:
        yield "verify_seams"


def differences(job: Job, record: RunRecord) -> tuple[str, ...]:
    """Parts of the identity that a run of the job would not share with a finished one.

    What a run settles by trials (window, batch, form, precision, blocks) is taken as the earlier run settled
    it, where the request leaves it open or asks for what that one was asked for. Files of the same names are
    told by content: the image of another month may be as large as that of the last.
    """
    given = record.given
    names = [name for name, value in job.given.items() if given.identity.get(name) != value]
    if given.identity.get("plan") not in _plans(job, given.plan, given.request.get("engine", {})):
        names.append("plan")
    files = (*given.inputs, *(record.labels.files if record.labels else ()))
    changed = [file.path for file in files if not file.holds()]
    return (*names, *(f"content of {path}" for path in changed[:5]))


def _plans(job: Job, settled: Mapping[str, Any], asked: Mapping[str, Any]) -> set[str]:
    """Identities of the plans that the job might settle on, being what the earlier run settled on."""

    def kept(name: str, value: Any) -> Any:
        wanted = getattr(job.engine, name)
        return value if wanted in (None, "auto", asked.get(name)) else wanted

    batch, precision = kept("batch", settled["batch"]), kept("precision", settled["precision"])
    form = kept("form", settled.get("form", "torchscript"))
    block = tuple(settled["block_shape"]) if job.engine.block is None else None
    # A window is cut where the scene is smaller; the plan shows what is left of it.
    windows = {kept("window", None), kept("window", max(settled["window"]))}
    plans = [replace(job.plan_in(window, batch, precision), form=form) for window in windows]
    return {(replace(p, block_shape=block) if block else p).identity for p in plans}
