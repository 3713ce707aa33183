import numpy as np
import pytest

from citycover.configs import config_path
from citycover.errors import ConfigError
from citycover.legend import Legend, LegendClass, legend_names, read_legend


@pytest.mark.parametrize("name", legend_names())
def test_every_built_in_legend_is_valid(name: str) -> None:
    legend = read_legend(name)
    assert len(legend.classes) >= 2 and legend.title and legend.source
    assert len(set(legend.names)) == len(legend.names)
    for other in legend.remap:
        known = read_legend(other).ids if config_path("legends", f"{other}.toml").is_file() else ()
        assert set(known) <= set(legend.remap[other]), f"{other} has ids that the table does not know"


def test_the_published_example_patch_of_bigearthnet() -> None:
    old, new = read_legend("bigearthnet43"), read_legend("bigearthnet19")
    patch = ["Broad-leaved forest", "Natural grassland", "Transitional woodland/shrub"]
    ids = np.array([old.ids[old.names.index(name)] for name in patch])
    assert new.remap_from("bigearthnet43", ids, None).tolist() == [8, 11, 13]
    codes = np.array([311, 321, 324])
    assert new.remap_from("corine", codes, None).tolist() == [8, 11, 13]
    dropped = [k for k, v in new.remap["bigearthnet43"].items() if v == 255]
    assert dropped == [3, 4, 5, 6, 7, 8, 9, 10, 30, 32, 37]


def small() -> Legend:
    classes = (LegendClass(id=1, name="wet", color="#0000FF"), LegendClass(id=2, name="dry", color="#c0a080"))
    return Legend(name="small", nodata=0, classes=classes, remap={"big": {10: 1, 11: 1, 20: 2, 30: 0}})


def test_labels_are_remapped_and_unknown_ids_listed_with_their_counts() -> None:
    labels = np.array([[10, 11], [20, 30], [99, 99]])
    assert small().remap_from("big", labels[:2], None).tolist() == [[1, 1], [2, 0]]
    assert small().remap_from("big", labels, 99).tolist() == [[1, 1], [2, 0], [0, 0]]
    with pytest.raises(ConfigError, match=r"99 \(2 px\)"):
        small().remap_from("big", labels, None)
    with pytest.raises(ConfigError, match="no remap table from 'other'"):
        small().table_from("other")


def test_a_legend_says_what_was_merged() -> None:
    assert small().merged("big") == {1: (10, 11), 2: (20,)}


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
