"""In how many calls of torch a device is told of a batch, and how much memory what follows the network moves.

    python tests/benchmarks/told.py --batch 3 11

Counted, not timed, on a processor, with the fake of a GPU that tests of the engine use (`late.py`): a GPU
waits for each call to win Python's lock. The network counts as calls, not as operations and bytes; what is
written in place counts twice.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from late import LateTransfer
from making import make_card, make_legend, make_scene, plan_of, run_sweeps
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from citycover.engine.rows import RowMaker

CLASSES, WINDOW, TRIM, FEATHER = 8, 256, 24, 8
SHAPE = (1200, 3000)

_VIEWS = {
    "alias", "as_strided", "detach", "expand", "permute", "select", "slice", "squeeze", "transpose", "unbind",
    "unfold", "unsqueeze", "view",
}  # fmt: skip
"""Operations that move nothing."""


class Calls(TorchFunctionMode):
    """Counts what Python asks of torch, but for properties."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = resolve_name(func) or ""
        self.count += not name.endswith(("__get__", "dim", "is_floating_point"))
        return func(*args, **(kwargs or {}))


class Moved(TorchDispatchMode):
    """Counts operations that move memory, and bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.bytes, self.silent = Counter[str](), 0, False

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        if not (self.silent or name in _VIEWS or name.startswith("empty")):
            given = [t for t in tree_flatten((args, kwargs or {}))[0] if isinstance(t, Tensor)]
            if name.startswith("copy_"):
                given = given[1:]
            made = [t for t in tree_flatten(out)[0] if isinstance(t, Tensor)]
            self.bytes += sum(t.nbytes for t in given + made)
            self.operations[name] += 1
        return out


def counted(batch: int, calls: Calls, moved: Moved) -> int:
    """Map a city with a network of nothing; how many batches it took."""
    batches = 0

    def network(image: Tensor) -> Tensor:
        nonlocal batches
        batches += 1
        moved.silent = True
        scores = torch.zeros(len(image), CLASSES, *image.shape[2:])
        moved.silent = False
        return scores

    def watched(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*given: Any) -> Any:
            with ExitStack() as modes:
                modes.enter_context(calls)
                modes.enter_context(moved)
                return make(*given)

        return made

    card = make_card(WINDOW, TRIM, FEATHER, legend=make_legend(CLASSES))
    plan = replace(plan_of(make_scene(SHAPE), card, block=(2048, 4096)), batch=batch)
    image = np.zeros((*SHAPE, 3), np.uint8)
    with patch.object(RowMaker, "make", watched(RowMaker.make)):
        run_sweeps(plan, card, network, [image], [None], transfer=LateTransfer([0]))
    return batches


def main() -> None:
    """Print a line a batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[3, 11])
    for batch in parser.parse_args().batch:
        calls, moved = Calls(), Moved()
        batches = counted(batch, calls, moved)
        print(
            f"{batch} windows: {calls.count / batches:.0f} calls a batch; "
            f"{moved.operations.total() / batches:.0f} operations a batch, "
            f"{moved.bytes / (SHAPE[0] * SHAPE[1]):.0f} bytes a pixel"
        )


if __name__ == "__main__":
    main()
