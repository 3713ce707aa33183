"""What is cut off in the middle while a network learns: trainings and sharpenings."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from scenarios import Scenario, mapped_as, product_of, run

from citycover.synth.write import write_city

_QUICK = (
    "network=l2hnet-tiny", "method.name=ce", "epochs=2", "chips_per_epoch=4", "chip=32", "batch=2",
)  # fmt: skip


def lessons(place: Path) -> list[Scenario]:
    """All of them; the city that is learned from is made in `place`."""
    return [*trainings(place), *sharpenings(place)]


def trainings(place: Path) -> list[Scenario]:
    """From nothing, from a checkpoint, and in the place of a finished one."""

    def trained(root: Path, *more: object) -> int:
        city = city_in(place)
        return run(
            "train", "--recipe", "l2hnet-light", "--image", city / "image.tif", "--labels",
            city / "labels_10m.tif", "--legend", "city", "--out", root / "run", "--workers", 0, "--quiet",
            *(word for change in _QUICK for word in ("--set", change)), *more,
        )  # fmt: skip

    def resumed(root: Path) -> int:
        return trained(root, "--resume")

    def begun(root: Path) -> None:
        """Stopped when the first checkpoint was written."""
        stop_after_a_checkpoint(lambda: trained(root))

    def other(root: Path) -> None:
        trained(root, "--seed", 1)

    def replaced(root: Path) -> int:
        """First as after a power cut in an unfinished training, then as in a finished one."""
        return resumed(root) and trained(root, "--overwrite")

    def results(root: Path) -> str | None:
        return training_of(root / "run")

    return [
        Scenario("train", empty, mapped_as(trained), resumed, results),
        Scenario("train-resume", begun, mapped_as(resumed), resumed, results),
        Scenario("train-overwrite", other, mapped_as(trained, "--overwrite"), replaced, results),
    ]


def sharpenings(place: Path) -> list[Scenario]:
    """From nothing, and in the place of a finished one."""

    def sharpened(root: Path, *more: object) -> int:
        city = city_in(place)
        return run(
            "sharpen", city / "image.tif", "--labels", city / "labels_10m.tif", "--labels-legend", "city",
            "--out", root / "product", "--precision", "fp32", "--threads", 1, "--quiet",
            *(word for change in (*_QUICK, "epochs=1") for word in ("--set", change)), *more,
        )  # fmt: skip

    def other(root: Path) -> None:
        sharpened(root, "--seed", 1)

    def replaced(root: Path) -> int:
        """The same command goes on; where the old one stands still it must be asked for once more."""
        code = sharpened(root)
        return sharpened(root, "--overwrite") if code == 2 else code

    def results(root: Path) -> str | None:
        pixels = product_of(root / "product")  # is whole if it says so, whatever stands beside it
        return pixels if (root / "product" / "sharpen.json").is_file() else None

    return [
        Scenario("sharpen", empty, mapped_as(sharpened), sharpened, results),
        Scenario("sharpen-overwrite", other, mapped_as(sharpened, "--overwrite"), replaced, results),
    ]


def city_in(place: Path) -> Path:
    """A practice city of 96 x 96 px, made once."""
    city = place / "city"
    if not city.exists():
        write_city(city, 96, 3)
    return city


def empty(root: Path) -> None:
    """Nothing yet."""
    root.mkdir(exist_ok=True)


def training_of(out: Path) -> str | None:
    """The weights of a training that says it is finished, as one name.

    Raises:
        AssertionError: it says so and is not whole.
    """
    sign = out / "result.json"
    if not sign.is_file():
        return None
    model = hashlib.sha256((out / "model.pt").read_bytes()).hexdigest()
    assert json.loads(sign.read_text())["sha256"] == model, "model.pt is not what result.json says"
    return hashlib.sha256((out / "weights.safetensors").read_bytes()).hexdigest()[:16]


def stop_after_a_checkpoint(act: object) -> None:
    """Do something until a checkpoint is written, then stop as a user would."""
    from unittest import mock

    from citycover.errors import StoppedError
    from citycover_models.training import loop

    real = loop.write_checkpoint

    def write(state: object, path: Path) -> None:
        real(state, path)  # type: ignore[arg-type]
        raise StoppedError

    with mock.patch.object(loop, "write_checkpoint", write):
        act()  # type: ignore[operator]
