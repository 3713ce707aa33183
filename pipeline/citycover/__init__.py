"""citycover: from imagery of a city to a finished, georeferenced land-cover product.

`map_scene` maps files into a product folder, as the command line does, and `plan_scene` says beforehand what
that takes; `predict_array` maps an xarray lazily; `Product` is what a map left, `open_product` opens it as a
dataset; `vectorize` makes polygons of it and `zonal_areas` areas; `compare` says what changed between two;
`collect` catalogues many; `Legend` says what its numbers mean.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from citycover.version import __version__ as __version__

if TYPE_CHECKING:
    from citycover.classes.legend import Legend as Legend
    from citycover.derive.areas import zonal_areas as zonal_areas
    from citycover.derive.compare import compare as compare
    from citycover.derive.vectorize import vectorize as vectorize
    from citycover.evidence.request import LabelRequest as LabelRequest
    from citycover.job.request import EngineOptions as EngineOptions
    from citycover.job.request import Imagery as Imagery
    from citycover.job.request import MapRequest as MapRequest
    from citycover.job.request import ProductOptions as ProductOptions
    from citycover.job.request import Where as Where
    from citycover.product.collection import collect as collect
    from citycover.product.open import open_product as open_product
    from citycover.product.product import Product as Product
    from citycover.run.arrays import predict_array as predict_array
    from citycover.run.forecast import plan_scene as plan_scene
    from citycover.run.map import map_scene as map_scene
    from citycover.scene.laying import Laying as Laying

_PLACES = {
    "EngineOptions": "job.request",
    "Imagery": "job.request",
    "LabelRequest": "evidence.request",
    "Laying": "scene.laying",
    "Legend": "classes.legend",
    "MapRequest": "job.request",
    "Product": "product.product",
    "ProductOptions": "job.request",
    "Where": "job.request",
    "collect": "product.collection",
    "compare": "derive.compare",
    "map_scene": "run.map",
    "open_product": "product.open",
    "plan_scene": "run.forecast",
    "predict_array": "run.arrays",
    "vectorize": "derive.vectorize",
    "zonal_areas": "derive.areas",
}

__all__ = ["__version__", *_PLACES]  # noqa: PLE0604 - the table's keys are names


def __dir__() -> list[str]:
    """What can be asked for, for those who look or complete."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `import citycover` stays quick."""
    if name in _PLACES:
        return getattr(import_module(f"citycover.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'citycover' has no attribute {name!r}")
