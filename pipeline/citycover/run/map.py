"""map_scene: from files to a product folder. The facade for the command line and for Python users.

prepare (describe, choose the model, plan) -> settle (device, precision, batch) -> blocks into the working
store -> publish. Preparing reads no pixel; everything after it is recorded in `run.json`.
"""

from __future__ import annotations

import logging
import time

from citycover.files.failures import machine_errors
from citycover.job.job import prepare, warn_of_collar
from citycover.job.request import MapRequest
from citycover.job.watch import Watch
from citycover.product.earlier import refuse_finished
from citycover.product.folder import check_folder, claim_folder, holds_product
from citycover.product.product import Product
from citycover.run.warned import heard_warnings

logger = logging.getLogger(__name__)


def map_scene(request: MapRequest, watch: Watch | None = None) -> Product:
    """Map a scene into a product folder; goes on where an unfinished run of the same identity stopped.

    Raises:
        FinishedError: the folder holds this very product.
        HeldError: another run writes into the folder.
        CitycoverError: anything else the user can mend; nothing that was finished is lost.
        StoppedError: `watch.stop` was set.

    >>> import tempfile, citycover
    >>> from pathlib import Path
    >>> from citycover.synth.write import write_city
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = write_city(folder / "city", 128)
    >>> imagery = citycover.Imagery((str(folder / "city/image.tif"),))
    >>> request = citycover.MapRequest(imagery, folder / "product")
    >>> product = citycover.map_scene(request)
    >>> product.run.given.model.name, (product.folder / "landcover.tif").is_file()
    ('spectral-rgbn', True)
    >>> {name: round(area) for name, area in product.areas().items()} == {
    ...     name: round(share * 128 * 128) for name, share in product.run.shares.items()
    ... }
    True
    """
    begin = time.perf_counter()
    watch = watch or Watch()
    finished = not request.product.overwrite and holds_product(request.out)
    check_folder(request.out, overwrite=request.product.overwrite or finished)
    with heard_warnings() as warnings:
        job = prepare(
            request.imagery,
            request.model,
            request.where,
            request.engine,
            request.labels,
            request.require_hash,
            request.layers,
        )
        if finished:
            refuse_finished(request.out, job, request.product.formats)
        if request.imagery.nodata is None and (warning := warn_of_collar(job.scene)):
            logger.warning(warning)
        from citycover.run.job import run_job  # torch is imported here, after everything cheap has passed

        with (
            machine_errors(request.out),
            claim_folder(
                request.out, overwrite=request.product.overwrite, restart=request.product.restart
            ) as folder,
        ):
            return run_job(request, job, folder, watch, begin, warnings)
