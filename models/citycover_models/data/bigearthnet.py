"""BigEarthNet as it is published, read into patches.

    v1   <patch>/<patch>_B??.tif, <patch>/<patch>_labels_metadata.json         43 labels; regions: MGRS tiles
         train.csv, val.csv, test.csv beside them: names in the first column   (else squares by a hash)
    v2   metadata.parquet (or .json), BigEarthNet-S2/<scene>/<patch>/<patch>_B??.tif,
         Reference_Maps/<scene>/<patch>/<patch>_reference_map.tif              19 labels, countries, splits

Patches of v2 may also lie as one <patch>.safetensors each, the values of its LMDB form. Snow and clouds stand
in another metadata file, which is not read.
"""

from __future__ import annotations

import csv
import re
import reprlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from citycover.classes.legend import Legend, read_legend
from citycover.classes.table import NO_CLASS, ClassTable, table_between
from citycover.errors import ConfigError
from citycover.files.plain import parse_json
from citycover_models.data.patches import SPLITS, Patch, Split

V1 = re.compile(r"S2[AB]_MSIL2A_\d{8}T\d{5,6}_(\d{1,2})_(\d{1,2})")
"""Name of a patch of v1: some hours have one digit."""

V2 = re.compile(r"S2[AB]_MSIL2A_\d{8}T\d{6}_N\d{4}_R\d{3}_T(\w{5})_(\d{1,2})_(\d{1,2})")

_TILE = re.compile(r"_T(\w{5})_")

_SQUARE = 10
"""Side, in patches, of the squares that go into one split together where none is published: 12 km."""

_SHARES = (52, 76)
"""Per cent of the squares up to which they are trained on, and validated with; the rest tests."""

_SPLITS: Mapping[str, Split] = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}

_COLUMNS = ("patch_id", "labels", "split", "country")
"""Of v2's metadata, what is read."""


@dataclass(frozen=True, slots=True)
class BigEarthNet:
    """What a folder holds."""

    version: str
    """`v1` or `v2`."""
    legend: Legend
    patches: tuple[Patch, ...]
    """Ascending by name."""
    own_splits: bool
    """Whether the splits are those of the data set."""


def read_bigearthnet(folder: Path, to: str | None = None) -> BigEarthNet:
    """Find the patches of a folder, with their labels; opens no pixels.

    Args:
        folder: of v1 or v2.
        to: legend to learn; None: `bigearthnet19`. `bigearthnet43` needs v1.

    Raises:
        ConfigError: it is neither, or both, or cannot be looked at; labels, splits or patches do not fit.
    """
    try:
        return _read(folder, to)
    except OSError as error:
        raise ConfigError(
            f"--folder {folder} cannot be looked at: {error}; look at its permissions and its drive"
        ) from None


def _read(folder: Path, to: str | None) -> BigEarthNet:
    if not folder.is_dir():
        raise ConfigError(f"--folder {folder} is no folder")
    legend = read_legend(to or "bigearthnet19")
    tables = [path for name in ("metadata.parquet", "metadata.json") if (path := folder / name).is_file()]
    first = next(_v1_folders(folder), None)
    if tables and first is not None:
        raise ConfigError(
            f"--folder {folder} mixes BigEarthNet v1 ({first.name}) with v2 ({tables[0].name}); they were "
            "corrected by different processors and share places; give a folder of one of them"
        )
    if tables:
        found = _read_v2(folder, tables[0], legend)
        return BigEarthNet("v2", legend, found, own_splits=True)
    if first is not None:
        patches, own = _read_v1(folder, legend)
        return BigEarthNet("v1", legend, patches, own)
    names = sorted(p.name for p in folder.iterdir())[:4]
    raise ConfigError(
        f"--folder {folder} is no BigEarthNet: it holds {', '.join(names) or 'nothing'}; needed are folders "
        "of patches with *_labels_metadata.json (v1), or metadata.parquet with BigEarthNet-S2 (v2)"
    )


# --- v1 --------------------------------------------------------------------------------------------------


def _v1_folders(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.iterdir()) if V1.fullmatch(p.name) and p.is_dir())


def _read_v1(folder: Path, legend: Legend) -> tuple[tuple[Patch, ...], bool]:
    published = _published_splits(folder)
    names = _LabelNames.of(read_legend("bigearthnet43"), legend)
    patches = []
    for path in _v1_folders(folder):
        if published is not None and path.name not in published:
            continue  # snow, clouds, or no label among the 19: left out of the splits by their makers
        facts = _v1_facts(path)
        region = _TILE.search(str(facts.get("tile_source", "")))
        split = split_of(path.name) if published is None else published[path.name]
        labels = names.ranks_of(path.name, facts["labels"])
        patches.append(Patch(path.name, str(path), labels, split, f"T{region[1]}" if region else ""))
    if not patches:
        raise ConfigError(
            f"the split files of {folder} (train.csv, val.csv, test.csv) name none of its patches; needed is "
            "a name in the first column of each line, commas between columns; fetch them again, or remove "
            "them, and squares are drawn into splits instead"
        )
    return tuple(patches), published is not None


def _v1_facts(path: Path) -> dict[str, Any]:
    file = path / f"{path.name}_labels_metadata.json"
    try:
        facts = parse_json(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"labels {file} cannot be read: {error}; fetch the patch again") from None
    if not isinstance(facts, dict) or not _are_names(facts.get("labels")):
        raise ConfigError(f"{file} has no list of labels; fetch the patch again")
    return facts


def _published_splits(folder: Path) -> dict[str, Split] | None:
    """Split of each patch that the files name; None: there is no such file."""
    splits: dict[str, Split] = {}
    files = [path for name in ("train", "val", "test") if (path := folder / f"{name}.csv").is_file()]
    for path in files:
        split = _SPLITS[path.stem]
        for name in _first_column(path):
            if splits.setdefault(name, split) != split:
                raise ConfigError(
                    f"patch {name} is in two splits of {folder}: {splits[name]} and {split}; what is tested "
                    "on must not be learned from; take it out of one"
                )
    return splits if files else None


def _first_column(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [row[0].strip() for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read: {error}; save it as CSV in UTF-8") from None


def split_of(name: str) -> Split:
    """Where a patch belongs if no split is published: with the 10 x 10 patches of its square, by a hash.

    >>> split_of("S2A_MSIL2A_20170617T113321_36_85") == split_of("S2A_MSIL2A_20170617T113321_39_81")
    True
    """
    scene, col, row = name.rsplit("_", 2)
    square = f"{scene}_{int(col) // _SQUARE}_{int(row) // _SQUARE}"
    share = zlib.crc32(square.encode()) % 100
    return SPLITS[0] if share < _SHARES[0] else SPLITS[1] if share < _SHARES[1] else SPLITS[2]


# --- v2 --------------------------------------------------------------------------------------------------


def _read_v2(folder: Path, table: Path, legend: Legend) -> tuple[Patch, ...]:
    names = _LabelNames.of(read_legend("bigearthnet19"), legend)
    maps = (folder / "Reference_Maps").is_dir()
    loose = not (folder / "BigEarthNet-S2").is_dir()
    patches: dict[str, Patch] = {}
    for row in _rows(table):
        _check_row(table, row)
        patch = _v2_patch(folder, row, names, maps, loose)
        if (other := patches.setdefault(patch.name, patch)) is not patch:
            raise ConfigError(
                f"{table} names {patch.name} twice ({other.split}, {patch.split}); needed is one row a "
                "patch; fetch it again, or take one out"
            )
    if loose and next(folder.glob("*.safetensors"), None) is None:
        raise ConfigError(
            f"--folder {folder} holds {table.name} and no patches; needed are a folder BigEarthNet-S2 beside "
            "it, or one .safetensors file a patch; unpack or move them there"
        )
    return tuple(patches[name] for name in sorted(patches))


def _v2_patch(folder: Path, row: Mapping[str, Any], names: _LabelNames, maps: bool, loose: bool) -> Patch:
    """The patch of a row that was checked."""
    name = row["patch_id"]
    scene = name.rsplit("_", 2)[0]
    source = folder / f"{name}.safetensors" if loose else folder / "BigEarthNet-S2" / scene / name
    reference = folder / "Reference_Maps" / scene / name / f"{name}_reference_map.tif"
    return Patch(
        name=name,
        source=str(source),
        labels=names.ranks_of(name, row["labels"]),
        split=_SPLITS[row["split"]],
        region=row["country"],
        reference=str(reference) if maps else "",
    )


def _check_row(table: Path, row: Mapping[str, Any]) -> None:
    """Refuse a row whose values are of other types, or mean nothing."""
    name, split, country = row["patch_id"], row["split"], row["country"]
    if not (isinstance(name, str) and V2.fullmatch(name)):
        kind = "a patch of v1" if V1.fullmatch(str(name)) else "no patch of BigEarthNet"
        raise ConfigError(
            f"{table} names {reprlib.repr(name)}, which is {kind}; needed are patches of v2 alone"
        )
    if not (isinstance(split, str) and split in _SPLITS):
        raise ConfigError(
            f"{table} puts {name} into {reprlib.repr(split)}; needed is train, validation or test"
        )
    if not _are_names(row["labels"]):
        raise ConfigError(
            f"{table} has {reprlib.repr(row['labels'])} for the labels of {name}; needed is a list of names; "
            "fetch it again"
        )
    if not (isinstance(country, str) and country):
        raise ConfigError(
            f"{table} has {reprlib.repr(country)} for the country of {name}; needed is its name; fetch it "
            "again"
        )


def _rows(table: Path) -> Sequence[Mapping[str, Any]]:
    """Rows of the metadata, as plain values: each has all columns."""
    try:
        text = table.suffix == ".json"
        rows: Any = parse_json(table.read_text(encoding="utf-8-sig")) if text else _parquet(table)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{table} cannot be read: {error}; fetch it again") from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{table} holds no rows; fetch it again")
    for number, row in enumerate(rows, start=1):
        if lacking := [column for column in _COLUMNS if column not in row]:
            raise ConfigError(
                f"{table} has no {', '.join(lacking)} in row {number}; needed are {', '.join(_COLUMNS)}, as "
                "published; fetch it again"
            )
    return rows


def _parquet(table: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_schema, read_table
    except ImportError:
        raise ConfigError(
            f"{table} needs pyarrow: pip install 'citycover[train]'; or give the same rows as "
            "metadata.json beside it"
        ) from None
    try:
        there = [column for column in _COLUMNS if column in read_schema(table).names]
        rows: list[dict[str, Any]] = read_table(table, columns=there).to_pylist()
    except ArrowException as error:
        raise ConfigError(f"{table} cannot be read: {str(error).splitlines()[0]}; fetch it again") from None
    return rows


# --- labels ----------------------------------------------------------------------------------------------


def _are_names(labels: object) -> bool:
    """Whether labels are a list of text: one text alone would be taken for its letters."""
    return isinstance(labels, list) and all(isinstance(label, str) for label in labels)


@dataclass(frozen=True, slots=True)
class _LabelNames:
    """Names of labels as published, and what they mean in the legend that is learned."""

    legend: str
    """Of the names."""
    ranks: Mapping[str, int]
    """Of each name; NO_CLASS: the learned legend drops it."""

    @classmethod
    def of(cls, published: Legend, learned: Legend) -> _LabelNames:
        """Join the one legend to the other.

        Raises:
            ConfigError: the learned legend has no table from the other.
        """
        table = ClassTable.onto(learned, table_between(published, learned))
        ranks = table.ranks_of(np.array(published.ids)).tolist()
        return cls(published.name, dict(zip(published.names, ranks, strict=True)))

    def ranks_of(self, patch: str, labels: Iterable[str]) -> tuple[int, ...]:
        """Ranks of a patch's labels, ascending; those that the legend drops are left out.

        Raises:
            ConfigError: a label is not known.
        """
        named = set(labels)
        if unknown := sorted(named - self.ranks.keys()):
            raise ConfigError(
                f"patch {patch} has labels {', '.join(unknown)}, which legend {self.legend!r} does not know; "
                "v1 has 43 labels and v2 has 19: give --folder of one of them, as published"
            )
        return tuple(sorted({self.ranks[name] for name in named} - {NO_CLASS}))
