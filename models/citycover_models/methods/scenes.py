"""Methods for patches of scenes: several labels a scene, or a class for each of its pixels."""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol, runtime_checkable

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from citycover_models.blocks.cross_entropy import cross_entropy
from citycover_models.data.labels import IGNORE
from citycover_models.data.patch_batches import PatchBatch
from citycover_models.methods.method import BaseMethod, Moment
from citycover_models.nets.band_fusion import DenseFusion, SceneFusion, focal_loss


@runtime_checkable
class Scenes(Protocol):
    """One vector of logits a scene."""

    def scene_logits(self, b10: Tensor, b20: Tensor, b60: Tensor) -> Tensor:
        """Raw (n, 4, y, x), (n, 6, y/2, x/2), (n, 2, y/6, x/6) -> logits (n, k)."""


class BinaryCrossEntropy(BaseMethod):
    """Each label on its own; the record's own loss."""

    needs: ClassVar[type] = Scenes
    name: Literal["bce"] = "bce"

    def __call__(self, network: Scenes, batch: PatchBatch, _moment: Moment) -> Tensor:
        """The loss of one batch."""
        return F.binary_cross_entropy_with_logits(network.scene_logits(*batch.groups), batch.labels)


class Focal(BaseMethod):
    """Looks away from what is already right; the record's option. See `focal_loss`."""

    needs: ClassVar[type] = Scenes
    name: Literal["focal"] = "focal"
    gamma: float = Field(default=2.0, ge=0, le=100)
    alpha: float = Field(default=1.0, gt=0, le=1e6)

    def __call__(self, network: Scenes, batch: PatchBatch, _moment: Moment) -> Tensor:
        """The loss of one batch."""
        return self.alpha * focal_loss(network.scene_logits(*batch.groups), batch.labels, self.gamma)


class Reference(BaseMethod):
    """Cross-entropy with the reference map of each patch, for the dense heads."""

    needs: ClassVar[type] = DenseFusion
    name: Literal["reference"] = "reference"

    def __call__(self, network: DenseFusion, batch: PatchBatch, _moment: Moment) -> Tensor:
        """The loss of one batch."""
        assert batch.reference is not None, "the material reads them for this method"
        return cross_entropy(network(*batch.groups), batch.reference, ignore=IGNORE)


# The type checker holds the network to what the methods need.
_scenes: type[Scenes] = SceneFusion
