"""A scene into a product folder of this machine.

prepare (describe, choose the model, plan) -> settle (device, precision, batch) -> blocks into the working
store -> publish. Preparing reads no pixel; everything after it is recorded in `run.json`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from citycover.errors import ChangedError, CitycoverError, FinishedError, HeldError, ProductError
from citycover.files.failures import machine_errors
from citycover.files.remote import Place
from citycover.job.job import prepare_request
from citycover.job.request import MapRequest
from citycover.job.watch import Watch
from citycover.product.earlier import refuse_finished
from citycover.product.folder import check_folder, claim_folder, holds_product
from citycover.product.product import Product
from citycover.run.warned import heard_warnings
from citycover.store.far import FarWork

logger = logging.getLogger(__name__)


def map_into(
    request: MapRequest, out: Path, watch: Watch, *, overwrite: bool, far: FarWork | None = None
) -> Product:
    """Map into `out`, wherever the request says that the product goes in the end: see `map_scene`.

    Blocks are kept there or in `far`, which stays.
    """
    begin = time.perf_counter()
    finished = not overwrite and holds_product(out)
    check_folder(out, overwrite=overwrite or finished)
    with heard_warnings() as warnings:
        job = prepare_request(request)
        if finished:
            refuse_finished(out, job, request.product)
        from citycover.run.job import run_job  # torch is imported here, after everything cheap has passed

        with (
            machine_errors(out),
            claim_folder(out, overwrite=overwrite, restart=request.product.restart, far=far) as folder,
        ):
            return run_job(request, job, folder, watch, begin, warnings)


def first_allowed(ways: Iterable[Callable[[], Product]], out: Place) -> Product:
    """The product of the first way of making it that what lies in `out` allows.

    Args:
        ways: each goes further than the one before in what it does with what lies there.
        out: where it is made. The very product that was asked for may lie there already.

    Raises:
        HeldError: another run writes there.
        CitycoverError: no way is allowed, or something else is wrong.
    """
    refused: CitycoverError | None = None
    for way in ways:
        try:
            return way()
        except FinishedError:
            return Product.read(out)
        except HeldError:
            raise
        except (ProductError, ChangedError) as error:  # of another image, model, setting
            logger.info("%s", error)
            refused = error
    assert refused is not None, "there is a way"
    raise refused
