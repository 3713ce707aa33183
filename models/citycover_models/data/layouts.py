"""Published layouts of training data, read into images with their labels.

| layout | what it looks like |
|---|---|
| list | CSV with the columns `image_fn,label_fn` and optionally `gt_label_fn` (Paraformer, VCNet) |
| `chesapeake` | `m_..._naip-new.tif`, `m_..._nlcd.tif`, `m_..._lc.tif` side by side |
| `paraformer` | `HR_image`, `LR_label` (`LR_label_4class`, `..._label`), `CCLC` or `HR_ground_truth` |
| `skwanda` | `train/images`, `train/labels` (`val` and `test` are left to `citycover evaluate`) |
| `folders` | `images`, `labels` |
| `cross-sensor` | `src_domain` and `tgt_domain`, each with `images` and `masks` (LoveCS) |
| `gaofen-sentinel` | `gaofen` and `sentinel`, each with `image` and `label` (DASPM) |
| `loveda-to-urban` | LoveDA: source `Train/Rural`, target `Val/Urban`, in `images_png` and `masks_png` |
| `loveda-to-rural` | the mirror: source `Train/Urban`, target `Val/Rural` |

The last four hold two domains. Labels of the target may be missing; maps are judged by those that are there.

Files belong together whose names begin alike: the label of `a_1.tif` is `a_1.tif`, or `a_1_*.tif`.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from citycover.errors import ConfigError
from citycover.files.remote import is_remote
from citycover_models.data.pairs import ImageAndLabels, files_of


@dataclass(frozen=True, slots=True)
class _Domains:
    """Where a layout keeps its two domains."""

    source: str
    target: str
    images: str
    labels: str
    legend: str | None


_TWO_DOMAINS = {
    "cross-sensor": _Domains("src_domain", "tgt_domain", "images", "masks", "loveda7"),
    "gaofen-sentinel": _Domains("gaofen", "sentinel", "image", "label", "daspm5"),
    "loveda-to-urban": _Domains("Train/Rural", "Val/Urban", "images_png", "masks_png", "loveda7"),
    "loveda-to-rural": _Domains("Train/Urban", "Val/Rural", "images_png", "masks_png", "loveda7"),
}

LAYOUTS = ("chesapeake", "paraformer", "skwanda", "folders", *_TWO_DOMAINS)

BIGEARTHNET = "bigearthnet"
"""Patches with their own bands and labels: see `bigearthnet.py`."""

_SUFFIXES = {".tif", ".tiff", ".vrt", ".jp2", ".img", ".png"}


@dataclass(frozen=True, slots=True)
class Listing:
    """What a list or folder holds."""

    items: tuple[ImageAndLabels, ...]
    legend: str | None
    """Legend of the labels, where the layout fixes it."""
    targets: tuple[ImageAndLabels, ...] = ()
    """Of the target domain; labels where there are some."""


def read_list(path: Path) -> Listing:
    """A CSV list of files and addresses; relative names are looked for beside it, then in the working folder.

    Raises:
        ConfigError: columns or files are missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"--list {path} cannot be read: {error}") from None
    columns = set(rows[0]) if rows else set()
    if not {"image_fn", "label_fn"} <= columns:
        raise ConfigError(
            f"--list {path} has columns {', '.join(sorted(map(str, columns))) or 'none'}; needed are "
            "image_fn and label_fn, and gt_label_fn if there is a high-resolution reference"
        )
    for number, row in enumerate(rows, start=1):
        if not (row["image_fn"] and row["label_fn"]):
            raise ConfigError(f"--list {path}: row {number} needs both image_fn and label_fn; fill it in")
    items = [
        ImageAndLabels(
            image,
            tuple(_found(path, name) for name in row["label_fn"].split(";")),
            _found(path, row["gt_label_fn"]) if row.get("gt_label_fn") else None,
            tuple(further),
        )
        for row in rows
        for image, *further in [[_found(path, name) for name in files_of(row["image_fn"], ";")]]
    ]
    return Listing(tuple(items), None)


def read_folder(path: Path, layout: str | None = None) -> Listing:
    """A folder in one of the layouts; None finds out which.

    Raises:
        ConfigError: it is none of them, or an image has no label.
    """
    if not path.is_dir():
        raise ConfigError(f"--folder {path} is no folder")
    layout = layout or _layout_of(path)
    if layout in _TWO_DOMAINS:
        return _read_domains(path, _TWO_DOMAINS[layout])
    if layout == "chesapeake":
        pairs = [
            ImageAndLabels(str(image), (str(_twin(image, "_nlcd")),), _optional(_twin(image, "_lc")))
            for image in sorted(path.rglob("*_naip-new.tif"))
            if _is_raster(image)
        ]
        if not pairs:
            raise ConfigError(f"--folder {path} holds no *_naip-new.tif; choose another --layout")
        return Listing(tuple(pairs), "nlcd")
    if layout == "paraformer":
        labels = _label_folder(path)
        truth = next((path / name for name in _TRUTHS if (path / name).is_dir()), None)
        legend = "vcnet4" if labels.name == "LR_label_4class" else None
        return Listing(_match(path / "HR_image", labels, truth), legend)
    if layout == "skwanda":
        return Listing(_match(path / "train" / "images", path / "train" / "labels", None), "skwanda8")
    return Listing(_match(path / "images", path / "labels", None), None)


def _read_domains(path: Path, names: _Domains) -> Listing:
    """Source and target.

    Raises:
        ConfigError: a folder is missing or empty, or the source has no labels.
    """
    source, target = path / names.source, path / names.target
    if not _holds_rasters(source / names.labels) and _holds_rasters(target / names.labels):
        raise ConfigError(
            f"{target / names.labels} holds labels and {source / names.labels} none; the source is the "
            "domain with labels: if the two folders were swapped, change their names"
        )
    labels = target / names.labels
    targets = _match(target / names.images, labels if _holds_rasters(labels) else None, None, every=False)
    if _holds_rasters(labels) and not any(item.labels for item in targets):
        raise ConfigError(
            f"no label in {labels} is named as an image in {target / names.images}; name them alike, or "
            "leave the labels out: maps are judged by them alone"
        )
    return Listing(_match(source / names.images, source / names.labels, None), names.legend, targets)


def _holds_rasters(folder: Path) -> bool:
    return folder.is_dir() and any(map(_is_raster, folder.iterdir()))


def _is_raster(path: Path) -> bool:
    """By its name; what begins with a dot is what a system left of itself (`._a.png`)."""
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


_TRUTHS = ("CCLC", "HR_ground_truth", "HR_label")


def _label_folder(path: Path) -> Path:
    """The folder of coarse labels: never that of the truth, and no guess among several products."""
    folders = [p for p in sorted(path.iterdir()) if p.is_dir() and "label" in p.name.lower()]
    found = [p for p in folders if p.name not in _TRUTHS]
    coarse = [p for p in found if p.name.startswith("LR_label")] or found
    if len(coarse) != 1:
        raise ConfigError(
            f"--folder {path} holds {len(coarse)} folders of coarse labels"
            f"{': ' if coarse else ''}{', '.join(p.name for p in coarse)}; one is needed: name images and "
            "labels in --list FILE.csv"
        )
    return coarse[0]


def _layout_of(path: Path) -> str:
    names = {p.name for p in path.iterdir()}
    for layout, two in _TWO_DOMAINS.items():
        if {two.source, two.target} <= names:
            return layout
    if {"Train", "Val"} <= names:
        raise ConfigError(
            f"--folder {path} looks like LoveDA, which can be learned from in two directions; give --layout "
            "loveda-to-urban or loveda-to-rural"
        )
    if "HR_image" in names and any("label" in n.lower() for n in names):
        return "paraformer"
    if (path / "train" / "images").is_dir():
        return "skwanda"
    if {"images", "labels"} <= names:
        return "folders"
    if next(path.rglob("*_naip-new.tif"), None):
        return "chesapeake"
    for one, other in (*((two.source, two.target) for two in _TWO_DOMAINS.values()), ("Train", "Val")):
        if {one, other} & names:
            there, missing = (one, other) if one in names else (other, one)
            raise ConfigError(
                f"--folder {path} holds {there} and no {missing}; both are needed; complete it, or name files"
                " by --list or --image, and --target"
            )
    raise ConfigError(
        f"--folder {path} has none of the layouts {', '.join(LAYOUTS)}: it holds "
        f"{', '.join(sorted(names)[:6]) or 'nothing'}; give --list FILE.csv instead"
    )


def _match(
    images: Path, labels: Path | None, truth: Path | None, *, every: bool = True
) -> tuple[ImageAndLabels, ...]:
    """Images with their labels and truths by name; without `every`, an image may have no label."""
    found = _rasters(images)
    stems = [image.stem for image in found]
    items = []
    for image in found:
        own = _of(image, stems, labels) if labels else []
        if labels and every and not own:
            raise ConfigError(
                f"{image.name} has no label in {labels}: no file there begins with {image.stem!r}"
            )
        true = next(map(str, _of(image, stems, truth)), None) if truth else None
        items.append(ImageAndLabels(str(image), tuple(map(str, own)), true))
    return tuple(items)


def _of(image: Path, stems: Sequence[str], folder: Path) -> list[Path]:
    """Files of a folder whose names begin with that of the image, and with no longer one of another image."""
    return [
        path
        for path in _rasters(folder)
        if max((s for s in stems if path.stem == s or path.stem.startswith(s + "_")), key=len, default="")
        == image.stem
    ]


def _rasters(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}, which is needed; add it, or give another --layout")
    found = sorted(filter(_is_raster, folder.iterdir()))
    if not found:
        raise ConfigError(
            f"{folder} holds no raster ({', '.join(sorted(_SUFFIXES))}); fill it, or give another --layout"
        )
    return found


def _twin(image: Path, ending: str) -> Path:
    return image.with_name(image.name.replace("_naip-new", ending))


def _optional(path: Path) -> str | None:
    return str(path) if path.is_file() else None


def _found(listing: Path, name: str) -> str:
    if is_remote(name):
        return name
    for candidate in (listing.parent / name, Path(name)):
        if os.path.isfile(candidate):  # noqa: PTH113 - False for names that cannot be
            return str(candidate)
    raise ConfigError(f"--list {listing} names {name}, which is no file beside it or here")
