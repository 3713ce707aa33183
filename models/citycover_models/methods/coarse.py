"""Methods: which loss a paper puts on which network, as values that a recipe names.

The losses stand in their papers' files (`nets/`). A method here joins one to what its network gives, and says
what a paper's training needs beside the loss: a warm-up, a schedule of its own, roles that change.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator
from torch import Tensor, nn

from citycover.errors import ConfigError
from citycover_models.data.batches import LabelledBatch
from citycover_models.data.labels import IGNORE
from citycover_models.methods.method import (
    BaseMethod,
    Branches,
    Embeddings,
    Features,
    Moment,
    first_after,
    plain_loss,
    some,
)
from citycover_models.nets.c2fnet import C2FNet, Selection, c2f_loss, choose_labels
from citycover_models.nets.l2hnet import L2HNet, Selector, cas_dva_loss
from citycover_models.nets.paraformer import Paraformer, plat_loss
from citycover_models.nets.udsda import Shuffle, accepted_area, annotate_classes, pseudo_labels
from citycover_models.nets.vcnet import VCNet
from citycover_models.nets.vhf_paranet import VHFParaNet, nlat_loss

_Weight = Annotated[float, Field(ge=0, le=1e6)]

_Share = Annotated[float, Field(ge=0, le=1)]


class _Selecting(BaseMethod):
    """A method that believes some labels and not others.

    What it needs beside its paper is citycover's own: a network that knows nothing yet agrees with its labels
    by chance, in one class at best, and would learn that one for ever. So plain cross-entropy comes first,
    and what is selected may keep the shares of the classes.
    """

    warm_up: float = Field(default=0.0, ge=0, le=1)
    """Share of the training with plain cross-entropy; 0 as published."""
    keep_shares: bool = False
    """Rescale what is selected to the class shares of the labels; False as published."""

    def counts_from(self, steps: int) -> int:
        """After the warm-up."""
        return first_after(self.warm_up, steps)

    def begins(self, moment: Moment) -> bool:
        """Whether the training is still in its warm-up."""
        return moment.progress < self.warm_up


class Plat(_Selecting):
    """Pseudo-label-assisted training of Paraformer and VCNet; see `plat_loss`."""

    needs: ClassVar[type] = Branches
    name: Literal["plat"] = "plat"
    weights: tuple[_Weight, _Weight] = (0.5, 0.5)
    aux_loss: Literal["ce", "dice"] = "ce"

    def __call__(self, network: Branches, batch: LabelledBatch, moment: Moment) -> Tensor:
        """The loss of one batch."""
        cnn, vit = network.branches(batch.images)
        if self.begins(moment):
            return plain_loss([cnn, vit], batch)
        return plat_loss(
            cnn, vit, batch.labels, ignore=IGNORE, weights=self.weights, aux_loss=self.aux_loss,
            keep_shares=self.keep_shares, class_weights=batch.class_weights,
        )  # fmt: skip


class CasDva(_Selecting):
    """Confident areas and vague-area consistency of L2HNet; see `cas_dva_loss`."""

    needs: ClassVar[type] = Features
    name: Literal["cas-dva"] = "cas-dva"
    cas: Selector = "dynamic"
    gamma: _Weight = 0.01

    def __call__(self, network: Features, batch: LabelledBatch, moment: Moment) -> Tensor:
        """The loss of one batch."""
        features = network.features(batch.images)
        logits = network.classify(features)
        if self.begins(moment):
            return plain_loss([logits], batch)
        return cas_dva_loss(
            logits, features, batch.labels, ignore=IGNORE, cas=self.cas, gamma=self.gamma,
            keep_shares=self.keep_shares, class_weights=batch.class_weights,
        )  # fmt: skip


class C2F(BaseMethod):
    """UDSDA label selection and the coarse-to-fine loss of C2FNet; see `annotate` and `c2f_loss`.

    Its selection takes a share of every class, so shares are kept as they are.
    """

    needs: ClassVar[type] = Embeddings
    name: Literal["c2f"] = "c2f"
    scales: Annotated[tuple[Annotated[int, Field(ge=1)], ...], AfterValidator(some)] = (4, 8, 16)
    rounds: int = Field(default=4, ge=1, le=100)
    warm_up: float = Field(default=0.025, ge=0, le=1)
    """Share of the training in which every label is accepted (5 epochs of 200)."""
    quantiles: tuple[_Share, _Share] = (0.5, 0.2)
    """Share of each class that is not accepted, at the start and at the end."""
    udsda: Selection = "shuffle_diag"
    """How labels are chosen; the others are what UDSDA is measured against, see `choose_labels`."""
    vague_least: float | None = Field(default=None, gt=0, lt=1)
    """Share of its mass from which a class becomes the label of a vague pixel, and none below (0.9 in the
    record); None: vague pixels learn their coarse labels, by less weight."""
    edges: bool = False
    """Learn the borders of what is predicted, too, by a head that C2FNet has for this alone."""

    def check_chip(self, chip: int) -> None:
        """Several tokens of each scale lie in it."""
        if max(self.scales) >= chip:
            raise ValueError(
                f"method.scales = {list(self.scales)} leave one token of a chip of {chip} px; give smaller "
                "ones, or larger chips"
            )

    def equip(self, network: nn.Module) -> None:
        """The edge head.

        Raises:
            ConfigError: the network can have none.
        """
        if not self.edges:
            return
        if not isinstance(network, C2FNet):
            raise ConfigError(
                f"method.edges needs a c2fnet network, which has an edge head; got {type(network).__name__}; "
                "choose --set network=c2fnet, or leave it out"
            )
        network.learn_edges()

    @model_validator(mode="after")
    def _shares_are_counted(self) -> C2F:
        if self.vague_least is not None and self.udsda != "shuffle_diag":
            raise ValueError(
                f"got vague_least with udsda = {self.udsda!r}; it needs the shares that shuffle_diag counts; "
                "leave one of the two out"
            )
        return self

    def counts_from(self, steps: int) -> int:
        """After the warm-up."""
        return first_after(self.warm_up, steps)

    def __call__(self, network: Embeddings, batch: LabelledBatch, moment: Moment) -> Tensor:
        """The loss of one batch."""
        labels, first = batch.labels, moment.progress < self.warm_up
        edges: Tensor | None = None
        if self.edges and isinstance(network, C2FNet):
            phi, coarse, edges = network.heads(batch.images)
        else:
            phi, coarse = network.embeddings(batch.images)
        cosines = network.cosines(phi)
        p, accepted, vague = self._chosen(network, cosines, phi, labels, moment.progress, first=first)
        if batch.class_weights is not None:
            p = p * batch.class_weights[labels.where(labels != IGNORE, 0)]
        return c2f_loss(
            cosines, phi, coarse, labels, p, accepted, ignore=IGNORE, vague_labels=vague, edge_logits=edges
        )

    def _chosen(
        self,
        network: Embeddings,
        cosines: Tensor,
        phi: Tensor,
        labels: Tensor,
        progress: float,
        *,
        first: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Weights, accepted area, and labels of vague pixels where they get some of their own."""
        quantile = self.quantiles[0] + (self.quantiles[1] - self.quantiles[0]) * progress
        shuffle = Shuffle(scales=self.scales, rounds=self.rounds)
        prototypes = network.prototypes()
        if self.vague_least is None or first:
            udsda: Selection = "off" if first else self.udsda
            chosen = choose_labels(
                cosines, phi, prototypes, labels, quantile, udsda=udsda, shuffle=shuffle, ignore=IGNORE
            )
            return *chosen, None
        p, shares = annotate_classes(phi, prototypes, labels, shuffle, ignore=IGNORE)
        accepted = accepted_area(p, labels, quantile, ignore=IGNORE)
        vague = pseudo_labels(shares, accepted, labels, least=self.vague_least, ignore=IGNORE)
        return p, accepted, vague


class Nlat(_Selecting):
    """Noise-label-assisted training of VHF-ParaNet; see `nlat_loss`."""

    needs: ClassVar[type] = Branches
    name: Literal["nlat"] = "nlat"
    symmetric: bool = False
    """The branches change roles every other epoch."""

    def __call__(self, network: Branches, batch: LabelledBatch, moment: Moment) -> Tensor:
        """The loss of one batch."""
        cnn, vit = network.branches(batch.images)
        if self.begins(moment):
            return plain_loss([cnn, vit], batch)
        return nlat_loss(
            cnn, vit, batch.labels, ignore=IGNORE, swap=self.symmetric and moment.epoch % 2 == 1,
            keep_shares=self.keep_shares, class_weights=batch.class_weights,
        )  # fmt: skip


# The type checker holds the networks to what the methods need.
_branches: tuple[type[Branches], type[Branches], type[Branches]] = (Paraformer, VCNet, VHFParaNet)
_features: type[Features] = L2HNet
_embeddings: type[Embeddings] = C2FNet
