"""Several networks, or one that sees windows turned, as one predictor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from citycover.model.card import ModelCard
from citycover.model.converted import Shapes
from citycover.model.entropy import entropy
from citycover.model.form import Form
from citycover.model.joint import Turns
from citycover.model.precision import Precision
from citycover.model.predictor import Predictor
from citycover.model.probabilities import to_probabilities

Turn = tuple[bool, tuple[int, ...]]
"""Whether rows and columns change places, and which axes are flipped after it."""

_FLIPS: tuple[Turn, ...] = ((False, ()), (False, (3,)), (False, (2,)), (False, (2, 3)))

TURNS: dict[Turns, tuple[Turn, ...]] = {
    "none": _FLIPS[:1],
    "flips": _FLIPS,
    "d4": (*_FLIPS, *((True, axes) for _, axes in _FLIPS)),
}


@dataclass(frozen=True, slots=True, eq=False)
class JointPredictor:
    """Several networks, or one that sees each window turned, too: their mean probabilities.

    How far they differ is the mutual information between the class of a pixel and the member that is asked,
    that is the Jensen-Shannon divergence of what members say, weighed as they are: the entropy of the mean
    less the mean of entropies. Members are networks times turns, N in all; it is divided by the logarithm of
    the smaller of N and the number of classes, so that 1 means that each is certain, and of another class.
    Where a pixel may be of several classes it is the mean over them. Sources: Lin, IEEE Transactions on
    Information Theory 37(1), 1991; as a measure of what models do not know: Smith & Gal, UAI 2018.
    """

    card: ModelCard
    device: torch.device
    parts: tuple[tuple[Predictor, float, Tensor], ...]
    """Networks, weights, and the place of each of their channels in the joint map."""
    turns: tuple[Turn, ...]
    telling: bool = False
    """Whether one channel more, behind the classes, has the disagreement."""

    def with_disagreement(self) -> JointPredictor:
        """The same networks, which tell how far they differ."""
        return replace(self, telling=True)

    def at(self, precision: Precision, form: Form = "torchscript") -> JointPredictor:
        """The same networks in a precision and a form."""
        parts = tuple(
            (predictor.at(precision, form), weight, ranks) for predictor, weight, ranks in self.parts
        )
        return replace(self, parts=parts)

    def setting_up(self, shapes: Shapes) -> float:
        """Of all networks together, for windows as they lie and as they are turned."""
        seen = {_turned_shapes(shapes, turn) for turn in self.turns}
        return sum(predictor.setting_up(one) for predictor, _, _ in self.parts for one in seen)

    def forget(self) -> None:
        """Of all networks."""
        for predictor, _, _ in self.parts:
            predictor.forget()

    def __call__(self, windows: Sequence[Tensor]) -> Tensor:
        """(n, c, y, x) float32 mean probabilities: always in the same order, so always the same.

        Where they tell of it, (n, c + 1, y, x) with the disagreement last.
        """
        total: Tensor | None = None
        single: Tensor | float = 0.0
        for turn in self.turns:
            turned = [_turned(window, turn) for window in windows]
            for predictor, weight, ranks in self.parts:
                probabilities = to_probabilities(predictor(turned), predictor.card)
                with torch.inference_mode():
                    back = _turned_back(probabilities, turn)
                    if total is None:
                        shape = (len(back), len(self.card.channels), *back.shape[2:])
                        total = torch.zeros(shape, device=self.device)
                    share = weight / len(self.turns)
                    total.index_add_(1, ranks, back, alpha=share)
                    if self.telling:
                        alone = torch.zeros_like(total).index_add_(1, ranks, back)
                        single = single + share * self._entropy(alone)  # (n, y, x)
        assert total is not None, "there is a network, and a turn"
        return self._with_disagreement(total, single) if self.telling else total

    def _entropy(self, probabilities: Tensor) -> Tensor:
        """(n, y, x) 0 to 1, of (n, c, y, x)."""
        return entropy(probabilities.view(torch.int32).unbind(1), self.card.task == "classes")

    @torch.inference_mode()
    def _with_disagreement(self, mean: Tensor, single: Tensor | float) -> Tensor:
        """Mean probabilities, and behind them how far members differ, by the mean of their entropies."""
        classes = len(self.card.channels) if self.card.task == "classes" else 2
        most = math.log(min(classes, len(self.parts) * len(self.turns))) / math.log(classes)
        apart = ((self._entropy(mean) - single) / most).clamp_(0, 1)
        return torch.cat([mean, apart[:, None]], 1)


def _turned_shapes(shapes: Shapes, turn: Turn) -> Shapes:
    """Of windows that a network sees turned."""
    swaps, _ = turn
    return tuple(((*shape[:-2], shape[-1], shape[-2]), kind) for shape, kind in shapes) if swaps else shapes


def _turned(window: Tensor, turn: Turn) -> Tensor:
    """(n, band, y, x) as a network sees it; turned by nothing, the window itself is not given away."""
    swaps, axes = turn
    seen = window.transpose(2, 3) if swaps else window
    return seen.flip(axes).contiguous(memory_format=torch.channels_last)


def _turned_back(scores: Tensor, turn: Turn) -> Tensor:
    swaps, axes = turn
    straight = scores.flip(axes) if axes else scores
    return straight.transpose(2, 3) if swaps else straight


_: type[Predictor] = JointPredictor
