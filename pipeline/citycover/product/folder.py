"""The product folder: what may lie in it before a run, and how a product appears in it.

Everything a run makes is written below `<out>/.work`: the store, the ledger, and the finished files in
`.work/publish`. Publishing renames those into `<out>` one by one, `item.json` last. A rename is atomic,
so a reader sees each file either old or new and never in part, and a folder with an `item.json` holds a
product that is whole: that file is the sign to wait for. It is also the list of what is citycover's there: of
a product that is replaced, what its `item.json` lists goes, and nothing else.

Strategy against kills and power cuts, in this order, each step on disk before the next begins:

1.  every staged file;
2.  an old `item.json` out of the folder, into `.work`, where a run that goes on after a kill finds it;
3.  old files away, new files renamed;
4.  `item.json` renamed;
5.  the working folder away, its own sign first.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from citycover.errors import CitycoverError, ConfigError, MachineError, ProductError
from citycover.files.atomic import sync_folder, sync_tree, write_atomic
from citycover.files.failures import is_passing, machine_errors
from citycover.files.local import refuse_far
from citycover.files.plain import parse_json
from citycover.files.remote import Place, RemotePath, size_of
from citycover.product.names import BESIDE, PRODUCT_FILES, SHARPENING, SIGN
from citycover.store.far import FarWork
from citycover.store.work import WORK, WorkFolder, check_work, is_store, remove


@contextlib.contextmanager
def claim_folder(
    out: Path, *, overwrite: bool = False, restart: bool = False, far: FarWork | None = None
) -> Iterator[WorkFolder]:
    """The working folder of a run that will publish into `out`, held as long as the context.

    | the folder | then |
    |---|---|
    | does not exist, or is empty | it is made |
    | holds an unfinished run | it is `resumable`, unless `restart` |
    | holds a finished product | ProductError, unless `overwrite`; the old one stays until `publish_files` |
    | holds anything else, also in `.work` | ProductError, always: nothing of the user's is ever removed |

    Blocks are kept in `far`, if there is one: it is what may hold an unfinished run then.
    """
    check_folder(out, overwrite=overwrite)
    with WorkFolder(out, restart=restart, far=far) as work:
        check_folder(out, overwrite=overwrite)  # a run that held the folder until now may have finished it
        yield work


def check_folder(out: Path, *, overwrite: bool = False) -> None:
    """Raise unless a run may write into `out`; changes nothing.

    Raises:
        ProductError: it is a file, holds other content, or a finished product without `overwrite`.
        MachineError: it cannot be read or written.
    """
    with machine_errors(out):
        if not out.exists():
            _check_parent(out)
            return
        if not out.is_dir():
            raise ProductError(f"{out} is a file; a product is a folder; choose another --out")
        names = {path.name for path in out.iterdir()}
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "not writable", str(out))
        check_work(out)
    names.discard(WORK)
    names -= BESIDE if (out / SHARPENING).is_file() else {SHARPENING.parent.name}
    if listed_files(WorkFolder(out).replaced) is not None:  # an earlier run had begun to replace a product
        return
    if listed_files(out / SIGN) is not None:
        if not overwrite:
            raise ProductError(
                f"{out} holds a finished product; give --overwrite to replace it, or choose another --out"
            )
        return
    # Names of ours count as ours only beside a run that was about to publish them.
    others = sorted(names - (PRODUCT_FILES if is_store(out / WORK) else frozenset()))
    if others:
        shown = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        raise ProductError(
            f"{out} holds other content: {shown}; a product needs a folder of its own, "
            "empty or not existing yet; choose another --out"
        )


def holds_product(out: Path) -> bool:
    """Whether a finished product lies there, and no run has begun to replace it."""
    return listed_files(out / SIGN) is not None and listed_files(WorkFolder(out).replaced) is None


def check_in_no_product(prefix: RemotePath) -> None:
    """Raise where unfinished blocks would lie among the files of a finished product.

    Raises:
        ConfigError: one lies at the prefix, or at one that it lies in. What may not be read there is none.
        MachineError: the store is away.
    """
    place = prefix
    while place.key:
        try:
            found = listed_files(place / SIGN)
        except CitycoverError as error:
            if isinstance(error, MachineError) and is_passing(error):
                raise  # who asks next would wait as long once more
            return
        if found is not None:
            raise ConfigError(
                f"--work {prefix} lies in the finished product {place}, which holds its own files and "
                "nothing else; give a prefix beside it"
            )
        place = place.parent


def check_output(path: Path, *inputs: str | Place | None) -> None:
    """Raise unless a file may be written there; one that exists is replaced, but for what would be missed.

    Args:
        path: a file that the user names for what comes out.
        inputs: files that the same command reads; None: not given.

    Raises:
        ConfigError: it is a folder, an input, a file of a finished product, or an address.
    """
    refuse_far(path, "output")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file in it")
    here = [Path(given) for given in inputs if given and not isinstance(given, RemotePath)]
    if any(path.exists() and given.exists() and path.samefile(given) for given in here):
        raise ConfigError(f"{path} is read by this command and would be replaced; choose another name")
    if path.name in (listed_files(path.parent / SIGN) or ()):
        raise ConfigError(
            f"{path} belongs to the product in {path.parent}, which would be spoilt; choose another name"
        )


def publish_files(work: WorkFolder) -> tuple[Path, ...]:
    """Move everything from `work.staging` into the product folder and remove the working folder.

    Returns:
        The files of the product, `item.json` last.

    Raises:
        MachineError: the folder was removed or taken over meanwhile, or cannot be written.
        ProductError: a file of the user's lies where one of the product would.
    """
    out = work.out
    with machine_errors(out):
        work.check_held()
        new = sorted((path.name for path in work.staging.iterdir()), key=lambda name: (name == SIGN, name))
        if SIGN not in new or not PRODUCT_FILES.issuperset(new):
            raise ValueError(f"a product has an item.json and only known files, got {new}")
        sync_tree(work.staging)
        for name in sorted(_take_sign(work, new) - set(new)):
            remove(out / name)
        for name in new:
            if name == SIGN:
                sync_folder(out)
            if (out / name).is_dir():  # a folder cannot be replaced by a rename
                remove(out / name)
            (work.staging / name).rename(out / name)
        for folder in (out, out.parent):
            sync_folder(folder)
        work.remove()
    return tuple(out / name for name in new)


def drop_product(folder: Path) -> None:
    """Remove a product: what its `item.json` lists, and the folder, unless something else lies in it.

    That file goes last, so that what a kill leaves can be removed by the next call.
    """
    for name in sorted(listed_files(folder / SIGN) or (), key=lambda name: name == SIGN):
        remove(folder / name)
    with contextlib.suppress(OSError):  # it has other content
        folder.rmdir()


def _take_sign(work: WorkFolder, new: Sequence[str]) -> frozenset[str]:
    """Take the sign off the product that is replaced; returns the files that it listed.

    Raises:
        ProductError: a file that is to be written is the user's.
    """
    listed = listed_files(work.out / SIGN)
    if listed is None:
        before = listed_files(work.replaced)
        if before is None and not is_store(work.work):
            # Without a store beside them, what a power cut leaves of the new files would be nobody's.
            write_atomic(work.replaced, (work.staging / SIGN).read_text(encoding="utf-8"))
        return before or frozenset()
    theirs = sorted(name for name in new if name not in listed and (work.out / name).exists())
    if theirs:
        raise ProductError(
            f"{work.out} holds {', '.join(theirs)}, which the product there does not list; the new one would "
            "replace it; move it away and run the same command again: it will only publish"
        )
    (work.out / SIGN).replace(work.replaced)
    for folder in (work.out, work.work):
        sync_folder(folder)
    return listed


def _check_parent(out: Path) -> None:
    parent = next(p for p in out.absolute().parents if p.exists())
    if not parent.is_dir():
        raise ProductError(f"{parent} is a file, so {out} cannot be made; choose another --out")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "not writable", str(parent))


def refuse_cut(folder: Place, names: Sequence[str]) -> None:
    """Refuse a product of which files are not as large as its `item.json` says, where it says so.

    Raises:
        ConfigError: they were cut, or are another product's.
    """
    try:
        assets = parse_json((folder / SIGN).read_text(encoding="utf-8"))["assets"].values()
        said = {str(one["href"]).removeprefix("./"): one.get("file:size") for one in assets}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    sizes = [(name, size_of(folder / name), said[name]) for name in names if said.get(name)]
    if cut := [f"{name} ({size:,} of {whole:,} bytes)" for name, size, whole in sizes if size != whole]:
        raise ConfigError(
            f"{folder} holds {', '.join(cut)}, of another size than its {SIGN} says; copy the product again, "
            "or map again"
        )


def lost_rasters(folder: Path) -> tuple[str, ...]:
    """Rasters that the `item.json` of a product lists and that are gone, or not as large as it says.

    Reads no raster. What cannot be read of the item says nothing.
    """
    try:
        assets = parse_json((folder / SIGN).read_text(encoding="utf-8"))["assets"].values()
        said = {str(one["href"]): one.get("file:size") for one in assets if "data" in one.get("roles", ())}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()
    lost = (name for name, size in said.items() if not _is_there(folder / name, size))
    return tuple(name.removeprefix("./") for name in lost)


def _is_there(path: Path, size: int | None) -> bool:
    return path.is_dir() or (path.is_file() and size in (None, path.stat().st_size))


def listed_files(sign: Place) -> frozenset[str] | None:
    """Files of the product that an `item.json` lists, itself and GDAL's side files too; None: not ours."""
    try:
        item = parse_json(sign.read_text(encoding="utf-8"))
        if "citycover" not in item["properties"]["processing:software"]:
            return None
        files = {str(asset["href"]).removeprefix("./") for asset in item.get("assets", {}).values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    # A viewer that looks at statistics leaves them beside a raster: they would be false for the next one.
    return PRODUCT_FILES & (files | {f"{name}.aux.xml" for name in files} | {SIGN})
