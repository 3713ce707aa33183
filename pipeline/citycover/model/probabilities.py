"""Scores of a network become probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from citycover.model.card import ModelCard

_ROWS = 64
"""That are laid out plane by plane together: of whole planes, which lie far apart, no cache holds enough."""


def to_probabilities(scores: Tensor, card: ModelCard, out: Tensor | None = None) -> Tensor:
    """(n, c, y, x) scores of any type and layout to planar float32 probabilities, the caller's own.

    One copy, and all else in place: a second tensor of this size costs more than the arithmetic.

    Args:
        scores: logits or probabilities, as the card says.
        card: of the network that gave them.
        out: memory for the result; None: new.
    """
    channels = scores.shape[1] if card.background is None else 2
    shape = (len(scores), channels, *scores.shape[2:])
    own = torch.empty(shape, dtype=torch.float32, device=scores.device) if out is None else out
    if card.background is not None:
        return _with_background(scores, card, own)
    rows = _ROWS if own.device.type == "cpu" else own.shape[2]
    for first in range(0, own.shape[2], rows):
        own[:, :, first : first + rows].copy_(scores[:, :, first : first + rows])
    if card.activation == "probabilities":
        return own
    if card.task == "labels":
        return own.sigmoid_()
    return torch.softmax(own, 1, out=own)


def _with_background(scores: Tensor, card: ModelCard, own: Tensor) -> Tensor:
    """One channel (n, 1, y, x) of scores and its absence, in the order of the card's channels, into `own`."""
    absent = card.channels.index(card.background)
    present = own[:, 1 - absent]  # (n, y, x)
    present.copy_(scores[:, 0])
    if card.activation == "logits":
        present.sigmoid_()
    torch.sub(1, present, out=own[:, absent])
    return own
