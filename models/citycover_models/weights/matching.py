"""Tensors of two networks that are alike but name their parts differently: who is who.

A state dict keeps the order in which modules were made, and `weight`, `bias` and the statistics of a
normalisation are named by torch, not by the author. So a module is known by what it holds: two modules are
alike if the same kinds of tensors stand in them in the same order. Modules are matched the largest first,
from the whole network down to one layer. Where several are alike, they must be the numbered parts of one list
on both sides, and as many; then they are matched in order. What remains is ambiguous, because nothing around
it says which is which.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from citycover.errors import ModelError

Shape = tuple[int, ...]

_OF_TORCH = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}

_NUMBER = re.compile(r"\.\d+(?=\.)")

_Unit = tuple[str, ...]
"""Names of tensors that stand together: all of a module, or one alone."""


def match_by_order(given: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> dict[str, str]:
    """Names in `wanted` -> names in `given`, by shape and order.

    Args:
        given: shapes by name, in the order of the state dict.
        wanted: likewise, of the network that will load them.

    Returns:
        The names that found each other. A kind of tensor that only one side has is left out.

    Raises:
        ModelError: a kind of tensor is left over on both sides; they are listed.
    """
    # What one side alone has would make modules unlike that are alike in all that can be matched.
    common = {_kind(*item) for item in given.items()} & {_kind(*item) for item in wanted.items()}
    given = {name: shape for name, shape in given.items() if _kind(name, shape) in common}
    wanted = {name: shape for name, shape in wanted.items() if _kind(name, shape) in common}
    theirs, ours = _alike(given), _alike(wanted)
    found: dict[str, str] = {}
    used: set[str] = set()
    for signature in sorted(theirs.keys() & ours.keys(), key=lambda s: (-len(s), s)):
        sources = [unit for unit in theirs[signature] if used.isdisjoint(unit)]
        targets = [unit for unit in ours[signature] if found.keys().isdisjoint(unit)]
        if len(sources) != len(targets) or not (_numbered(sources) and _numbered(targets)):
            continue
        for source, target in zip(sources, targets, strict=True):
            found.update(zip(target, source, strict=True))
            used.update(source)
    _check_rest(
        {name: shape for name, shape in given.items() if name not in used},
        {name: shape for name, shape in wanted.items() if name not in found},
    )
    return found


def _alike(shapes: Mapping[str, Shape]) -> dict[tuple[str, ...], list[_Unit]]:
    """Kinds of tensors in order -> the units that hold exactly these, in order."""
    modules: dict[str, list[str]] = {}
    for name in shapes:
        parts = name.split(".")
        for depth in range(len(parts)):
            modules.setdefault(".".join(parts[:depth]), []).append(name)
    # A module whose only part is another module is that module; a tensor is a unit of its own.
    units: Iterable[_Unit] = dict.fromkeys([*map(tuple, modules.values()), *((name,) for name in shapes)])
    alike: dict[tuple[str, ...], list[_Unit]] = {}
    for unit in units:
        alike.setdefault(tuple(_kind(name, shapes[name]) for name in unit), []).append(unit)
    return alike


def _kind(name: str, shape: Shape) -> str:
    """What a tensor is, whatever its author calls it: `weight (64, 4, 3, 3)`."""
    leaf = name.rpartition(".")[2]
    return f"{leaf if leaf in _OF_TORCH else 'parameter'} {shape}"


def _numbered(units: list[_Unit]) -> bool:
    """Whether units differ in the numbers in their names alone, as `blocks.0` and `blocks.1` do."""
    return len({_NUMBER.sub(".#", f".{unit[0]}.") for unit in units}) <= 1


def _check_rest(given: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> None:
    """Raise ModelError if something that is left here could be something that is left there."""
    theirs = {kind: units for (kind, *more), units in _alike(given).items() if not more}
    ours = {kind: units for (kind, *more), units in _alike(wanted).items() if not more}
    open_kinds = sorted(theirs.keys() & ours.keys())
    if not open_kinds:
        return
    lines = [
        f"{kind}: {len(theirs[kind])} in the file ({_some(theirs[kind])}), {len(ours[kind])} in the network "
        f"({_some(ours[kind])})"
        for kind in open_kinds
    ]
    raise ModelError(
        f"names do not agree, and shape and order leave {len(lines)} kinds of tensors ambiguous:\n  "
        + "\n  ".join(lines)
        + "\nname them in a file for --map, see docs/importing-weights.md"
    )


def _some(units: list[_Unit]) -> str:
    names = [unit[0] for unit in units]
    return ", ".join(names[:2]) + ", ..." * (len(names) > 2)
