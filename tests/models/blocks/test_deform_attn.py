"""Multi-scale deformable attention against a loop over its points."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from citycover_models.blocks.deform_attn import MSDeformAttn, cell_centres

SHAPES = [(6, 8), (3, 4), (2, 2)]
CELLS = sum(height * width for height, width in SHAPES)


def _read(level: Tensor, x: float, y: float) -> Tensor:
    """Bilinear reading of (y, x, d) at x, y in cells from the corner, zeros outside."""
    x, y = x - 0.5, y - 0.5
    x0, y0 = math.floor(x), math.floor(y)
    out = torch.zeros(level.shape[2])
    for row, wy in ((y0, y0 + 1 - y), (y0 + 1, y - y0)):
        for col, wx in ((x0, x0 + 1 - x), (x0 + 1, x - x0)):
            if 0 <= row < level.shape[0] and 0 <= col < level.shape[1]:
                out = out + wy * wx * level[row, col]
    return out


def _brute_force(attn: MSDeformAttn, query: Tensor, reference: Tensor, value: Tensor) -> Tensor:
    n, q, dim = query.shape
    d = dim // attn.heads
    values = attn.value_proj(value)
    out = torch.zeros(n, q, dim)
    for b in range(n):
        for i in range(q):
            offsets = attn.sampling_offsets(query[b, i]).view(attn.heads, attn.levels, attn.points, 2)
            logits = attn.attention_weights(query[b, i]).view(attn.heads, -1)
            weights = logits.softmax(-1).view(attn.heads, attn.levels, attn.points)
            for h in range(attn.heads):
                first = 0
                for lvl, (height, width) in enumerate(SHAPES):
                    level = values[b, first : first + height * width, h * d : (h + 1) * d]
                    level = level.view(height, width, d)
                    first += height * width
                    for p in range(attn.points):
                        x = float(reference[i, 0] * width + offsets[h, lvl, p, 0])
                        y = float(reference[i, 1] * height + offsets[h, lvl, p, 1])
                        out[b, i, h * d : (h + 1) * d] += weights[h, lvl, p] * _read(level, x, y)
    return attn.output_proj(out)


@pytest.fixture(scope="module")
def attn() -> MSDeformAttn:
    torch.manual_seed(0)
    attn = MSDeformAttn(12, heads=3, levels=3, points=2)
    # Away from the initial zeros: offsets and weights that differ from query to query.
    torch.nn.init.normal_(attn.sampling_offsets.weight, std=0.5)
    torch.nn.init.normal_(attn.attention_weights.weight)
    return attn.eval()


def test_it_equals_a_loop_over_points(attn: MSDeformAttn) -> None:
    query, reference, value = torch.randn(2, 5, 12), torch.rand(5, 2), torch.randn(2, CELLS, 12)
    with torch.no_grad():
        expected = _brute_force(attn, query, reference, value)
        torch.testing.assert_close(attn(query, reference, value, SHAPES), expected, rtol=1e-5, atol=1e-5)


def test_scripted_equals_eager(attn: MSDeformAttn) -> None:
    query, reference, value = torch.randn(1, 7, 12), torch.rand(7, 2), torch.randn(1, CELLS, 12)
    with torch.no_grad():
        expected = attn(query, reference, value, SHAPES)
        torch.testing.assert_close(torch.jit.script(attn)(query, reference, value, SHAPES), expected)


def test_at_first_heads_look_around_in_a_circle_with_equal_weights() -> None:
    attn = MSDeformAttn(24, heads=4, levels=2, points=3)
    offsets = attn.sampling_offsets.bias.detach().view(4, 2, 3, 2)
    expected = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    for level in range(2):
        for point in range(3):
            torch.testing.assert_close(offsets[:, level, point], (point + 1) * expected, atol=1e-6, rtol=0)
    assert not attn.sampling_offsets.weight.any()
    assert not attn.attention_weights.bias.any()


def test_cell_centres_run_along_rows_level_after_level() -> None:
    centres = cell_centres([(1, 2), (2, 1)], torch.zeros(()))
    torch.testing.assert_close(centres, torch.tensor([[0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75]]))


def test_channels_that_heads_cannot_share_are_refused() -> None:
    with pytest.raises(ValueError, match="10 channels"):
        MSDeformAttn(10, heads=3, levels=1)
