"""UDSDA, unsupervised dynamic shuffle and diagonal annotation: which labels to believe, and how much.

The public record of C2FNet (`nets/c2fnet.py`) names it and its purpose: confident areas and their
probability, from close spatial patterns in multi-scale features. All below is citycover's interpretation:

    tokens ─▶ shuffled into groups of n ─▶ transported to the labels of their group ─▶ S (token, class)
                                           accepted where their own label gets most: the diagonal

- "shuffle": in each round, drawn anew, tokens meet others, near and far;
- "diagonal": tokens i are transported to the labels of tokens j; those of one label are interchangeable, so
  the plan is summed by class, and the diagonal is the token's own class;
- "dynamic": how much of each class is accepted rises during the training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def sinkhorn(cost: Tensor, eps: float = 0.05, iterations: int = 20) -> Tensor:
    """Transport plans of uniform marginals, in the log domain.

    Args:
        cost: (g, n, n).
        eps: weight of the entropy.
        iterations: of both scalings.

    Returns:
        (g, n, n), rows and columns summing to 1/n.
    """
    n = cost.shape[1]
    log_mass = -torch.log(torch.tensor(float(n), device=cost.device))
    kernel = -cost / eps
    f = torch.zeros(cost.shape[:2], device=cost.device, dtype=cost.dtype)
    g = torch.zeros_like(f)
    for _ in range(iterations):
        f = log_mass - torch.logsumexp(kernel + g[:, None, :], dim=2)
        g = log_mass - torch.logsumexp(kernel + f[:, :, None], dim=1)
    return (kernel + f[:, :, None] + g[:, None, :]).exp()


@dataclass(frozen=True, slots=True)
class Shuffle:
    """How UDSDA regroups pixels."""

    scales: tuple[int, ...] = (4, 8, 16)
    rounds: int = 4
    """R: regroupings a scale."""
    group: int = 64
    """n: tokens that are matched with each other."""
    distance: float = 0.1
    """beta: how much nearness in the image counts."""


def annotate(
    phi: Tensor, prototypes: Tensor, labels: Tensor, shuffle: Shuffle | None = None, *, ignore: int = 255
) -> Tensor:
    """How often, and how clearly, a pixel is matched to its own label: the first of `annotate_classes`."""
    return annotate_classes(phi, prototypes, labels, shuffle, ignore=ignore)[0]


def annotate_classes(
    phi: Tensor, prototypes: Tensor, labels: Tensor, shuffle: Shuffle | None = None, *, ignore: int = 255
) -> tuple[Tensor, Tensor]:
    """What shuffled groups say of each pixel: of its own label, and of every class.

    In each round the tokens of an image are shuffled into groups; in a group, tokens i are transported to the
    labels of tokens j at cost 1 - phi_i . w_(Y_j) + beta d(i, j). S_ik, the mass that token i sends to class
    k, accepts the token where its own label gets most, with score S_iY / sum_k S_ik. Rounds and scales are
    averaged.

    Args:
        phi: (n, d, y, x) embeddings of length 1.
        prototypes: (k, d) weight vectors of the classes.
        labels: (n, y, x) coarse labels.
        shuffle: scales, rounds, groups.
        ignore: label of pixels without one: they are in no group, and get 0.

    Returns:
        (n, y, x) p in 0..1, the scores where accepted, and (n, k, y, x) shares S_ik / sum_k S_ik.
    """
    shuffle = shuffle or Shuffle()
    prototypes = F.normalize(prototypes.detach(), dim=1)
    height, width = labels.shape[1:]
    total = torch.zeros(len(labels), 1 + len(prototypes), height, width, device=phi.device)
    with torch.no_grad():
        for scale in shuffle.scales:
            small = F.normalize(F.avg_pool2d(phi.detach().float(), scale), dim=1)
            coarse = labels[:, scale // 2 :: scale, scale // 2 :: scale]
            coarse = coarse[:, : small.shape[2], : small.shape[3]]
            images = zip(small, coarse, strict=True)
            scores = torch.stack([_annotate_image(p, prototypes, y, shuffle, ignore) for p, y in images])
            total += F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=False)
    total = (total / len(shuffle.scales)) * (labels != ignore)[:, None]
    return total[:, 0], total[:, 1:]


def _annotate_image(phi: Tensor, prototypes: Tensor, labels: Tensor, shuffle: Shuffle, ignore: int) -> Tensor:
    """(d, y, x) and (y, x) -> (1 + k, y, x): score and shares of an image at one scale."""
    valid = (labels != ignore).flatten().nonzero()[:, 0]
    k = len(prototypes)
    scores = torch.zeros(labels.numel(), 1 + k, device=phi.device)
    groups = len(valid) // shuffle.group
    if groups == 0:
        return scores.T.reshape(1 + k, *labels.shape)
    tokens, marks = phi.flatten(1).T, labels.flatten().long()
    rows, cols = torch.meshgrid(*(torch.arange(s, device=phi.device) for s in labels.shape), indexing="ij")
    places = torch.stack([rows.flatten(), cols.flatten()], dim=1).float() / max(labels.shape)
    seen = torch.zeros(labels.numel(), 1, device=phi.device)
    for _ in range(shuffle.rounds):
        order = valid[torch.randperm(len(valid), device=phi.device)][: groups * shuffle.group]
        members = order.view(groups, shuffle.group)
        own = marks[members]  # (g, n)
        cost = 1 - (tokens[members] @ prototypes.T).gather(2, own[:, None, :].expand(-1, shuffle.group, -1))
        cost = cost + shuffle.distance * torch.cdist(places[members], places[members]).clamp(max=1)
        mass = sinkhorn(cost) @ F.one_hot(own, k).to(cost.dtype)  # (g, n, k): S
        share = mass / mass.sum(dim=2, keepdim=True).clamp(min=1e-12)
        mine = share.gather(2, own[:, :, None])
        accepted = mine >= share.amax(dim=2, keepdim=True)
        scores.index_add_(0, order, torch.cat([mine * accepted, share], dim=2).flatten(0, 1))
        seen.index_add_(0, order, torch.ones(len(order), 1, device=phi.device))
    return (scores / seen.clamp(min=1)).T.reshape(1 + k, *labels.shape)


def accepted_area(p: Tensor, labels: Tensor, quantile: float, *, ignore: int = 255) -> Tensor:
    """CA: pixels whose p reaches the quantile of their label's class (dynamic: it falls from 0.5 to 0.2).

    Args:
        p: (n, y, x) of `annotate`.
        labels: (n, y, x).
        quantile: share of each class that is not accepted.
        ignore: label of pixels without one; never accepted.

    Returns:
        (n, y, x) bool.
    """
    accepted = torch.zeros_like(labels, dtype=torch.bool)
    for k in labels.unique().tolist():
        if k == ignore:
            continue
        mine = labels == k
        values = p[mine].sort().values
        accepted |= mine & (p >= values[min(int(quantile * len(values)), len(values) - 1)])
    return accepted & (p > 0)


def pseudo_labels(
    shares: Tensor, accepted: Tensor, labels: Tensor, *, least: float = 0.9, ignore: int = 255
) -> Tensor:
    """New labels for vague pixels: the class that gets more than `least` of their mass, or none.

    Args:
        shares: (n, k, y, x) of `annotate_classes`.
        accepted: (n, y, x) bool; accepted pixels keep their label.
        labels: (n, y, x) coarse labels.
        least: share from which a class is believed.
        ignore: label of pixels without one; they stay without.

    Returns:
        (n, y, x), like `labels`.
    """
    share, best = shares.max(dim=1)
    believed = (share > least) & (labels != ignore)
    return labels.where(accepted, best.to(labels.dtype).where(believed, ignore))
