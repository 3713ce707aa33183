"""A scene into an object store: mapped into a folder of this machine, then put there.

The folder lies among the caches, under a name that the place decides. So an interrupted run goes on, whether
it was stopped while it mapped or while it put files there, and it goes when the product is published.
"""

from __future__ import annotations

import hashlib
import shutil
from functools import partial
from pathlib import Path

from citycover.errors import HeldError
from citycover.files.cache import cache_folder
from citycover.files.failures import machine_errors
from citycover.files.lock import RunLock
from citycover.files.remote import RemotePath
from citycover.job.job import prepare_request
from citycover.job.request import MapRequest
from citycover.job.watch import Watch
from citycover.product.earlier import refuse_finished
from citycover.product.folder import holds_product
from citycover.product.product import Product
from citycover.product.upload import RemoteFolder, upload
from citycover.run.folder import first_allowed, map_into
from citycover.store.far import FarWork
from citycover.store.work import WORK, is_store


def map_to_store(request: MapRequest, place: RemotePath, watch: Watch, far: FarWork | None) -> Product:
    """Map, and put the product there: see `map_scene`."""
    here = _here(place)
    _look(request, place)
    with machine_errors(here), _alone(here, place):
        product = _mapped(request, here / "product", watch, far)
        # Hours may have passed since the first look.
        published = upload(product, _look(request, place), here / "uploaded.jsonl", watch.stop)
        shutil.rmtree(here)
    return published


def _look(request: MapRequest, place: RemotePath) -> RemoteFolder:
    """What is there; raises where it must stay."""
    folder = RemoteFolder.look(place)
    if folder.finished and not request.product.overwrite:
        refuse_finished(place, prepare_request(request), request.product)
    return folder


def _mapped(request: MapRequest, out: Path, watch: Watch, far: FarWork | None) -> Product:
    """The product on this machine: made now, or by a run whose upload was interrupted, if it is the same."""
    ways = (
        partial(map_into, request, out, watch, overwrite=overwrite, far=far) for overwrite in (False, True)
    )
    return first_allowed(ways, out)


def begun_here(place: RemotePath) -> bool:
    """Whether this machine has begun a product that is to go there, and not finished it."""
    made = _here(place) / "product"
    return holds_product(made) or is_store(made / WORK)


def _here(place: RemotePath) -> Path:
    return cache_folder() / "out" / hashlib.sha256(str(place).encode()).hexdigest()[:16]


def _alone(here: Path, place: RemotePath) -> RunLock:
    """Excludes other runs of this machine that go to the same place.

    Raises:
        HeldError: there is one.
    """
    here.mkdir(parents=True, exist_ok=True)
    lock = RunLock(here / "lock")
    try:
        lock.acquire()
    except HeldError:
        raise HeldError(
            f"another run is on its way to {place}; wait for it, stop it, or choose another --out"
        ) from None
    return lock
