"""Training on patches: overfitting, going on, regions, heads, reference maps, and what is refused."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from patches_making import V1, v2_rows, write_v1, write_v2
from safetensors.torch import load_file

from citycover.errors import ConfigError, StoppedError
from citycover.model.archive import read_model_file
from citycover.model.card import ModelCard
from citycover_models.blocks.band_encoders import Backbone, Mode
from citycover_models.catalogue.registry import find_fusion
from citycover_models.data.patch_batches import PatchBatch
from citycover_models.data.patch_set import PatchSet, prepare_patches
from citycover_models.data.shards import Shards
from citycover_models.imagery.sentinel2 import BIGEARTHNET_V1
from citycover_models.methods.method import Moment
from citycover_models.methods.scenes import BinaryCrossEntropy, Focal
from citycover_models.nets.band_fusion import SceneFusion
from citycover_models.training.patches import PatchMaterial
from citycover_models.training.processes import Processes
from citycover_models.training.recipe import Recipe, Schedule, parse_recipe, read_recipe
from citycover_models.training.request import Trained, TrainRequest, TrainWatch
from citycover_models.training.setup import check_method
from citycover_models.training.start import train


def small(**changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "name": "small", "network": "band-fusion-early-resnet18", "method": {"name": "bce"}, "chip": 120,
        "batch": 2, "epochs": 2, "optimiser": {"name": "adamw", "lr": 0.001},
        "augment": {"symmetries": True, "brightness": 0.05},
    }  # fmt: skip
    return parse_recipe(fields | changes)


def run(patches: PatchSet, out: Path, recipe: Recipe | None = None, **more: Any) -> Trained:
    watch = more.pop("watch", None)
    given = {"workers": 0, "measure": False} | more
    return train(TrainRequest(patches, recipe or small(), out, **given), watch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ben") / "v2"
    rows = v2_rows(12, ("Austria", "Finland"))
    codes = {}
    for row in rows:
        code = np.full((120, 120), 512 if row["labels"] == ["Inland waters"] else 312, np.uint16)
        code[:6] = 999
        codes[row["patch_id"]] = code
    write_v2(folder, rows, codes)
    return folder


@pytest.mark.parametrize(
    ("mode", "backbone"),
    [("early", "efficientnet-b0"), ("intermediate", "resnet18"), ("late", "efficientnet-b0")],
)
def test_one_patch_is_overfitted_to_its_labels(mode: Mode, backbone: Backbone) -> None:
    torch.manual_seed(0)
    network = SceneFusion(mode, backbone)
    labels = torch.zeros(2, 19)
    labels[:, [2, 8, 13]] = 1
    sides = ((4, 120), (6, 60), (2, 20))
    b10, b20, b60 = (
        torch.randint(0, 4000, (1, bands, s, s)).float().repeat(2, 1, 1, 1) for bands, s in sides
    )
    batch = PatchBatch((b10, b20, b60), labels)
    optimiser = torch.optim.Adam(network.parameters(), 0.003)
    method, losses = BinaryCrossEntropy(), []
    network.train()
    for step in range(12):
        loss = method(network, batch, Moment(step, 12, 0))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0]
    with torch.inference_mode():
        assert torch.equal((network.scene_logits(*batch.groups) > 0).float(), labels)


@pytest.mark.parametrize("name", ["band-fusion", "band-fusion-light"])
def test_built_in_recipes_fit_their_networks(name: str) -> None:
    recipe = read_recipe(name)
    with torch.device("meta"):
        network = find_fusion(recipe.network).build_for(19, statistics=BIGEARTHNET_V1, correlation=None)
    check_method(network, recipe.network, recipe)
    assert recipe.source and recipe.chip == 120


def test_losses_by_hand() -> None:
    class Given(torch.nn.Module):
        def scene_logits(self, b10: torch.Tensor, b20: torch.Tensor, b60: torch.Tensor) -> torch.Tensor:
            assert (b10.shape[1], b20.shape[1], b60.shape[1]) == (4, 6, 2)
            return torch.log(torch.tensor([[3.0, 1 / 3]]))  # probabilities 3/4 and 1/4

    empty = tuple(torch.zeros(1, bands, 1, 1) for bands in (4, 6, 2))
    batch = PatchBatch((empty[0], empty[1], empty[2]), torch.tensor([[1.0, 1.0]]))
    now, a, b = Moment(0, 1, 0), -np.log(0.75), -np.log(0.25)
    assert BinaryCrossEntropy()(Given(), batch, now).item() == pytest.approx((a + b) / 2)
    focal = Focal(gamma=2.0, alpha=0.5)(Given(), batch, now).item()
    assert focal == pytest.approx(0.5 * (0.25**2 * a + 0.75**2 * b) / 2)


def test_a_training_leaves_a_model_that_says_what_it_learned(folder: Path, tmp_path: Path) -> None:
    patches = prepare_patches(folder, test_regions=["Finland"])
    trained = run(patches, tmp_path / "run", small(epochs=4))
    assert trained.steps == 4 * 4 and 0 <= trained.validation["validation_map"] <= 1
    assert trained.validation["validation_map"] > 0.9, "levels tell water from forest"
    test = trained.test
    assert test["patches"] == 2 and set(test["classes"]) <= set(patches.legend.names)
    assert {"micro_f2", "ranking_loss", "coverage", "lrap", "label_distance"} <= test.keys()
    card = read_model_file(trained.model).card
    assert (card.task, card.legend.name) == ("labels", "bigearthnet19")
    assert "8 patches of BigEarthNet v2" in card.training
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert {"predictions-0004.png", "curves.png", "metrics.jsonl", "weights.safetensors"} <= names
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert weights["groups.b10.mean"].flatten()[0].item() == pytest.approx(plan["band_mean"]["B02"])
    assert card.groups[0].fill[0] == pytest.approx(plan["band_mean"]["B02"])
    assert np.sum(plan["correlation"][17]) == pytest.approx(1)


def test_a_stopped_training_goes_on_to_the_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from citycover_models.training import loop as module

    patches = prepare_patches(folder, shards=tmp_path / "shards")
    recipe = small(
        network="band-fusion-late-resnet18", schedule={"name": "plateau", "every": 1, "factor": 0.5}
    )
    run(patches, tmp_path / "straight", recipe)
    stop, note = threading.Event(), module.Run._note

    def stopping(self: Any, *arguments: Any, **named: Any) -> None:
        note(self, *arguments, **named)
        if self.state.step == 5:
            stop.set()

    monkeypatch.setattr(module.Run, "_note", stopping)
    with pytest.raises(StoppedError):
        run(patches, tmp_path / "broken", recipe, watch=TrainWatch(stop=stop))
    monkeypatch.undo()
    file = Path(patches.train[0].files[0])
    content, dates = file.read_bytes(), file.stat()
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="belongs to another training"):
        run(prepare_patches(folder), tmp_path / "broken", recipe, resume=True)
    os.utime(file, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    run(patches, tmp_path / "broken", recipe, resume=True, workers=1)
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("straight", "broken"))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_of_several_processes_the_first_alone_decodes(folder: Path, tmp_path: Path) -> None:
    class Second(Processes):
        """Of two; told what the first made."""

        def first(self, work: Callable[[], Any]) -> Any:
            return "files", Shards({}, {})

    patches = prepare_patches(folder, shards=tmp_path / "shards")
    request = TrainRequest(patches, small(), tmp_path / "run")
    material = PatchMaterial(request, patches, Second(1, 2, torch.device("cpu")), threading.Event())
    assert "files" in material.identity and not (tmp_path / "shards").exists()


def test_from_region_to_region_the_head_alone_learns(folder: Path, tmp_path: Path) -> None:
    network = "band-fusion-early-efficientnet-b0"
    one = run(prepare_patches(folder, regions=["Austria"]), tmp_path / "a", small(network=network, epochs=1))
    b = prepare_patches(folder, regions=["Finland"], share=0.5)
    recipe = small(network=network, epochs=1, learn="head")
    with pytest.raises(ConfigError, match="give --weights of a network"):
        run(b, tmp_path / "x", recipe)
    weights = one.folder / "weights.safetensors"
    two = run(b, tmp_path / "b", recipe, weights=weights)
    before, after = load_file(weights), load_file(two.folder / "weights.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"head.fc.weight", "head.correlation"} <= changed
    assert all(name.startswith("head.") for name in changed), "statistics of the source stay too"
    whole = run(b, tmp_path / "c", small(network=network, epochs=1), weights=weights)
    tuned = load_file(whole.folder / "weights.safetensors")
    assert not torch.equal(tuned["groups.b10.mean"], before["groups.b10.mean"]), "measured on the target"


def test_late_fusion_without_60_m_becomes_a_model_of_two_groups(folder: Path, tmp_path: Path) -> None:
    network = "band-fusion-late-resnet18-without-60m"
    trained = run(prepare_patches(folder), tmp_path / "run", small(network=network, epochs=1))
    card = read_model_file(trained.model).card
    assert [group.ratio for group in card.groups] == [1, 2] and 0 <= trained.test["micro_ap"] <= 1


def test_a_dense_head_learns_from_reference_maps(folder: Path, tmp_path: Path) -> None:
    # A batch of all patches: one of a single class would have its level normalised away.
    recipe = small(
        network="band-fusion-early-resnet18-dense", method={"name": "reference"}, epochs=5, batch=8
    )
    trained = run(prepare_patches(folder, shards=tmp_path / "shards"), tmp_path / "run", recipe)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [row["loss"] for row in map(json.loads, lines) if "loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    assert trained.test["patches"] == 2 and 0 <= trained.validation["validation_miou"] <= 1
    assert read_model_file(trained.model).card.task == "classes"


def test_43_labels_can_be_learned(tmp_path: Path) -> None:
    write_v1(tmp_path / "v1", {f"{V1}_{n}_1": ["Airports", "Pastures"] for n in (1, 2, 3)})
    for split in ("train", "val", "test"):
        names = [f"{V1}_{n}_1" for n in (1, 2, 3)] if split == "train" else []
        (tmp_path / "v1" / f"{split}.csv").write_text("\n".join(names))
    patches = prepare_patches(tmp_path / "v1", to="bigearthnet43")
    trained = run(patches, tmp_path / "run", small(epochs=1, network="band-fusion-early-efficientnet-b0"))
    assert len(read_model_file(trained.model).card.legend.ids) == 43
    assert not trained.validation and not trained.test


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 1}, "cannot be normalised"),
        ({"chip": 60}, "patches have 120 px, the recipe 60"),
        ({"method": {"name": "plat"}}, "band-fusion-early-resnet18 takes bce, focal"),
        ({"network": "vcnet-tiny"}, "does not take Sentinel-2's bands"),
        ({"network": "band-fusion-early-resnet18-dense"}, "takes reference"),
    ],
)
def test_recipes_that_do_not_fit_patches_are_refused(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    from citycover.errors import CitycoverError

    with pytest.raises(CitycoverError, match=message):
        run(prepare_patches(folder), tmp_path / "run", small(**changes))


def test_reference_maps_are_asked_for_before_a_pixel_is_read(tmp_path: Path) -> None:
    write_v2(tmp_path / "v2", v2_rows(3))
    recipe = small(network="band-fusion-early-resnet18-dense", method={"name": "reference"})
    with pytest.raises(ConfigError, match="Reference_Maps"):
        run(prepare_patches(tmp_path / "v2"), tmp_path / "run", recipe)


def test_a_plateau_lowers_the_rate_and_nothing_else_does() -> None:
    plateau = Schedule(name="plateau", factor=0.1)
    assert [plateau.rate(1.0, 5, 10, 5, falls) for falls in (0, 1, 2)] == pytest.approx([1, 0.1, 0.01])
    assert Schedule(name="constant").rate(1.0, 5, 10, 5, 3) == 1


def test_trained_networks_become_files_of_both_kinds(folder: Path, tmp_path: Path) -> None:
    from citycover_models.export.network import export_preset

    name = "band-fusion-late-resnet18"
    trained = run(prepare_patches(folder), tmp_path / "run", small(network=name, epochs=1))
    weights = trained.folder / "weights.safetensors"
    cards: list[ModelCard] = []
    for file in ("m.pt", "m.pt2"):
        done = export_preset(name, tmp_path / file, weights=weights, measure=False)
        assert done.report.difference <= 1e-5 and done.loaded is not None and not done.loaded.missing
        cards.append(done.report.card)
    assert cards[0].groups == cards[1].groups
