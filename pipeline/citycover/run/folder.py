"""A scene into a product folder of this machine.

prepare (describe, choose the model, plan) -> settle (device, precision, batch) -> blocks into the working
store -> publish. Preparing reads no pixel; everything after it is recorded in `run.json`.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from citycover.files.failures import machine_errors
from citycover.job.job import prepare_request, warn_of_collar
from citycover.job.request import MapRequest
from citycover.job.watch import Watch
from citycover.product.earlier import refuse_finished
from citycover.product.folder import check_folder, claim_folder, holds_product
from citycover.product.product import Product
from citycover.run.warned import heard_warnings

logger = logging.getLogger(__name__)


def map_into(request: MapRequest, out: Path, watch: Watch, *, overwrite: bool) -> Product:
    """Map into `out`, wherever the request says that the product goes in the end: see `map_scene`."""
    begin = time.perf_counter()
    finished = not overwrite and holds_product(out)
    check_folder(out, overwrite=overwrite or finished)
    with heard_warnings() as warnings:
        job = prepare_request(request)
        if finished:
            refuse_finished(out, job, request.product.formats)
        if request.imagery.nodata is None and (warning := warn_of_collar(job.scene)):
            logger.warning(warning)
        from citycover.run.job import run_job  # torch is imported here, after everything cheap has passed

        with (
            machine_errors(out),
            claim_folder(out, overwrite=overwrite, restart=request.product.restart) as folder,
        ):
            return run_job(request, job, folder, watch, begin, warnings)
