"""citycover: from imagery of a city to a finished, georeferenced land-cover product.

`map_scene` maps files into a product folder, as the command line does; `predict_array` maps an xarray lazily;
`open_product` opens a product folder as a dataset.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from citycover.version import __version__

if TYPE_CHECKING:
    from citycover.job.request import MapRequest
    from citycover.product.open import open_product
    from citycover.run.arrays import predict_array
    from citycover.run.map import map_scene

__all__ = ["MapRequest", "__version__", "map_scene", "open_product", "predict_array"]

_PLACES = {
    "MapRequest": "job.request",
    "map_scene": "run.map",
    "open_product": "product.open",
    "predict_array": "run.arrays",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `import citycover` stays quick."""
    if name in _PLACES:
        return getattr(import_module(f"citycover.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'citycover' has no attribute {name!r}")
