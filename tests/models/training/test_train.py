"""Training: every method learns, a killed run goes on to the same weights, and what can go wrong is said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from safetensors.torch import load_file
from training_sets import make_city, small_recipe, training_set_of

from citycover.errors import ConfigError, MachineError, ModelError, ProductError, StoppedError, TrainingError
from citycover.model.archive import read_model_file
from citycover_models.blocks.learnable import Learnable
from citycover_models.catalogue.registry import find_aerial
from citycover_models.data.batches import LabelledBatch
from citycover_models.data.labels import IGNORE
from citycover_models.data.pairs import ImageAndLabels
from citycover_models.data.prepare import prepare_training_set
from citycover_models.export import margins, write
from citycover_models.methods.coarse import C2F, CasDva, Nlat, Plat
from citycover_models.methods.learner import Learner
from citycover_models.methods.method import CrossEntropy, Moment
from citycover_models.training import finish, knowledge, start, validation
from citycover_models.training.recipe import Schedule, parse_recipe, read_recipe, recipe_names
from citycover_models.training.request import TrainRequest, TrainWatch
from citycover_models.training.start import train

METHODS = {
    "l2hnet-tiny": {"name": "cas-dva", "warm_up": 0.3},
    "paraformer-tiny": {"name": "plat"},
    "vcnet-tiny": {"name": "plat", "aux_loss": "dice"},
    "c2fnet-tiny": {"name": "c2f", "scales": [4], "rounds": 1},
    "vhf-paranet-tiny": {"name": "nlat", "symmetric": True},
}


ADAPTING = ("lovecs-light", "daspm-light")

FUSING = ("band-fusion", "band-fusion-light")
"""They learn from patches: test_patches.py."""


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_city(tmp_path_factory.mktemp("city"))


def request(city: Path, out: Path, recipe: dict[str, Any] | None = None, **changes: Any) -> TrainRequest:
    given = {"workers": 0, "measure": False} | changes
    return TrainRequest(training_set_of(city), small_recipe(**(recipe or {})), out, **given)


@pytest.mark.parametrize("network", METHODS)
def test_every_method_leaves_a_model_with_its_card(city: Path, tmp_path: Path, network: str) -> None:
    recipe = {"network": network, "method": METHODS[network], "chip": 32, "epochs": 1}
    trained = train(request(city, tmp_path / "run", recipe))
    model = read_model_file(trained.model)
    assert model.card.legend.name == "city" and model.card.groups[0].names == ("red", "green", "blue", "nir")
    assert "recipe small" in model.card.training and 0.5 <= model.card.gsd[0] <= 1 <= model.card.gsd[1]
    assert trained.steps == 3 and 0 <= trained.validation["validation_miou"] <= 1
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert {"model.pt", "weights.safetensors", "metrics.jsonl", "plan.json", "curves.png", "result.json",
            "predictions-0001.png", "events"} <= names  # fmt: skip
    assert "checkpoint.pt" not in names


def test_training_lowers_the_loss(city: Path, tmp_path: Path) -> None:
    train(request(city, tmp_path / "run", {"epochs": 8, "chips_per_epoch": 16, "batch": 4, "ema": None}))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    scores = [row["validation_miou"] for row in rows if "validation_miou" in row]
    assert losses[-1] < 0.9 * losses[0] and scores[-1] > scores[0]
    ends = {row["step"] for row in rows if "loss" in row}
    assert ends >= set(range(4, 33, 4)), "however fast an epoch is, its end has a row"


def stop_after(step: int) -> TrainWatch:
    stop = threading.Event()
    return TrainWatch(advanced=lambda done, _all, _note: stop.set() if done >= step else None, stop=stop)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (start, "write_plan"),
        (validation, "validation_batches"),
        (knowledge, "_noise"),
        (finish, "write_weights"),
    ],
    ids=["preparing", "validating", "looking at what it knows", "concluding"],
)
def test_a_training_ends_soon_after_it_is_told_to_whatever_it_does(
    city: Path, tmp_path: Path, module: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"epochs": 1}
    train(request(city, tmp_path / "straight", recipe))
    stop, real = threading.Event(), getattr(module, name)

    def told(*arguments: Any) -> Any:
        stop.set()
        return real(*arguments)

    monkeypatch.setattr(module, name, told)
    with pytest.raises(StoppedError):
        train(request(city, tmp_path / "run", recipe), TrainWatch(stop=stop))
    assert not (tmp_path / "run" / "model.pt").exists()
    monkeypatch.undo()
    train(request(city, tmp_path / "run", recipe, resume=True))
    one, two = (load_file(tmp_path / n / "weights.safetensors") for n in ("straight", "run"))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("module", "name"),
    [(margins, "_compare"), (write, "compare"), (finish, "export_pt2")],
    ids=["measuring margins", "proving model.pt", "writing model.pt2"],
)
def test_a_training_ends_soon_after_it_is_told_to_while_its_model_file_is_made(
    city: Path, tmp_path: Path, module: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, stop, real, calls = {"epochs": 1}, threading.Event(), getattr(module, name), list[str]()

    def told(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        stop.set()
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, told)
    asked = {"pt2": True, "measure": module is margins}
    with pytest.raises(StoppedError):
        train(request(city, tmp_path, recipe, **asked), TrainWatch(stop=stop))
    assert calls == [name] and not (tmp_path / "model.pt2").exists()
    monkeypatch.undo()
    weights = (tmp_path / "weights.safetensors").read_bytes()
    train(request(city, tmp_path, recipe, resume=True, measure=False))
    assert (tmp_path / "weights.safetensors").read_bytes() == weights and (tmp_path / "result.json").exists()


def test_what_is_gone_on_with_from_nothing_takes_nothing_of_an_earlier_training(
    city: Path, tmp_path: Path
) -> None:
    """A power cut may leave the weights that an earlier training would have kept, and no checkpoint."""
    plan = {"citycover": "0", "recipe": {}, "samples": {}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "best.safetensors").write_bytes(b"of another network")
    recipe = {"epochs": 1, "patience": 1, "validation": 0.0}
    train(request(city, tmp_path, recipe, resume=True))
    assert not (tmp_path / "best.safetensors").exists()


@pytest.mark.parametrize("network", ["l2hnet-tiny", "c2fnet-tiny"])
def test_a_stopped_run_goes_on_to_the_same_weights(
    city: Path, tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"network": network, "method": METHODS[network], "clip": 1.0, "accumulate": 3}
    straight = train(request(city, tmp_path / "straight", recipe))
    stop = threading.Event()
    from citycover_models.training import loop as module

    note = module.Run._note

    def stopping(self: Any, *arguments: Any, **named: Any) -> None:
        note(self, *arguments, **named)
        if self.state.step == 4:  # in the middle of the second epoch
            stop.set()

    monkeypatch.setattr(module.Run, "_note", stopping)
    with pytest.raises(StoppedError):
        train(request(city, tmp_path / "broken", recipe), TrainWatch(stop=stop))
    monkeypatch.undo()
    with pytest.raises(ProductError, match="--resume"):
        train(request(city, tmp_path / "broken", recipe))
    with pytest.raises(ConfigError, match="another training"):
        train(request(city, tmp_path / "broken", recipe, seed=1, resume=True))
    resumed = train(request(city, tmp_path / "broken", recipe, resume=True))
    assert resumed.steps == straight.steps
    one, two = (load_file(tmp_path / n / "weights.safetensors") for n in ("straight", "broken"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name
    with pytest.raises(ProductError, match="finished training"):
        train(request(city, tmp_path / "broken", recipe))
    again = train(request(city, tmp_path / "broken", recipe, resume=True))
    assert again == replace(resumed, seconds=again.seconds, before=True), "nothing was left to do"
    with pytest.raises(ProductError, match=r"of another request.*--weights .*broken/weights"):
        train(request(city, tmp_path / "broken", recipe | {"epochs": 3}, resume=True))
    with pytest.raises(ProductError, match=r"finished, without model.pt2.*give --overwrite"):
        train(request(city, tmp_path / "broken", recipe, resume=True, pt2=True))
    (tmp_path / "straight" / "result.json").write_text("{")
    with pytest.raises(ProductError, match="of another request or version"):
        train(request(city, tmp_path / "straight", recipe, resume=True))
    steps = [json.loads(x)["step"] for x in (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


KILL = """
import os, sys
sys.path[:0] = sys.argv[3:]
from pathlib import Path
from citycover_models.training import loop as module
from training_sets import training_set_of, small_recipe
save = module.Run._save
def dying(self):
    save(self)
    if self.state.step == 3:
        os.kill(os.getpid(), 9)
module.Run._save = dying
training_set, out = training_set_of(Path(sys.argv[1])), Path(sys.argv[2])
from citycover_models.training.start import train
from citycover_models.training.request import TrainRequest
train(TrainRequest(training_set, small_recipe(), out, workers=0, measure=False))
"""


def test_a_killed_run_goes_on_to_the_same_weights(city: Path, tmp_path: Path) -> None:
    folder = str(Path(__file__).parents[1])
    died = subprocess.run(
        [sys.executable, "-c", KILL, str(city), str(tmp_path / "broken"), folder], check=False, timeout=120,
        capture_output=True, text=True,
    )  # fmt: skip
    assert died.returncode == -9, died.stderr
    train(request(city, tmp_path / "broken", resume=True))
    train(request(city, tmp_path / "straight"))
    one, two = (load_file(tmp_path / n / "weights.safetensors") for n in ("straight", "broken"))
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


def test_a_finer_truth_judges_the_finished_network(
    city: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = [str(city / name) for name in ("image.tif", "labels_10m.tif", "truth.tif")]
    item = ImageAndLabels(files[0], (files[1],), files[2])
    judged = prepare_training_set([item], ["city"], None, truth_legend="city")
    recipe = small_recipe(epochs=1)
    trained = train(TrainRequest(judged, recipe, tmp_path / "run", workers=0, measure=False))
    said = json.loads((tmp_path / "run" / "result.json").read_text())["test"]
    assert (
        said == trained.test and set(said) == {"truth_miou", "truth_accuracy"} and said["truth_accuracy"] > 0
    )
    assert not prepare_training_set([item], ["city"], None).judged
    assert "left alone: name its legend with --truth-legend" in caplog.text
    with pytest.raises(
        ConfigError, match=r"--truth-legend city and no image has a truth; needed is a column"
    ):
        prepare_training_set([ImageAndLabels(files[0], (files[1],))], ["city"], None, truth_legend="city")


DISTRIBUTED = """
import sys
sys.path[:0] = sys.argv[3:]
from pathlib import Path
from citycover_models.training.request import TrainRequest
from citycover_models.training.start import train
from training_sets import training_set_of, small_recipe
fields = {"network": "c2fnet-tiny", "epochs": 2}  # its coarse head learns nothing by `ce`
recipe = small_recipe(**fields, ema=None, patience=1, accumulate=2, augment={"symmetries": False})
training_set, out = training_set_of(Path(sys.argv[1])), Path(sys.argv[2])
train(TrainRequest(training_set, recipe, out, workers=0, measure=False, device="cpu"))
"""


def test_processes_of_torchrun_learn_together(city: Path, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(DISTRIBUTED)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script),
         str(city), str(tmp_path / "run"), str(Path(__file__).parents[1])],
        capture_output=True, text=True, timeout=240, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "model.pt").is_file()
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] in {3, 6}


def test_fine_tuning_begins_with_the_weights_given(city: Path, tmp_path: Path) -> None:
    train(request(city, tmp_path / "one", {"epochs": 1}))
    still = {"optimiser": {"name": "sgd", "lr": 1e-12, "momentum": 0.0, "weight_decay": 0.0}, "ema": None}
    train(request(city, tmp_path / "two", still, weights=tmp_path / "one" / "weights.safetensors"))
    one, two = (load_file(tmp_path / n / "weights.safetensors") for n in ("one", "two"))
    for name in ("normalise.mean", "normalise.std"):
        torch.testing.assert_close(one[name], two[name])
    learned = [name for name in one if name.endswith("conv.weight") or name == "head.weight"]
    assert learned
    for name in learned:
        torch.testing.assert_close(one[name], two[name], atol=1e-6, rtol=0)
    with rasterio.open(city / "image.tif") as source:
        (tmp_path / "dark").mkdir()
        with rasterio.open(tmp_path / "dark" / "image.tif", "w", **source.profile) as sink:
            sink.write(source.read() // 2)
            sink.descriptions = source.descriptions
    shutil.copy(city / "labels_10m.tif", tmp_path / "dark")
    weights = tmp_path / "one" / "weights.safetensors"
    train(request(tmp_path / "dark", tmp_path / "three", still, weights=weights))
    dark = load_file(tmp_path / "three" / "weights.safetensors")
    assert (dark["normalise.mean"] < 0.6 * one["normalise.mean"]).all(), "statistics are of these images"
    other = {"network": "vhf-paranet-tiny", "method": {"name": "nlat"}}
    with pytest.raises(ModelError):
        train(request(city, tmp_path / "x", other, weights=tmp_path / "one" / "weights.safetensors"))


def test_early_stop_keeps_the_best_weights(city: Path, tmp_path: Path) -> None:
    wild = {"patience": 1, "epochs": 12, "optimiser": {"name": "sgd", "lr": 1e-9}, "ema": None,
            "augment": {"symmetries": False}}  # fmt: skip
    trained = train(request(city, tmp_path / "run", wild))
    assert trained.steps < 12 * 3
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_a_loss_that_is_no_number_stops_with_the_batch_and_the_reason(city: Path, tmp_path: Path) -> None:
    wild = {"optimiser": {"name": "sgd", "lr": 1e6, "momentum": 0.0}, "schedule": {"name": "constant"}}
    with pytest.raises(TrainingError, match=r"lower optimiser\.lr"):
        train(request(city, tmp_path / "run", wild))
    batch = load_file(tmp_path / "run" / "broken-batch.safetensors")
    assert batch["images"].shape == (2, 4, 32, 32) and batch["labels"].shape == (2, 32, 32)


def test_weights_that_the_last_step_loses_are_told_of(city: Path, tmp_path: Path) -> None:
    """No loss follows that would say so."""
    wild = {"optimiser": {"name": "sgd", "lr": 1e6}, "epochs": 1, "chips_per_epoch": 4}
    with pytest.raises(TrainingError, match=r"what the network says is no number.*lower optimiser\.lr"):
        train(request(city, tmp_path / "run", wild))
    assert not (tmp_path / "run" / "model.pt").exists()


def test_class_without_labels_is_pointed_out(
    city: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import rasterio

    from citycover_models.data.pairs import ImageAndLabels
    from citycover_models.data.prepare import prepare_training_set

    with rasterio.open(city / "labels_10m.tif") as source:
        profile, codes = source.profile, source.read(1)
    codes[codes == 1] = 3
    with rasterio.open(tmp_path / "l.tif", "w", **profile) as sink:
        sink.write(codes, 1)
    training_set = prepare_training_set(
        [ImageAndLabels(str(city / "image.tif"), (str(tmp_path / "l.tif"),))], ["city"], None
    )
    train(TrainRequest(training_set, small_recipe(epochs=1), tmp_path / "run", workers=0, measure=False))
    assert "no label means water" in caplog.text


def test_a_run_killed_after_its_early_stop_learns_no_more(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from citycover_models.training import coarse, start

    wild = {"patience": 1, "epochs": 9}

    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    scores = {"validation_miou": 0.5, "validation_accuracy": 0.5}
    monkeypatch.setattr(coarse, "validate", lambda *_arguments: scores)
    with monkeypatch.context() as dying:
        dying.setattr(start, "finish", die)
        with pytest.raises(KeyboardInterrupt):
            train(request(city, tmp_path / "run", wild))
    resumed = train(request(city, tmp_path / "run", wild, resume=True))
    assert resumed.steps == 2 * 3
    assert resumed.validation == json.loads((tmp_path / "run" / "result.json").read_text())["kept"] == scores


def test_the_last_gathered_gradients_count_in_full(city: Path, tmp_path: Path) -> None:
    """A single step moves the weights alike, whether or not more could have been gathered."""
    sgd = {"optimiser": {"name": "sgd", "lr": 0.01, "momentum": 0.0, "weight_decay": 0.0}}
    one_step = {"epochs": 1, "chips_per_epoch": 2, "ema": None} | sgd
    for name, accumulate in (("one", 1), ("four", 4)):
        train(request(city, tmp_path / name, one_step | {"accumulate": accumulate}))
    one, four = (load_file(tmp_path / n / "weights.safetensors")["head.weight"] for n in ("one", "four"))
    assert torch.equal(one, four)


def test_a_failed_beginning_does_not_bar_the_folder(city: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").touch()  # of a process that was killed before it wrote its plan
    assert train(request(city, run, {"epochs": 1})).steps == 3


def test_a_folder_of_another_program_is_left_alone(city: Path, tmp_path: Path) -> None:
    for name in ("metrics.jsonl", "plan.json", "model.pt"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ProductError, match="other content"):
        train(request(city, tmp_path, overwrite=True))
    assert (tmp_path / "model.pt").read_text() == "{}"
    with pytest.raises(ProductError, match="is a file"):
        train(request(city, tmp_path / "model.pt" / "run"))


def test_processes_that_cannot_share_a_batch_end_before_they_join(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that leaves while the others still connect would take them along, with a traceback each."""
    joined = list[str]()
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: joined.append("joined"))
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(
        ConfigError, match=r"3 processes cannot share batches of 4 .*; give --set batch= a mult"
    ):
        train(request(city, tmp_path / "run", {"batch": 4}))
    assert not joined


def test_an_earlier_training_is_kept_until_the_new_one_can_begin(city: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(request(city, run, {"epochs": 1}))
    there = {path.name for path in run.iterdir()}
    with pytest.raises(ModelError, match="are no file"):
        train(request(city, run, overwrite=True, weights=tmp_path / "no.safetensors"))
    assert {path.name for path in run.iterdir()} == there and "model.pt" in there
    assert train(request(city, run, {"epochs": 1}, overwrite=True, seed=1)).steps == 3
    assert len(list((run / "events").iterdir())) == 1, "curves of the earlier training are gone"
    with pytest.raises(ModelError):
        train(request(city, tmp_path / "new", weights=tmp_path / "no.safetensors"))
    assert not (tmp_path / "new").exists()


def test_weights_may_be_read_by_whoever_reads_the_model(city: Path, tmp_path: Path) -> None:
    train(request(city, tmp_path, {"epochs": 1}))
    modes = {(tmp_path / name).stat().st_mode for name in ("weights.safetensors", "model.pt", "plan.json")}
    assert len(modes) == 1


def test_other_content_is_never_removed(city: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(ProductError, match=r"thesis\.txt"):
        train(request(city, tmp_path, overwrite=True))
    assert (tmp_path / "thesis.txt").read_text() == "years"


def test_a_device_that_is_not_there_is_said(city: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(MachineError, match="--device cpu"):
        train(request(city, tmp_path / "run", device="cuda"))


# --- recipes and methods -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in recipe_names() if n not in FUSING])
def test_built_in_recipes_fit_their_networks(name: str) -> None:
    from citycover_models.imagery.aerial import CHESAPEAKE_RGBN
    from citycover_models.training.setup import build_network

    recipe = read_recipe(name)
    assert recipe.source
    with torch.device("meta"):
        network = build_network(find_aerial(recipe.network), recipe, 5, CHESAPEAKE_RGBN)
    assert sum(p.numel() for p in network.parameters()) > 1000


def test_recipes_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"known are .*epochs"):
        read_recipe("vcnet", ["epoch=3"])
    with pytest.raises(ConfigError, match="vcnet-light"):
        read_recipe("atlantis")
    assert read_recipe("vcnet", ["optimiser.lr=0.5", "method.aux_loss=dice"]).optimiser.lr == 0.5
    with pytest.raises(ConfigError, match="key=value"):
        read_recipe("vcnet", ["epochs"])
    with pytest.raises(ConfigError, match=r"schedule\.every"):
        read_recipe("vcnet", ["schedule.every=0"])
    (tmp_path / "mine.toml").write_text("epochs = ")
    with pytest.raises(ConfigError, match="not TOML"):
        read_recipe(tmp_path / "mine.toml")


HUGE = "1" + 400 * "0"

SENSELESS = {
    "method.name=csn": (
        "method.scales=[0]", "method.scales=[-1.0]", "method.scales=[0.3]", "method.scales=[1.0, 99]",
        "method.scales=[nan]", "method.statistics=nan", f"method.statistics={HUGE}",
    ),
    "method.name=lovecs": ("method.relabel=1e-300", "method.weight=inf"),
    "method.name=c2f": (
        "method.scales=[]", "method.scales=[0]", "method.scales=[-4]", "method.quantiles=[0.5, -0.2]",
        "method.rounds=0",
    ),
    "method.name=cas-dva": ("method.gamma=nan", "method.gamma=-1"),
    "method.name=plat": ("method.weights=[-1, 1]", "method.weights=[nan, 1]"),
    "method.name=soft": ("method.sigma=1e-300", "method.sigma=1e300"),
    "method.name=daformer": ("method.things=[]", "method.things=[-1]", "method.threshold=nan"),
    "method.name=ce": (
        "rescale=[0.0]", "rescale=[-1]", "rescale=[1e-9]", "rescale=[inf]", "rescale=[]",
        "augment.brightness=1e300", "augment.noise=inf", "optimiser.lr=1e300", "optimiser.weight_decay=1e300",
        "schedule.floor=1e300", "rare_temperature=1e-300", "chip=1000000", f"batch={HUGE}", f"epochs={HUGE}",
        f"chips_per_epoch={HUGE}", f"chips_per_image={HUGE}",
    ),
}  # fmt: skip


def test_a_batch_that_cannot_be_normalised_is_refused(city: Path, tmp_path: Path) -> None:
    recipe = {"network": "unet-resnet18", "batch": 1, "chip": 32}
    with pytest.raises(ConfigError, match=r"a batch of 1 chips of 32 px.*cannot be normalised; give larger"):
        train(request(city, tmp_path / "run", recipe))


@pytest.mark.parametrize("method", SENSELESS)
def test_numbers_without_sense_are_refused_by_their_keys(method: str) -> None:
    for override in SENSELESS[method]:
        key = override.partition("=")[0].replace(".", r"\..*")
        with pytest.raises(ConfigError, match=rf"is not valid: {key}[.\d]*: [^;]*(; give one.*)?$"):
            read_recipe("vcnet", [method, override])


@pytest.mark.parametrize(
    ("recipe", "overrides", "least"),
    [
        ("daspm", ["method.border=160"], "chip=321"),
        ("daspm", ["method.masked_weight=1", "method.masked_block=320"], "chip=640"),
        ("c2fnet", ["method.scales=[4, 1024]"], "chip=1056"),
        ("vcnet", ["method.name=block-consistency", "method.block=1000"], "chip=1000"),
    ],
)
def test_a_method_that_leaves_nothing_of_a_chip_is_refused(
    recipe: str, overrides: list[str], least: str
) -> None:
    with pytest.raises(
        ConfigError, match=r"chip: .*method\.(border|masked_block|scales|block) = .* px.*; give"
    ):
        read_recipe(recipe, overrides)
    assert read_recipe(recipe, [*overrides, least]).chip >= 320


@pytest.mark.parametrize("name", recipe_names())
def test_another_method_takes_the_place_of_a_recipe_s_own(name: str) -> None:
    assert read_recipe(name, ["method.name=ce"]).method == CrossEntropy()
    other = read_recipe(name, ["method.warm_up=0.125", "method.name=nlat"]).method
    assert isinstance(other, Nlat) and other.warm_up == 0.125
    kept = read_recipe(name).method
    assert read_recipe(name, [f"method.name={kept.name}"]).method == kept


def test_network_and_method_must_fit(city: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes ce, cas-dva"):
        train(request(city, tmp_path / "run", {"method": {"name": "plat"}}))
    with pytest.raises(ConfigError, match="the nearest is chip = 32"):
        train(
            request(
                city, tmp_path / "run2", {"network": "vcnet-tiny", "method": {"name": "plat"}, "chip": 40}
            )
        )


def test_schedules() -> None:
    poly = Schedule(name="poly", power=0.9)
    assert [round(poly.rate(1, s, 4, 0), 3) for s in range(4)] == [1, 0.772, 0.536, 0.287]
    assert Schedule(name="cosine").rate(2, 5, 10, 0) == pytest.approx(1)
    assert Schedule(name="constant", warm_up=4).rate(1, 0, 10, 0) == 0.25
    held = Schedule(name="cosine", hold=0.2)
    assert [held.rate(2, s, 10, 0) for s in (0, 2, 6)] == [2, 2, pytest.approx(1)]
    assert Schedule(name="steps", every=2, factor=0.5, floor=0.2).rate(1, 0, 1, 9) == 0.2


@pytest.mark.parametrize(
    "name", [n for n in recipe_names() if n.endswith("-light") and n not in (*ADAPTING, *FUSING)]
)
def test_a_held_schedule_hands_over_at_the_full_rate_with_most_of_the_learning_left(name: str) -> None:
    recipe = read_recipe(name)
    assert isinstance(recipe.method, (Plat, CasDva, C2F, Nlat))
    steps = recipe.epochs * recipe.chips_per_epoch // recipe.batch
    rates = [recipe.schedule.rate(recipe.optimiser.lr, step, steps, 0) for step in range(steps)]
    first = next(s for s in range(steps) if Moment(s, steps, 0).progress >= recipe.method.warm_up)
    assert rates[first] == recipe.optimiser.lr
    assert sum(rates[first:]) > 0.5 * sum(rates)


@pytest.mark.parametrize("network", METHODS)
def test_a_batch_without_labels_teaches_nothing(network: str) -> None:
    from citycover_models.imagery.aerial import CHESAPEAKE_RGBN

    kinds = {"cas-dva": CasDva, "plat": Plat, "c2f": C2F, "nlat": Nlat}
    torch.manual_seed(0)
    module = find_aerial(network).build_for(4, statistics=CHESAPEAKE_RGBN)
    images = torch.randint(0, 255, (2, 4, 64, 64), dtype=torch.uint8)
    nothing = torch.full((2, 64, 64), IGNORE)
    for method in (kinds[METHODS[network]["name"]].model_validate(METHODS[network]), CrossEntropy()):
        loss = Learner(module, method)(LabelledBatch(images, nothing), Moment(9, 10, 0))
        loss.backward()
        assert float(loss.detach()) < 0.1
        assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in module.parameters())


def test_heads_with_a_void_channel_learn_the_same_classes() -> None:
    class Void(Learnable):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(x[:, 0].long() + 1, 5).permute(0, 3, 1, 2) * 50.0

    network, labels = Void(), torch.randint(0, 4, (1, 8, 8))
    network.first_class = 1
    batch = LabelledBatch(labels[:, None], labels)
    assert float(Learner(network, CrossEntropy())(batch, Moment(0, 1, 0))) < 1e-6


def test_a_recipe_is_a_value() -> None:
    recipe = small_recipe()
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe
    assert recipe.epoch_chips(3) == 6
    assert small_recipe(chips_per_epoch=0, chips_per_image=5, batch=4).epoch_chips(3) == 16


def test_real_pairs_can_be_learned_from(real_data: Path, tmp_path: Path) -> None:
    """Landsat at 30 m with the land cover of another grid and CRS."""
    from citycover_models.data.pairs import ImageAndLabels
    from citycover_models.data.prepare import prepare_training_set

    folder = real_data / "pairs" / "zion_landsat_nlcd"
    import rasterio

    with rasterio.open(folder / "landsat_b2.tif") as source:
        profile = source.profile | {"count": 4, "driver": "GTiff"}
        bands = [rasterio.open(folder / f"landsat_b{n}.tif").read(1) for n in (4, 3, 2, 5)]
    stack = tmp_path / "landsat.tif"
    with rasterio.open(stack, "w", **profile) as sink:
        sink.write(np.stack(bands))
        for index, name in enumerate(("red", "green", "blue", "nir"), start=1):
            sink.set_band_description(index, name)
    training_set = prepare_training_set(
        [ImageAndLabels(str(stack), (str(folder / "nlcd2011.tif"),))], ["nlcd"], "base4"
    )
    trained = train(
        TrainRequest(training_set, small_recipe(epochs=1), tmp_path / "run", workers=0, measure=False)
    )
    assert read_model_file(trained.model).card.native_gsd == pytest.approx(30, rel=0.02)
