"""map_scene: from files to a product. The facade for the command line and for Python users."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from citycover.errors import CitycoverError, FinishedError
from citycover.files.remote import RemotePath, place_of
from citycover.job.request import MapRequest
from citycover.job.watch import Watch
from citycover.machine.stop import PartialStop
from citycover.product.folder import check_in_no_product
from citycover.product.product import Product
from citycover.run.folder import map_into
from citycover.run.remote import map_to_store
from citycover.store.far import FarWork, far_place

logger = logging.getLogger(__name__)


def map_scene(request: MapRequest, watch: Watch | None = None) -> Product:
    """Map a scene into a folder, here or in an object store; goes on where a run of the same
    identity stopped.

    Raises:
        FinishedError: the folder holds this very product.
        HeldError: another run writes into the folder.
        CitycoverError: anything else the user can mend; nothing that was finished is lost.
        StoppedError: `watch.stop` was set.

    Examples:
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
    place, watch = place_of(request.out), watch or Watch()
    if request.engine.work is not None:  # who loses its blocks to another run ends alone
        watch = replace(watch, stop=PartialStop(watch.stop))
    with _far_work(request, watch) as far:
        try:
            if isinstance(place, RemotePath):
                product = map_to_store(request, place, watch, far)
            else:
                product = map_into(request, place, watch, overwrite=request.product.overwrite, far=far)
        except FinishedError:  # by a run that was ended before it could remove its blocks
            _drop(far)
            raise
        _drop(far)
    return product


def _far_work(request: MapRequest, watch: Watch) -> AbstractContextManager[FarWork | None]:
    """Where blocks are kept, held; None: with the product, or among the caches."""
    if request.engine.work is None:
        return nullcontext()
    prefix = place_of(request.engine.work)
    assert isinstance(prefix, RemotePath), "the request has looked"
    check_in_no_product(prefix)
    return FarWork(far_place(prefix, request.out), watch.stop)


def _drop(far: FarWork | None) -> None:
    """Remove the blocks of what is published; that they stay is no failure of the map."""
    if far is None:
        return
    try:
        far.drop()
    except CitycoverError as error:
        logger.warning("blocks of the finished product are left (%s); the same command removes them", error)
