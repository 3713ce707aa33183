"""The few errors a user can cause. Each message says what was got, what is needed and what to do.

The command line turns exactly these into one line and an exit code; anything else is a bug and keeps
its traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class CitycoverError(Exception):
    """A problem that the user can mend; `exit_code` is what the command line leaves with."""

    exit_code = 2


class SceneError(CitycoverError):
    """The imagery cannot be used as it was given."""


class LayoutError(SceneError):
    """Files cannot be laid out as one scene as it was asked for: masks, dates, overlaps, grid."""


class ChangedError(SceneError):
    """A file is another one than it was when the run began."""


class ModelError(CitycoverError):
    """The model file, its card or its network cannot be used."""


class PlanError(CitycoverError):
    """Window, trim, feather or block sizes that do not fit each other or the model."""


class ConfigError(CitycoverError):
    """An option, a legend or a configuration file is wrong."""


class ProductError(CitycoverError):
    """The output folder holds something else, or is in use by another run."""


class FinishedError(ProductError):
    """The folder holds the product that was asked for."""

    exit_code = 5


class HeldError(ProductError):
    """Another run holds the folder."""

    exit_code = 6


class TrainingError(CitycoverError):
    """A training cannot go on."""


class MachineError(CitycoverError):
    """The machine cannot do it: no space, no memory, no device, no permission."""

    exit_code = 4


class DeviceError(MachineError):
    """The device failed, and does nothing more for this process."""


_DEVICE_GONE = ("CUDA error", "CUDNN_STATUS_EXECUTION_FAILED", "CUBLAS_STATUS_EXECUTION_FAILED")

_MEMORY_GONE = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "could not create a primitive")
"""What torch and the libraries under it say, of a device or of the machine. TorchScript and other runtimes
hand on the text alone, as a RuntimeError; oneDNN says of it only that it could not create something."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was used up, of a device or of the machine; torch, which says it so, is not imported.

    >>> is_out_of_memory(RuntimeError("The following operation failed ... CUDA out of memory. Tried to ..."))
    True
    """
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(said in str(error) for said in _MEMORY_GONE)


@contextmanager
def device_errors() -> Iterator[None]:
    """Turn what is raised for a broken device, which torch knows by its text alone, into a DeviceError."""
    try:
        yield
    except RuntimeError as error:
        if (said := next((said for said in _DEVICE_GONE if said in str(error)), None)) is None:
            raise
        reason = next(line for line in str(error).splitlines() if said in line).strip()
        raise DeviceError(
            f"the device failed ({reason}); look at it (dmesg, nvidia-smi), then run the same command again: "
            "finished blocks are kept"
        ) from error


OUT_OF_MEMORY = "out of memory; give --memory, a smaller --batch or --window"


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn what is raised where memory is used up, of a device or of the machine, into a MachineError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MachineError(OUT_OF_MEMORY) from error


class StoppedError(Exception):
    """The run was asked to stop; what was finished is kept."""
