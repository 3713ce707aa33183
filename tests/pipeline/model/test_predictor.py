import threading

import pytest
import torch
from making import make_card

from citycover.errors import ConfigError, MachineError, StoppedError
from citycover.machine.device import choose_device
from citycover.model.autocast import autocast
from citycover.model.builtin import builtin_path
from citycover.model.gate import fast_precision, passes_gate
from citycover.model.joint import read_map_model
from citycover.model.loading import load_predictor
from citycover.model.predictor import ModelPredictor
from citycover.model.probabilities import to_probabilities


def probabilities(seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.softmax(3 * torch.randn(1, 5, 200, 200), 1)


def test_the_gate_lets_near_ties_flip_and_nothing_else() -> None:
    exact = probabilities()
    noisy = (exact + 0.002 * torch.randn_like(exact)).clamp(1e-6)
    assert (noisy.argmax(1) != exact.argmax(1)).any() and passes_gate(exact, noisy)
    flipped = exact.clone()
    flipped[:, :, :10, :10] = exact[:, :, :10, :10].flip(1)
    assert not passes_gate(exact, flipped)
    assert not passes_gate(exact, exact + 0.02)
    assert not passes_gate(exact, torch.full_like(exact, torch.nan))


def test_scores_become_probabilities_as_the_card_says() -> None:
    scores = torch.randn(1, 5, 4, 4)
    classes, labels = make_card(32, 2, 2), make_card(32, 2, 2, task="labels")
    assert to_probabilities(scores, classes).sum(1).allclose(torch.ones(1, 4, 4))
    assert to_probabilities(scores, labels).equal(torch.sigmoid(scores))
    ready = make_card(32, 2, 2, activation="probabilities")
    kept = to_probabilities(scores, ready)
    assert kept.equal(scores) and kept.data_ptr() != scores.data_ptr()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probabilities_come_planar_from_any_scores_and_in_place_is_exact(
    layout: torch.memory_format, dtype: torch.dtype
) -> None:
    whole = (4 * torch.randn(2, 7, 40, 50)).to(dtype).contiguous(memory_format=layout)
    scores = whole[:, :, 3:37, 5:45]
    expected = torch.softmax(scores.float().contiguous(), 1)
    memory = torch.empty(2, 7, 34, 40)
    found = to_probabilities(scores, make_card(32, 2, 2), memory)
    assert found.equal(expected) and found.is_contiguous() and found.data_ptr() == memory.data_ptr()
    assert scores.equal(whole[:, :, 3:37, 5:45]) and not scores.float().equal(found)


@pytest.mark.parametrize("turns", ["none", "d4"])
def test_a_run_that_is_stopped_leaves_off_with_its_trials_and_others_go_on(turns: str) -> None:
    model, stop, device = read_map_model("spectral-rgbn", turns), threading.Event(), torch.device("cpu")
    windows = [torch.zeros(1, 4, 64, 64, dtype=torch.uint8)]
    predictor = load_predictor(model, device, stop)
    assert predictor(windows).isfinite().all()
    stop.set()
    with pytest.raises(StoppedError):
        predictor(windows)
    assert load_predictor(model, device, threading.Event())(windows).isfinite().all()


def test_a_model_gives_the_same_scores_alone_and_in_a_batch_up_to_rounding() -> None:
    predictor = ModelPredictor.load(builtin_path("spectral-rgbn"), torch.device("cpu"))
    windows = torch.randint(0, 255, (3, 4, 64, 80), dtype=torch.uint8)
    together = predictor([windows])
    for k in range(3):
        assert predictor([windows[k : k + 1]])[0].allclose(together[k], atol=1e-4)


def test_reduced_precision_is_autocast() -> None:
    predictor = ModelPredictor.load(builtin_path("spectral-rgbn"), torch.device("cpu"), "bf16")
    scores = predictor([torch.randint(0, 255, (1, 4, 64, 64), dtype=torch.uint8)])
    assert torch.isfinite(scores).all()
    assert to_probabilities(scores, predictor.card).dtype == torch.float32


def test_another_precision_is_another_predictor_of_the_same_network() -> None:
    exact = ModelPredictor.load(builtin_path("spectral-rgbn"), torch.device("cpu"))
    fast = exact.at("bf16")
    assert fast.network is exact.network and (exact.precision, fast.precision) == ("fp32", "bf16")
    with pytest.raises(AttributeError):
        exact.precision = "bf16"  # type: ignore[misc]
    windows = [torch.randint(0, 255, (1, 4, 64, 64), dtype=torch.uint8)]
    before = exact(windows)
    assert not fast(windows).float().equal(before) and exact(windows).equal(before)


def test_devices_that_are_not_there_are_named() -> None:
    assert choose_device("cpu").type == "cpu" and choose_device("auto").type in ("cpu", "cuda")
    for name in ("warp-drive", "meta"):  # an option that is wrong, not a machine that lacks something
        with pytest.raises(ConfigError, match="--device takes"):
            choose_device(name)
    with pytest.raises(MachineError, match="--device cpu"):
        choose_device("cuda:99")
    assert fast_precision(torch.device("cpu")) in (None, "bf16")


def test_tf32_is_of_cuda_devices() -> None:
    predictor = ModelPredictor.load(builtin_path("spectral-rgb"), torch.device("cpu"))
    with pytest.raises(MachineError, match=r"tf32 is a precision of CUDA devices, and this is cpu; give"):
        predictor.at("tf32")


def test_tf32_lasts_as_long_as_the_call() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    with autocast(torch.device("cuda"), "tf32"):
        assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
