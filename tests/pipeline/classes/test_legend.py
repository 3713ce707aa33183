import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from citycover.classes.legend import Legend, LegendClass, Merge, legend_names, read_legend
from citycover.classes.raster import refuse_unknown
from citycover.classes.table import NO_CLASS, UNKNOWN, ClassTable
from citycover.errors import ConfigError
from citycover.files.configs import config_path


@pytest.mark.parametrize("name", legend_names())
def test_every_built_in_legend_is_valid(name: str) -> None:
    legend = read_legend(name)
    assert len(legend.classes) >= 2 and legend.title and legend.source
    assert len(set(legend.names)) == len(legend.names)
    for other in legend.remap:
        source = other.partition(":")[0]
        known = read_legend(source).ids if config_path("legends", f"{source}.toml").is_file() else ()
        assert set(known) <= set(legend.remap[other]), f"{other} has ids that the table does not know"


def test_the_published_example_patch_of_bigearthnet() -> None:
    old, new = read_legend("bigearthnet43"), read_legend("bigearthnet19")
    patch = ["Broad-leaved forest", "Natural grassland", "Transitional woodland/shrub"]
    ids = np.array([old.ids[old.names.index(name)] for name in patch])
    assert remapped(new, "bigearthnet43", ids).tolist() == [8, 11, 13]
    codes = np.array([311, 321, 324])
    assert remapped(new, "corine", codes).tolist() == [8, 11, 13]
    assert new.merged("bigearthnet43").dropped == (3, 4, 5, 6, 7, 8, 9, 10, 30, 32, 37)


def test_the_four_base_classes_are_merged_from_every_coarse_product() -> None:
    base4 = read_legend("base4")
    nlcd = base4.merged("nlcd")
    assert nlcd.classes == {
        1: (11,),
        2: (41, 42, 43, 90),
        3: (31, 52, 71, 81, 82, 95),
        4: (21, 22, 23, 24),
    }
    assert nlcd.dropped == (0, 12)  # no data; perennial ice and snow
    worldcover = base4.merged("worldcover").classes
    assert worldcover == {1: (80, 90), 2: (10, 95), 3: (20, 30, 40, 100), 4: (50, 60)}
    products = ("nlcd", "cclc", "worldcover", "esri", "fromglc10", "glc_fcs30", "openearthmap", "globeland30")
    assert all(base4.merged(product).classes[2] for product in products)


def test_a_practice_city_and_a_built_in_map_of_it_are_the_same_four_base_classes() -> None:
    base4, five = read_legend("base4"), read_legend("landcover5")
    by_way = {i: base4.table_from("landcover5")[k] for i, k in five.table_from("city").items()}
    assert by_way == base4.table_from("city")


def test_a_contested_row_is_a_named_variant() -> None:
    base4 = read_legend("base4")
    assert (base4.table_from("cclc")[4], base4.table_from("cclc:barren_is_built_up")[4]) == (3, 4)
    assert (base4.table_from("nlcd")[90], base4.table_from("nlcd:wet_is_water")[90]) == (2, 1)
    assert base4.table_from("worldcover:bare_is_low_vegetation")[60] == 3
    ids = np.array([1, 8, 5])
    assert remapped(base4, "openearthmap:bare_is_low_vegetation", ids).tolist() == [3, 4, 2]


def test_both_chesapeake_legends_agree_on_a_real_tile(real_data) -> None:
    folder = real_data / "landcover" / "chesapeake_1m"
    tiles = [next(folder.glob(f"Baywide_{kind}_*.tif")) for kind in ("7class", "13Class")]
    seven, thirteen = (rasterio.open(tile).read(1, window=Window(0, 0, 10_000, 10_000)) for tile in tiles)
    assert (remapped(read_legend("chesapeake7"), "chesapeake13", thirteen) == seven).all()


def remapped(legend: Legend, other: str, ids: np.ndarray) -> np.ndarray:
    """Ids of another legend as ids of this one, its nodata for what is dropped."""
    ranks = ClassTable.onto(legend, legend.table_from(other)).ranks_of(ids)
    assert (ranks != UNKNOWN).all()
    return np.array([*legend.ids, legend.product_nodata])[ranks]  # NO_CLASS = -1 picks the last


def small() -> Legend:
    classes = (LegendClass(id=1, name="wet", color="#0000FF"), LegendClass(id=2, name="dry", color="#c0a080"))
    return Legend(name="small", nodata=0, classes=classes, remap={"big": {10: 1, 11: 1, 20: 2, 30: 0}})


def test_labels_are_remapped_and_unknown_ids_listed_with_their_counts() -> None:
    labels = np.array([[10, 11], [20, 30], [99, 99]])
    assert remapped(small(), "big", labels[:2]).tolist() == [[1, 1], [2, 0]]
    table = ClassTable.onto(small(), small().table_from("big"))
    assert table.ranks_of(labels).tolist() == [[0, 0], [1, NO_CLASS], [UNKNOWN, UNKNOWN]]
    with pytest.raises(ConfigError, match=r"99 \(2 px\)"):
        refuse_unknown("a.tif", "labels", table, {10: 1, 99: 2})
    with pytest.raises(ConfigError, match="no remap table from 'other'"):
        small().table_from("other")


def test_a_legend_says_what_was_merged_and_what_was_dropped() -> None:
    assert small().merged("big") == Merge({1: (10, 11), 2: (20,)}, dropped=(30,))


@pytest.mark.parametrize("name", legend_names())
def test_a_merge_accounts_for_every_id_of_its_table_once(name: str) -> None:
    legend = read_legend(name)
    for other, table in legend.remap.items():
        merge = legend.merged(other)
        assert sorted([*merge.dropped, *(i for ids in merge.classes.values() for i in ids)]) == sorted(table)


def test_colours_are_numbers() -> None:
    assert small().classes[0].rgb == (0, 0, 255)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("classes = 3", "classes"),
        ('[[classes]]\nid = 1\nname = "a"\ncolor = "red"', "#rrggbb"),
        ('colour = 1\n[[classes]]\nid = 1\nname = "a"\ncolor = "#000000"', "colour"),
        ('nodata = 1\n[[classes]]\nid = 1\nname = "a"\ncolor = "#000000"', "also a class"),
        ('[[classes]]\nid = 1\nname = "a"\ncolor = "#000000"\n[remap.b]\n3 = 7', "no class here"),
        ("][", "not TOML"),
    ],
)
def test_a_legend_file_that_makes_no_sense_is_refused(tmp_path, text: str, word: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=word):
        read_legend(path)


def test_a_legend_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ConfigError, match="landcover5"):
        read_legend("atlantis")
