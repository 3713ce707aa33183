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
