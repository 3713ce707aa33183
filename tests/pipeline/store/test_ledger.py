"""The ledger: an entry comes back as it was written, whatever stands in a hole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from strategies import holes

from citycover.store.ledger import BlockRecord
from citycover.store.shard import ShardSeal

counts = st.dictionaries(st.text(), st.integers(0, 2**32 - 1), max_size=3)
places = st.integers(0, 10**6)

records = st.builds(
    BlockRecord,
    st.tuples(places, places),
    places,
    seconds=st.dictionaries(st.text(), st.floats(0, 1e9), max_size=3),
    holes=st.lists(holes(), max_size=3).map(tuple),
    shards=st.dictionaries(st.text(), st.builds(ShardSeal, places, st.integers(0, 2**32 - 1)), max_size=3),
    counts=counts,
)


@given(records)
def test_an_entry_is_read_as_it_was_written(record: BlockRecord) -> None:
    assert BlockRecord.from_json(record.to_json()) == record
