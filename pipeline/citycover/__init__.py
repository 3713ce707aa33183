"""citycover: from imagery of a city to a finished, georeferenced land-cover product.

`map_scene` maps files into a product folder, as the command line does; `predict_array` maps an xarray lazily;
`open_product` opens a product folder as a dataset.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from citycover.lazy import open_product, predict_array
    from citycover.product import MapRequest, map_scene

__version__ = "0.1.0"
__all__ = ["MapRequest", "__version__", "map_scene", "open_product", "predict_array"]

_PLACES = {
    "MapRequest": "product",
    "map_scene": "product",
    "open_product": "lazy",
    "predict_array": "lazy",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `import citycover` stays quick."""
    if name in _PLACES:
        return getattr(import_module(f"citycover.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'citycover' has no attribute {name!r}")
