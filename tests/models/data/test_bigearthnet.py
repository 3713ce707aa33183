"""BigEarthNet v1 and v2 into patches: labels, splits, regions, statistics, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from patches_making import BANDS, V1, V2, drawn_bands, v2_rows, write_bands, write_v1, write_v2

from citycover.classes.legend import read_legend
from citycover.errors import ConfigError
from citycover_models.data.augment import Augment
from citycover_models.data.bigearthnet import read_bigearthnet, split_of
from citycover_models.data.labels import IGNORE
from citycover_models.data.patch_batches import PatchBatch, PatchSource, measure_bands
from citycover_models.data.patch_set import prepare_patches
from citycover_models.data.patches import Patch, hot_labels
from citycover_models.data.shards import PatchReader
from citycover_models.imagery.sentinel2 import BIGEARTHNET_V1
from citycover_models.nets.band_fusion import label_correlation

LEGEND = read_legend("bigearthnet19")


def source_of(patches: tuple[Patch, ...], *, references: bool = False) -> PatchSource:
    return PatchSource(patches, LEGEND, PatchReader(patches), references, seed=3)


def test_43_labels_become_19_as_published(tmp_path: Path) -> None:
    """The patch that a published mapping once got wrong, because names had been sorted."""
    name = "S2B_MSIL2A_20180502T093039_42_25"
    write_v1(tmp_path, {name: ["Broad-leaved forest", "Natural grassland", "Transitional woodland/shrub"]})
    (patch,) = read_bigearthnet(tmp_path).patches
    assert patch.labels == (8, 11, 13)
    (raw,) = read_bigearthnet(tmp_path, "bigearthnet43").patches
    assert raw.labels == (22, 25, 28)


def test_labels_that_the_19_drop_are_left_out(tmp_path: Path) -> None:
    write_v1(tmp_path, {f"{V1}_1_2": ["Airports", "Sea and ocean"], f"{V1}_1_3": ["Airports"]})
    assert [p.labels for p in read_bigearthnet(tmp_path).patches] == [(18,), ()]


def test_v1_has_tiles_for_regions_and_squares_for_splits(tmp_path: Path) -> None:
    write_v1(
        tmp_path, {f"S2B_MSIL2A_20180525T94030_{c}_30": ["Pastures"] for c in (51, 55)}
    )  # an hour of one digit
    found = read_bigearthnet(tmp_path)
    assert not found.own_splits and {p.region for p in found.patches} == {"T33UUP"}
    assert len({p.split for p in found.patches}) == 1, "patches of a square belong together"
    for name in ("train", "val"):
        (tmp_path / f"{name}.csv").write_text("")
    (tmp_path / "test.csv").write_text("S2B_MSIL2A_20180525T94030_55_30,S1_name\n")
    found = read_bigearthnet(tmp_path)
    assert found.own_splits and [(p.name[-5:], p.split) for p in found.patches] == [("55_30", "test")]


def test_squares_are_shared_out_about_as_published() -> None:
    splits = [split_of(f"{V1}_{col}_{row}") for col in range(0, 1000, 10) for row in range(0, 1000, 10)]
    shares = [splits.count(s) / len(splits) for s in ("train", "validation", "test")]
    assert shares == pytest.approx([0.52, 0.24, 0.24], abs=0.02)


def test_v2_has_countries_splits_and_19_labels(tmp_path: Path) -> None:
    write_v2(tmp_path, v2_rows(6, ("Austria", "Finland")))
    found = read_bigearthnet(tmp_path)
    assert found.version == "v2" and found.own_splits
    assert [(p.region, p.split) for p in found.patches][1:4] == [
        ("Finland", "train"), ("Austria", "validation"), ("Finland", "train"),
    ]  # fmt: skip
    assert found.patches[1].labels == (9, 10)
    with pytest.raises(ConfigError, match="no remap table from 'bigearthnet19'"):
        read_bigearthnet(tmp_path, "bigearthnet43")


def test_metadata_in_parquet_give_the_same(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    write_v2(tmp_path, v2_rows(4))
    first = read_bigearthnet(tmp_path)
    rows = json.loads((tmp_path / "metadata.json").read_text())
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "metadata.parquet")
    (tmp_path / "metadata.json").unlink()
    assert read_bigearthnet(tmp_path) == first


def test_parquet_without_its_reader_says_the_way_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metadata.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'citycover\[train\]'.*metadata\.json"):
        read_bigearthnet(tmp_path)


def test_versions_are_not_mixed(tmp_path: Path) -> None:
    write_v2(tmp_path, v2_rows(1))
    write_v1(tmp_path, {f"{V1}_1_2": ["Pastures"]})
    with pytest.raises(ConfigError, match=r"mixes BigEarthNet v1 \(S2A_MSIL2A_20170613T101031_1_2\) with v2"):
        read_bigearthnet(tmp_path)
    shutil.rmtree(tmp_path / f"{V1}_1_2")
    (tmp_path / "metadata.json").write_text(json.dumps([v2_rows(1)[0] | {"patch_id": f"{V1}_1_2"}]))
    with pytest.raises(ConfigError, match="a patch of v1; needed are patches of v2 alone"):
        read_bigearthnet(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["Sea and ocean"]}, "Sea and ocean, which legend 'bigearthnet19' does not know"),
        ({"split": "val2"}, "needed is train, validation or test"),
        ({"split": ["train"]}, "needed is train, validation or test"),
        ({"patch_id": "x"}, "no patch of BigEarthNet"),
        ({"patch_id": 7}, "no patch of BigEarthNet"),
        ({"labels": None}, "None for the labels of S2A.*needed is a list of names"),
        ({"labels": "Inland waters"}, "'Inland waters' for the labels of S2A.*needed is a list of names"),
        ({"labels": {"Inland waters": 1}}, "needed is a list of names"),
        ({"labels": [17]}, r"\[17\] for the labels"),
        ({"country": None}, "None for the country of S2A"),
        ({"country": ""}, "'' for the country"),
    ],
)
def test_rows_that_make_no_sense_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    (tmp_path / "metadata.json").write_text(json.dumps([v2_rows(1)[0] | change]))
    with pytest.raises(ConfigError, match=message):
        read_bigearthnet(tmp_path)


@pytest.mark.parametrize("column", ["patch_id", "labels", "split", "country"])
@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_a_column_that_is_not_there_is_named(tmp_path: Path, column: str, kind: str) -> None:
    rows = v2_rows(2)
    if kind == "parquet":
        parquet, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
        parquet.write_table(pa.Table.from_pylist(rows).drop_columns([column]), tmp_path / "metadata.parquet")
    else:
        del rows[1][column]
        (tmp_path / "metadata.json").write_text(json.dumps(rows))
    with pytest.raises(
        ConfigError, match=rf"metadata\.{kind} has no {column} in row \d; needed are patch_id"
    ):
        read_bigearthnet(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"PAR1", b"PAR1" + bytes(40) + b"PAR1", b"\xff\xfe[\x00", b"[1]", b'[{"patch_id": "\xe9"}]'],
)
@pytest.mark.parametrize("name", ["metadata.parquet", "metadata.json"])
def test_metadata_that_are_broken_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot be read|holds no rows"):
        read_bigearthnet(tmp_path)


def test_a_patch_of_two_splits_is_refused(tmp_path: Path) -> None:
    row = v2_rows(1)[0]
    (tmp_path / "metadata.json").write_text(json.dumps([row, row | {"split": "test"}]))
    with pytest.raises(ConfigError, match=r"S2A\S* twice \(train, test\)"):
        read_bigearthnet(tmp_path)
    (tmp_path / "metadata.json").unlink()
    write_v1(tmp_path, {f"{V1}_1_2": ["Pastures"]})
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text(f"{V1}_1_2\n")
    with pytest.raises(ConfigError, match=r"_1_2 is in two splits of \S+: train and test"):
        read_bigearthnet(tmp_path)


def test_a_training_without_a_label_is_refused(tmp_path: Path) -> None:
    write_v2(tmp_path, [row | {"labels": []} for row in v2_rows(3)])
    with pytest.raises(ConfigError, match=r"no training patch of .* has a label of legend bigearthnet19"):
        prepare_patches(tmp_path)


@pytest.mark.parametrize(
    "labels", [b'{"labels": "Pastures"}', b'{"labels": [1]}', b'{"labels": ["\xe9"]}', b"["]
)
def test_labels_of_v1_that_are_broken_are_refused(tmp_path: Path, labels: bytes) -> None:
    folder = tmp_path / f"{V1}_1_2"
    folder.mkdir()
    (folder / f"{V1}_1_2_labels_metadata.json").write_bytes(labels)
    with pytest.raises(ConfigError, match=r"cannot be read|has no list of labels"):
        read_bigearthnet(tmp_path)


def test_split_files_are_read_as_spreadsheets_save_them(tmp_path: Path) -> None:
    """A mark before the first name is no part of it; other encodings, and files of no names, are refused."""
    names = [f"{V1}_1_{n}" for n in range(2)]
    write_v1(tmp_path, {name: ["Pastures"] for name in names})
    (tmp_path / "train.csv").write_text("\r\n".join(names), encoding="utf-8-sig")
    assert [p.name for p in read_bigearthnet(tmp_path).patches] == names
    for content in ("x\0".encode("utf-16"), b"caf\xe9", b'"' + b"x" * 200_000):
        (tmp_path / "val.csv").write_bytes(content)
        with pytest.raises(ConfigError, match=r"val\.csv cannot be read: .*; save it as CSV in UTF-8"):
            read_bigearthnet(tmp_path)
    (tmp_path / "val.csv").unlink()
    for content in ("", f"{names[0]};S1\n"):
        (tmp_path / "train.csv").write_text(content)
        with pytest.raises(ConfigError, match="name none of its patches"):
            read_bigearthnet(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it holds nothing; needed are"):
        read_bigearthnet(tmp_path)
    (tmp_path / "metadata.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds no rows"):
        read_bigearthnet(tmp_path)
    with pytest.raises(ConfigError, match="is no folder"):
        read_bigearthnet(tmp_path / "x")


def test_metadata_without_patches_say_where_these_belong(tmp_path: Path) -> None:
    write_v2(tmp_path, v2_rows(2))
    (tmp_path / "BigEarthNet-S2").rename(tmp_path / "S2")
    with pytest.raises(
        ConfigError, match=r"metadata.json and no patches; needed are a folder BigEarthNet-S2"
    ):
        read_bigearthnet(tmp_path)


@pytest.mark.parametrize("name", ["is_dir", "iterdir", "is_file"])
def test_a_folder_that_cannot_be_looked_at_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def deny(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, name, deny)
    with pytest.raises(
        ConfigError, match=r"cannot be looked at: .*Permission denied.*; look at its permissions"
    ):
        read_bigearthnet(tmp_path)


def test_a_patch_says_which_bands_it_lacks(tmp_path: Path) -> None:
    write_v1(tmp_path, {f"{V1}_1_2": ["Pastures"]})
    (patch,) = read_bigearthnet(tmp_path).patches
    for band in ("B09", "B8A"):
        (tmp_path / patch.name / f"{patch.name}_{band}.tif").unlink()
    with pytest.raises(ConfigError, match=r"lacks B8A, B09; needed are all 12 bands"):
        patch.read()


@pytest.mark.parametrize(
    ("band", "message"),
    [
        (np.zeros((120, 120), np.uint16), "120 x 120 px of B09; needed are 20 x 20"),
        (np.zeros((20, 20), np.float32), "float32 numbers in B09; needed are uint16 digital numbers"),
    ],
)
def test_bands_of_other_size_or_units_are_refused(tmp_path: Path, band: np.ndarray, message: str) -> None:
    write_bands(tmp_path / f"{V1}_1_2", drawn_bands(0) | {"B09": band})
    with pytest.raises(ConfigError, match=message):
        Patch(f"{V1}_1_2", str(tmp_path / f"{V1}_1_2"), (), "train", "").read()


def test_every_patch_is_seen_once_an_epoch_whoever_reads(tmp_path: Path) -> None:
    write_v2(tmp_path, v2_rows(6, split="train"))
    source = source_of(read_bigearthnet(tmp_path).patches)

    def seen(first: int, last: int, *, workers: int = 0, rank: int = 0, world: int = 1) -> list[float]:
        steps = source.steps(6, 2, first, last, workers=workers, rank=rank, world=world)
        return [float(b.groups[2].mean(dim=(1, 2, 3))[i]) for b in steps for i in range(len(b.labels))]

    whole = seen(0, 6)
    assert len(set(whole[:6])) == 6 and set(whole[:6]) == set(whole[6:]) and whole[:6] != whole[6:]
    assert seen(2, 6) == whole[4:] == seen(2, 6, workers=1), "a step is the same whatever came before"
    shared = [seen(0, 6, rank=rank, world=2) for rank in (0, 1)]
    assert [number for pair in zip(*shared, strict=True) for number in pair] == whole


def test_statistics_are_those_of_all_pixels(tmp_path: Path) -> None:
    write_v2(tmp_path, v2_rows(3))
    patches = read_bigearthnet(tmp_path).patches
    found = measure_bands(source_of(patches))
    blue = np.stack([p.read()[0][0] for p in patches])
    assert found.means["B02"] == pytest.approx(blue.mean(), abs=1e-3)
    assert found.stds["B02"] == pytest.approx(blue.std(), abs=1e-3)
    assert set(found.means) == set(BANDS)


def test_units_are_looked_at(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = f"{V1}_1_2"
    write_bands(tmp_path / name, {b: np.ones((s, s), np.uint16) for b, s in BANDS.items()})
    with pytest.raises(ConfigError, match="largest mean of a band is 1; needed are digital numbers"):
        measure_bands(source_of((Patch(name, str(tmp_path / name), (), "train", ""),)))
    name = f"{V1}_1_3"
    write_bands(tmp_path / name, drawn_bands(0))  # from 1000 on
    measure_bands(source_of((Patch(name, str(tmp_path / name), (), "train", ""),)))
    assert "processing baseline 04.00" in caplog.text


def test_all_bands_and_the_reference_map_are_turned_alike() -> None:
    """A corner of the ground stays one corner of the ground, however a patch is turned."""
    groups = [torch.zeros(16, bands, side, side) for bands, side in ((4, 120), (6, 60), (2, 20))]
    for group, side in zip(groups, (6, 3, 1), strict=True):
        group[:, :, :side, :side] = 1.0
    reference = groups[0][:, 0].long()
    batch = PatchBatch((groups[0], groups[1], groups[2]), torch.zeros(16, 19), reference)
    turned = batch.varied(Augment(symmetries=True), BIGEARTHNET_V1, torch.Generator().manual_seed(0))
    corners = set()
    assert turned.reference is not None
    for i in range(16):
        places = []
        for plane in (*(g[i, 0] for g in turned.groups), turned.reference[i]):
            y, x = (plane != 0).nonzero(as_tuple=True)
            places.append((bool(y.float().mean() > len(plane) / 2), bool(x.float().mean() > len(plane) / 2)))
        assert len(set(places)) == 1
        corners.add(places[0])
    assert len(corners) == 4


def test_the_same_light_falls_on_all_bands() -> None:
    groups = [torch.zeros(2, bands, side, side) for bands, side in ((4, 12), (6, 6), (2, 2))]
    ones = [([0.0] * bands, [1.0] * bands) for bands in (4, 6, 2)]
    how = Augment(symmetries=False, brightness=0.5)
    lit, maps = how.vary_groups(groups, None, ones, torch.Generator().manual_seed(0))
    assert maps is None
    for scene in range(2):
        shifts = {round(float(v), 6) for group in lit for v in group[scene].unique()}
        assert len(shifts) == 1 and shifts != {0.0}


def test_correlation_of_the_training_split_by_hand(tmp_path: Path) -> None:
    write_v2(tmp_path, v2_rows(4, split="train"))
    hot = hot_labels(read_bigearthnet(tmp_path).patches, 19)
    table = label_correlation(torch.from_numpy(hot))
    # Two patches of water alone, two of both forests.
    assert table[17, 17] == 1 and table[9, [9, 10]].tolist() == [0.5, 0.5] and not table[0].any()


def test_regions_and_shares_choose_patches(tmp_path: Path) -> None:
    write_v2(tmp_path, v2_rows(24, ("Austria", "Finland")))
    found = prepare_patches(tmp_path, regions=["Austria"], test_regions=["Finland"], share=0.5, seed=1)
    assert {p.region for p in (*found.train, *found.validation)} == {"Austria"}
    assert {p.region for p in found.test} == {"Finland"} and {p.split for p in found.test} == {"test"}
    everything = prepare_patches(tmp_path, regions=["Austria"])
    assert len(found.train) == len(everything.train) / 2 and set(found.train) < set(everything.train)
    assert found.train != prepare_patches(tmp_path, regions=["Austria"], share=0.5, seed=2).train
    with pytest.raises(ConfigError, match=r"no region 'Norway'.*there are: Austria, Finland"):
        prepare_patches(tmp_path, regions=["Norway"])
    with pytest.raises(ConfigError, match="above 0, up to 1"):
        prepare_patches(tmp_path, share=0)


def test_codes_of_reference_maps_become_ranks(tmp_path: Path) -> None:
    rows = v2_rows(1)
    codes = np.full((120, 120), 112, np.uint16)
    codes[0, :3] = (311, 122, 999)
    write_v2(tmp_path, rows, {rows[0]["patch_id"]: codes})
    (batch,) = source_of(read_bigearthnet(tmp_path).patches, references=True).once(1)
    assert batch.reference is not None
    assert batch.reference[0, 0, :4].tolist() == [8, IGNORE, IGNORE, 0]
    shutil.rmtree(tmp_path)
    write_v2(tmp_path, rows, {rows[0]["patch_id"]: codes + 500})
    with pytest.raises(ConfigError, match="no CORINE level-3 codes"):
        list(source_of(read_bigearthnet(tmp_path).patches, references=True).once(1))


def test_real_patches_of_both_versions_are_read(real_data: Path, tmp_path: Path) -> None:
    v2 = read_bigearthnet(real_data / "s2" / "bigearthnet" / "v2")
    assert {p.region for p in v2.patches} >= {"Austria"} and all(V2[:11] in p.name for p in v2.patches)
    assert measure_bands(source_of(v2.patches[:4])).means["B08"] > 1000
    given = real_data / "s2" / "bigearthnet_patch"
    name = "S2A_MSIL2A_20170617T113321_36_85"
    shutil.copytree(given, tmp_path / name)
    (patch,) = read_bigearthnet(tmp_path).patches
    assert (patch.labels, patch.region) == ((2, 4), "T29UPU") and patch.read()[1].shape == (6, 60, 60)
