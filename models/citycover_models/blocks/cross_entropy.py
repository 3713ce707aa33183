"""Cross-entropy over some pixels, shared by the losses that choose which labels to believe."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    ignore: int,
    class_weights: Tensor | None = None,
    keep_shares: bool = False,
) -> Tensor:
    """Mean over labelled pixels by their weights; 0, with zero gradients, where all weights are 0.

    Args:
        logits: (n, k, y, x).
        labels: (n, y, x) channel numbers.
        weights: (n, y, x), or bool: how much each pixel counts; None: all the same.
        ignore: label of pixels without one.
        class_weights: (k,) times the weight of each pixel by its label; None: all the same.
        keep_shares: rescale each class to the share it has among all labelled pixels. A selection by what
            the network believes already keeps few pixels of a class that it finds hard, and would teach it
            that the class is rare.
    """
    valid = labels != ignore
    target = labels.where(valid, 0).long()
    kept = valid.to(logits.dtype) if weights is None else weights * valid
    if keep_shares and weights is not None:
        k = logits.shape[1]
        wanted = torch.bincount(target[valid], minlength=k).to(logits.dtype)
        found = logits.new_zeros(k).index_add(0, target.flatten(), kept.flatten().to(logits.dtype))
        kept = kept * (wanted / found.clamp(min=1)).clamp(max=_MOST)[target]
    if class_weights is not None:
        kept = kept * class_weights[target]
    entropy = F.cross_entropy(logits, target, reduction="none")
    return (entropy * kept).sum() / kept.sum().clamp(min=1e-6)


_MOST = 20.0
"""How much more a pixel may count because few of its class were kept."""
