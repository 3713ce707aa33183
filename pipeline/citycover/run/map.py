"""map_scene: from files to a product. The facade for the command line and for Python users."""

from __future__ import annotations

from citycover.files.remote import RemotePath, place_of
from citycover.job.request import MapRequest
from citycover.job.watch import Watch
from citycover.product.product import Product
from citycover.run.folder import map_into
from citycover.run.remote import map_to_store


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
    if isinstance(place, RemotePath):
        return map_to_store(request, place, watch)
    return map_into(request, place, watch, overwrite=request.product.overwrite)
