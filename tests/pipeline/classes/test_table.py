"""Tables from ids to ranks, for any legend and any raster of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import class_rasters, legends

from citycover.classes.legend import Legend, LegendClass
from citycover.classes.table import NO_CLASS, ClassTable, common_legend, table_between
from citycover.errors import ConfigError


@given(st.data())
def test_ranks_are_places_in_the_legend(data: st.DataObject) -> None:
    legend = data.draw(legends())
    raster = data.draw(class_rasters(legend))
    ranks = ClassTable.onto(legend).ranks_of(raster)
    known = np.isin(raster, legend.ids)
    np.testing.assert_array_equal(ranks[~known], NO_CLASS)
    np.testing.assert_array_equal(np.array(legend.ids)[ranks[known]], raster[known])


def own(*names: str, **remap: dict[int, int]) -> Legend:
    """A legend of this name, whatever its classes are."""
    classes = tuple(LegendClass(id=i, name=name, color="#123456") for i, name in enumerate(names, start=1))
    return Legend(name="own", nodata=0, classes=classes, remap=remap)


@pytest.mark.parametrize(
    "other", [own("Tree", "Water"), own("Water", "Tree", "Bare"), own("Water"), own("Water", "Trees")]
)
def test_legends_of_one_name_and_other_classes_are_two(other: Legend) -> None:
    legend = own("Water", "Tree")
    for joined in (common_legend, table_between):
        with pytest.raises(ConfigError, match=r"two legends are called 'own'.*: \d is "):
            joined(legend, other)


def test_legends_of_one_name_and_the_same_classes_are_one() -> None:
    one, other = own("Water", "Tree"), own("water", "tree")
    assert common_legend(one, other) is one
    assert table_between(other, one) == {1: 1, 2: 2, 0: 0}


def test_a_table_joins_legends_of_one_name() -> None:
    before, after = own("Tree", "Water"), own("Water", "Tree", own={1: 2, 2: 1})
    assert common_legend(before, after) is common_legend(after, before) is after
    assert table_between(before, after)[1] == 2 and table_between(after, after)[1] == 1


@given(st.data())
def test_ranks_are_places_in_another_order_and_what_it_leaves_out_is_no_class(data: st.DataObject) -> None:
    legend = data.draw(legends())
    raster = data.draw(class_rasters(legend))
    order = data.draw(st.lists(st.sampled_from(legend.ids), unique=True, min_size=1))
    ranks = ClassTable.onto(legend, {id_: id_ for id_ in np.unique(raster).tolist()}, order).ranks_of(raster)
    known = np.isin(raster, order)
    np.testing.assert_array_equal(ranks[~known], NO_CLASS)
    np.testing.assert_array_equal(np.array(order)[ranks[known]], raster[known])
