"""Two processes and two domains: the step that one process makes with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from training_sets import small_recipe

from citycover.errors import ConfigError, StoppedError
from citycover_models.blocks.learnable import Learnable
from citycover_models.blocks.normalise import Normalise
from citycover_models.data.batches import LabelledBatch
from citycover_models.methods import daspm
from citycover_models.methods.method import Moment
from citycover_models.training.processes import Processes, join_processes
from citycover_models.training.request import TrainRequest
from citycover_models.training.trainee import Trainee

METHODS = {
    "lovecs": {"name": "lovecs", "warm_up": 0.0},
    "csn": {"name": "csn", "warm_up": 0.0},
    "daformer": {"name": "daformer", "target": "plain", "threshold": 0.3, "masked_weight": 1.0,
                 "masked_share": 0.0, "masked_block": 16, "abundance_weight": 0.1, "feature_weight": 0.0},
}  # fmt: skip


class Unnormed(Learnable):
    """Both methods' needs without batch statistics, which are each process's own."""

    def __init__(self) -> None:
        super().__init__()
        self.upscale, self.sensor = 1, 0
        self.normalise = Normalise((100.0, 100.0), (50.0, 50.0))
        self.encoder, self.head = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 3, 1)

    def look_as(self, domain: int) -> None:
        self.sensor = domain

    def to_fine_grid(self, x: Tensor) -> Tensor:
        return x

    def encode(self, x: Tensor) -> list[Tensor]:
        return [self.encoder(self.normalise(x)).relu() * (1 + self.sensor)]

    def decode(self, maps: list[Tensor]) -> Tensor:
        return self.head(maps[0])

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


def batch_of(first: int, last: int) -> LabelledBatch:
    generator = torch.Generator().manual_seed(0)

    def half() -> tuple[Tensor, Tensor]:
        images = torch.randint(0, 255, (4, 2, 8, 8), generator=generator, dtype=torch.uint8)
        return images, torch.randint(0, 3, (4, 8, 8), generator=generator)

    (images, labels), (others, pseudo) = half(), half()
    target = LabelledBatch(others[first:last], pseudo[first:last])
    return LabelledBatch(images[first:last], labels[first:last], None, target)


def step(processes: Processes, method: str, out: Path) -> None:
    """Two steps, shared by however many processes there are; the first of them keeps the weights."""
    recipe = small_recipe(network="semantic-fpn-resnet18", method=METHODS[method], clip=1.0)
    torch.manual_seed(0)
    trainee = Trainee(Unnormed(), recipe, None, processes)
    share = 4 // processes.world
    for number in range(2):
        batch = batch_of(processes.rank * share, (processes.rank + 1) * share)
        trainee.loss(batch, Moment(number, 2, 0)).backward()
        trainee.move(0.01)
    if processes.rank == 0:
        save_file({k: v.contiguous() for k, v in trainee.network.state_dict().items()}, out)


def said(processes: Processes) -> str:
    """What a process hears of the first: what that made, what it refused, and that it was told to end."""

    def end(error: Exception) -> None:
        raise error

    heard = [str(processes.first(lambda: {"rank": processes.rank}))]
    for error in (ConfigError(f"no patch {processes.rank}"), StoppedError()):
        try:
            processes.first(lambda error=error: end(error))
        except (ConfigError, StoppedError) as same:
            heard.append(f"{type(same).__name__} {same}")
    return ", ".join(heard)


def as_it_is(images: Tensor, *_: object) -> Tensor:
    """In the place of what each process draws for itself."""
    return images


SCRIPT = """
import sys
sys.path[:0] = sys.argv[1].split(":")
from pathlib import Path
from citycover_models.methods import daspm
from citycover_models.training.processes import join_processes
from test_processes import METHODS, as_it_is, said, step
daspm.strong_augment = as_it_is
with join_processes("cpu") as processes:
    for method in METHODS:
        step(processes, method, Path(sys.argv[2]) / f"{method}-two.safetensors")
    (Path(sys.argv[2]) / f"said-{processes.rank}").write_text(said(processes))
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights after the same steps by two processes."""
    out = tmp_path_factory.mktemp("two")
    (out / "run.py").write_text(SCRIPT)
    here = Path(__file__).parent
    for _ in range(3):  # gloo aborts a process now and then when the other one has closed its connection
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
             str(out / "run.py"), f"{here}:{here.parent}", str(out)],
            capture_output=True, text=True, timeout=120, check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        )  # fmt: skip
        if "SIGABRT" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_make_the_step_of_one(
    shared: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daspm, "strong_augment", as_it_is)
    with join_processes("cpu") as alone:
        step(alone, method, tmp_path / "one.safetensors")
    one, two = load_file(tmp_path / "one.safetensors"), load_file(shared / f"{method}-two.safetensors")
    torch.manual_seed(0)
    began = Unnormed().state_dict()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], rtol=1e-5, atol=1e-6)
    assert not torch.equal(one["head.weight"], began["head.weight"])


def test_what_the_first_makes_or_that_it_ends_is_known_to_all(shared: Path) -> None:
    heard = "{'rank': 0}, ConfigError no patch 0, StoppedError "
    assert [(shared / f"said-{rank}").read_text() for rank in range(2)] == [heard] * 2


def test_more_processes_than_a_machine_bears_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got --workers 100000; this machine takes 0 to"):
        TrainRequest(None, small_recipe(), tmp_path, workers=100_000)  # type: ignore[arg-type]
