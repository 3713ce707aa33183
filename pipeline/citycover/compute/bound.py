"""How much memory a process of a run may hold: batch and blocks are made to fit, or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from citycover.compute.trials import measure_speed
from citycover.errors import MachineError
from citycover.machine.memory import peak_rss, process_memory, release_memory
from citycover.model.predictor import Predictor
from citycover.plan.cost import BESIDE, memory_bound
from citycover.plan.layers import USUAL, Layer
from citycover.plan.plan import CHUNK, Plan
from citycover.scene.scene import Scene

_GIB = 2**30


def keep_memory(
    plan: Plan, scene: Scene, predictor: Predictor, bound: float, layers: Sequence[Layer] = USUAL
) -> Plan:
    """The plan with its batch and then its blocks made smaller, until a process holds at most `bound` GiB.

    A window is tried, and a batch taken to need as many times what that one needed.

    Raises:
        MachineError: even the narrowest block needs more.
    """
    needed_by = _memory_needed(plan, scene, predictor, layers)
    shrinks = predictor.device.type == "cpu"  # elsewhere a batch lies in the memory of the device
    while (needed := needed_by(plan)) > bound * _GIB:
        height, width = plan.block_shape
        if shrinks and plan.batch > 1:
            plan = replace(plan, batch=plan.batch // 2)
        elif width > CHUNK:
            plan = replace(plan, block_shape=(height, max(CHUNK, width // 2 // CHUNK * CHUNK)))
        else:
            raise MachineError(
                f"--memory {bound:g} is too little: program, network and the narrowest block take "
                f"{needed / _GIB:.2f} GiB in windows of {plan.x.window} px; give more, or a smaller --window"
            )
    return plan


def check_memory(
    plan: Plan, scene: Scene, predictor: Predictor, bound: float, layers: Sequence[Layer] = USUAL
) -> None:
    """Refuse to go on with a run whose batch and blocks, which decide pixels, need more than `bound` GiB.

    Raises:
        MachineError: they do.
    """
    needed = _memory_needed(plan, scene, predictor, layers)(plan)
    if needed > bound * _GIB:
        height, width = plan.block_shape
        raise MachineError(
            f"--memory {bound:g} is too little to go on with the unfinished run: its batches of {plan.batch} "
            f"and blocks of {height} x {width} px take {needed / _GIB:.2f} GiB; give as much, or --restart "
            "to begin with smaller ones"
        )


def _memory_needed(
    plan: Plan, scene: Scene, predictor: Predictor, layers: Sequence[Layer]
) -> Callable[[Plan], int]:
    """Bytes that a process of a run holds, by the batch and the blocks of its plan; one window is tried."""
    release_memory()
    held = process_memory("VmRSS") or peak_rss()
    measure_speed(replace(plan, batch=1), predictor, repeats=1)
    window, channels = peak_rss() - held, len(predictor.card.channels)
    on_host = predictor.device.type == "cpu"

    def needed(plan: Plan) -> int:
        batches = plan.batch if on_host else 1
        return held + BESIDE + batches * window + memory_bound(plan, scene, channels, layers).total

    return needed
