"""Methods of one paper each, joined to what their networks give."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from citycover.classes.legend import read_legend
from citycover.errors import ConfigError
from citycover_models.data.batches import LabelledBatch
from citycover_models.data.labels import IGNORE
from citycover_models.methods import coarse
from citycover_models.methods.beliefs import Em
from citycover_models.methods.coarse import C2F, CasDva, Nlat, Plat
from citycover_models.methods.method import Moment
from citycover_models.nets.c2fnet import C2FNet, C2FNetWidths

TINY = C2FNetWidths(width=16, blocks=3, embedding=8)

LATE = Moment(9, 10, 0)


def batch() -> LabelledBatch:
    torch.manual_seed(1)
    labels = torch.randint(0, 3, (1, 64, 64))
    labels[:, :4] = IGNORE
    return LabelledBatch(torch.randint(0, 255, (1, 4, 64, 64), dtype=torch.uint8), labels)


def loss_of(method: C2F, network: C2FNet, moment: Moment = LATE) -> torch.Tensor:
    torch.manual_seed(2)
    return method(network, batch(), moment)


def test_the_edge_head_is_built_and_learns_where_a_recipe_asks_for_it() -> None:
    torch.manual_seed(0)
    network = C2FNet(3, widths=TINY)
    plain = loss_of(C2F(udsda="off"), network)
    method = C2F(udsda="off", edges=True)
    method.equip(network)
    network.train()
    loss = loss_of(method, network)
    loss.backward()
    assert network.edge_head is not None and network.edge_head.weight.grad is not None
    assert float(network.edge_head.weight.grad.abs().sum()) > 0 and float(loss.detach()) > float(
        plain.detach()
    )
    with pytest.raises(ConfigError, match=r"method.edges needs a c2fnet network.*got Linear"):
        method.equip(nn.Linear(1, 1))


def test_how_labels_are_chosen_is_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    real = coarse.choose_labels
    monkeypatch.setattr(coarse, "choose_labels", lambda *a, **k: said.append(k["udsda"]) or real(*a, **k))
    network = C2FNet(3, widths=TINY)
    for udsda in ("off", "agree", "ot", "shuffle_diag"):
        loss_of(C2F(scales=(4,), rounds=1, udsda=udsda), network)
    loss_of(C2F(scales=(4,), rounds=1, warm_up=0.95), network)
    assert said == ["off", "agree", "ot", "shuffle_diag", "off"], "every label is accepted at first"


def test_vague_pixels_learn_new_labels_where_a_recipe_says_from_which_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {}
    real = coarse.c2f_loss
    monkeypatch.setattr(coarse, "c2f_loss", lambda *a, **k: given.update(k) or real(*a, **k))
    network = C2FNet(3, widths=TINY)
    loss_of(C2F(scales=(4,), rounds=1, vague_least=0.6), network, Moment(0, 100, 0))
    assert given["vague_labels"] is None, "not before the warm-up is over"
    loss_of(C2F(scales=(4,), rounds=1, vague_least=0.999), network)
    labels, new = batch().labels, given["vague_labels"]
    assert new.shape == labels.shape and bool((new[:, :4] == IGNORE).all())
    assert bool(((new == labels) | (new == IGNORE)).float().mean() > 0.5) and bool((new == IGNORE).any())
    with pytest.raises(ValueError, match=r"vague_least with udsda = 'agree'.*leave one"):
        C2F(udsda="agree", vague_least=0.9)


def test_three_products_can_agree_in_the_classes_of_skwanda() -> None:
    legend = read_legend("skwanda8")
    for product in ("worldcover", "esri", "fromglc10"):
        assert set(read_legend(product).ids) <= set(legend.table_from(product)), product


@pytest.mark.parametrize("kind", [Plat, CasDva, Nlat, C2F, Em])
def test_figures_count_from_where_the_warm_up_ends(kind: type[Plat]) -> None:
    """Plain cross-entropy agrees best with the labels that it is judged by."""
    assert [kind(warm_up=w).counts_from(100) for w in (0, 0.3, 0.301, 0.995, 1)] == [0, 30, 31, 0, 0]
