"""Tables from ids to ranks, for any legend and any raster of it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from strategies import class_rasters, legends

from citycover.classes.table import NO_CLASS, ClassTable


@given(st.data())
def test_ranks_are_places_in_the_legend(data: st.DataObject) -> None:
    legend = data.draw(legends())
    raster = data.draw(class_rasters(legend))
    ranks = ClassTable.onto(legend).ranks_of(raster)
    known = np.isin(raster, legend.ids)
    np.testing.assert_array_equal(ranks[~known], NO_CLASS)
    np.testing.assert_array_equal(np.array(legend.ids)[ranks[known]], raster[known])


@given(st.data())
def test_ranks_are_places_in_another_order_and_what_it_leaves_out_is_no_class(data: st.DataObject) -> None:
    legend = data.draw(legends())
    raster = data.draw(class_rasters(legend))
    order = data.draw(st.lists(st.sampled_from(legend.ids), unique=True, min_size=1))
    ranks = ClassTable.onto(legend, {id_: id_ for id_ in np.unique(raster).tolist()}, order).ranks_of(raster)
    known = np.isin(raster, order)
    np.testing.assert_array_equal(ranks[~known], NO_CLASS)
    np.testing.assert_array_equal(np.array(order)[ranks[known]], raster[known])
