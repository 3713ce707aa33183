from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from citycover.errors import ModelError
from citycover_models.nets.c2fnet import (
    TEMPERATURE,
    C2FNet,
    C2FNetWidths,
    c2f_loss,
    choose_labels,
    coarse_loss,
    edge_loss,
)
from citycover_models.nets.udsda import (
    Shuffle,
    accepted_area,
    annotate,
    annotate_classes,
    pseudo_labels,
    sinkhorn,
)
from citycover_models.nets.vhf_paranet import MultiLevelAggregation, VHFParaNet, VHFWidths, nlat_loss

TINY = C2FNetWidths(width=16, blocks=3, embedding=8)


@pytest.fixture(scope="module")
def network() -> C2FNet:
    torch.manual_seed(0)
    return C2FNet(5, widths=TINY).eval()


@pytest.mark.parametrize("shape", [(1, 4, 64, 64), (2, 4, 48, 80)])
def test_logits_are_cosines_of_unit_embeddings(network: C2FNet, shape: tuple[int, ...]) -> None:
    x = torch.randint(0, 255, shape, dtype=torch.uint8)
    with torch.inference_mode():
        phi, coarse = network.embeddings(x)
        logits = network(x)
    assert logits.shape == (shape[0], 5, *shape[2:])
    assert coarse.shape == (shape[0], 5, shape[2] // 8, shape[3] // 8)
    torch.testing.assert_close(phi.norm(dim=1), torch.ones(shape[0], *shape[2:]))
    assert logits.abs().max() <= TEMPERATURE * (1 + 1e-5)


def test_a_size_it_cannot_take_is_refused_with_the_nearest(network: C2FNet) -> None:
    with pytest.raises(ModelError, match="64 x 80"):
        network(torch.zeros(1, 4, 60, 84))


def test_transport_plans_have_uniform_marginals() -> None:
    torch.manual_seed(1)
    plan = sinkhorn(torch.rand(3, 16, 16), iterations=200)
    torch.testing.assert_close(plan.sum(1), torch.full((3, 16), 1 / 16), rtol=1e-3, atol=0)
    torch.testing.assert_close(plan.sum(2), torch.full((3, 16), 1 / 16), rtol=1e-3, atol=0)


def two_halves() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings that know the classes, labels of which a corner is wrong and a stripe is missing."""
    truth = torch.zeros(1, 64, 64, dtype=torch.long)
    truth[:, :, 32:] = 1
    prototypes = torch.eye(2, 8)
    phi = F.normalize(prototypes[truth].permute(0, 3, 1, 2) + 0.05 * torch.randn(1, 8, 64, 64), dim=1)
    labels = truth.clone()
    labels[:, :16, :16] = 1
    labels[:, 48:] = 255
    return phi, prototypes, labels


def test_wrong_labels_are_annotated_less_than_right_ones() -> None:
    torch.manual_seed(2)
    phi, prototypes, labels = two_halves()
    p = annotate(phi, prototypes, labels, Shuffle(scales=(2, 4), rounds=4, group=32))
    assert p.shape == labels.shape and p.min() >= 0 and p.max() <= 1 + 1e-6
    assert (p[:, 48:] == 0).all(), "a pixel without a label is never annotated"
    assert p[:, 2:14, 2:14].mean() < 0.5 * p[:, 20:44, 4:60].mean()
    accepted = accepted_area(p, labels, 0.3)
    assert not accepted[:, 48:].any()
    assert accepted[:, 2:14, 2:14].float().mean() < accepted[:, 20:44, 4:60].float().mean()


@pytest.mark.parametrize("udsda", ["off", "agree", "ot", "shuffle_diag"])
def test_every_way_to_choose_labels_prefers_right_ones_unless_it_is_off(udsda) -> None:
    torch.manual_seed(2)
    phi, prototypes, labels = two_halves()
    cosines = torch.einsum("ndyx,kd->nkyx", phi, prototypes)
    shuffle = Shuffle(scales=(4,), rounds=2, group=32)
    p, accepted = choose_labels(cosines, phi, prototypes, labels, 0.3, udsda=udsda, shuffle=shuffle)
    assert p.shape == accepted.shape == labels.shape and accepted.dtype == torch.bool
    assert not accepted[:, 48:].any() and accepted[:, 20:44, 4:28].float().mean() > 0.5
    assert (p[accepted] > 0).all() and p.max() <= 1
    wrong = accepted[:, 2:14, 2:14].float().mean()
    assert wrong == 1 if udsda == "off" else wrong < 0.5


def test_vague_pixels_get_the_class_that_most_of_their_mass_goes_to_or_no_label() -> None:
    shares = torch.tensor([[0.95, 0.6, 0.05, 0.95], [0.05, 0.4, 0.95, 0.05]]).view(1, 2, 1, 4)
    labels = torch.tensor([[[1, 1, 1, 255]]])
    accepted = torch.tensor([[[False, False, True, False]]])
    assert pseudo_labels(shares, accepted, labels).tolist() == [[[0, 255, 1, 255]]]


def test_shares_of_all_classes_sum_to_one_and_hold_the_score_of_the_label() -> None:
    torch.manual_seed(2)
    phi, prototypes, labels = two_halves()
    p, shares = annotate_classes(phi, prototypes, labels, Shuffle(scales=(1,), rounds=1, group=64))
    labelled = labels != 255
    sums = shares.sum(1)[labelled]
    torch.testing.assert_close(sums, torch.ones_like(sums))
    own = shares.gather(1, labels.where(labelled, 0)[:, None])[:, 0]
    scored = p > 0
    torch.testing.assert_close(p[scored], own[scored])
    assert (own[scored] >= shares.amax(1)[scored] - 1e-6).all()


def test_vague_pixels_learn_their_pseudo_label() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    accepted = torch.zeros_like(labels) > 0
    cosines = torch.tensor([0.2, 0.4]).view(1, 2, 1, 1).repeat(1, 1, 4, 4).requires_grad_()
    phi, coarse = torch.ones(1, 3, 4, 4), torch.zeros(1, 2, 1, 1)
    for new, sign in ((None, -1), (torch.ones_like(labels), 1), (torch.full_like(labels, 255), 0)):
        loss = c2f_loss(cosines, phi, coarse, labels, accepted * 1.0, accepted, vague_labels=new)
        (gradient,) = torch.autograd.grad(loss, cosines)
        assert torch.equal(-gradient[:, 1].sign(), torch.full((1, 4, 4), float(sign)))


def test_the_edge_head_learns_borders_of_what_is_predicted_where_labels_are_accepted() -> None:
    predicted = torch.zeros(1, 4, 6, dtype=torch.long)
    predicted[:, :, 3:] = 1
    border = torch.zeros(1, 1, 4, 6)
    border[..., 2:4] = 1
    right = (border * 2 - 1) * 20
    accepted = torch.ones_like(predicted) > 0
    assert float(edge_loss(right, predicted, accepted)) < 1e-6
    right[..., 0, 0] = 20  # a wrong edge, in the vague area
    accepted[:, 0, 0] = False
    assert float(edge_loss(right, predicted, accepted)) < 1e-6
    assert float(edge_loss(-right, predicted, accepted)) > 10


def test_the_edge_head_is_off_unless_asked_for_and_scripts() -> None:
    x = torch.randint(0, 255, (1, 4, 32, 48), dtype=torch.uint8)
    plain, taught = (C2FNet(5, widths=TINY, edges=edges).eval() for edges in (False, True))
    assert plain.heads(x)[2].shape == (1, 0, 32, 48)
    assert sum(p.numel() for p in taught.parameters()) == sum(p.numel() for p in plain.parameters()) + 17
    with torch.inference_mode():
        for one, two in zip(torch.jit.script(taught).heads(x), taught.heads(x), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    cosines = taught.cosines(taught.embeddings(x)[0])
    labels = torch.zeros(1, 32, 48, dtype=torch.long)
    phi, coarse, edges = taught.heads(x)
    loss = c2f_loss(cosines, phi, coarse, labels, labels + 1.0, labels == 0, edge_logits=edges)
    loss.backward()
    assert taught.edge_head.weight.grad.abs().sum() > 0


def test_the_loss_pulls_toward_the_right_class_and_ignores_what_is_not_labelled() -> None:
    torch.manual_seed(3)
    phi, prototypes, labels = two_halves()
    cosines = torch.einsum("ndyx,kd->nkyx", phi, prototypes)
    coarse = torch.zeros(1, 2, 8, 8)
    p, accepted = torch.ones(labels.shape), labels != 255
    right = labels.clone()
    right[:, :16, :16] = 0
    wrong = (1 - right).where(right != 255, 255)
    good, bad = (float(c2f_loss(cosines, phi, coarse, y, p, accepted)) for y in (right, wrong))
    assert good < bad
    changed = cosines.clone()
    changed[:, :, 50:] = 0.3  # below the labelled part; the area term reads predictions there
    assert float(c2f_loss(changed, phi, coarse, right, p, accepted)) == pytest.approx(good, abs=0.02)


def test_the_loss_of_a_batch_without_labels_is_finite_and_teaches_no_class() -> None:
    phi, prototypes, labels = two_halves()
    cosines = torch.einsum("ndyx,kd->nkyx", phi, prototypes).requires_grad_()
    nothing = torch.full_like(labels, 255)
    coarse = torch.zeros(1, 2, 8, 8, requires_grad=True)
    loss = c2f_loss(cosines, phi, coarse, nothing, torch.zeros(labels.shape), torch.zeros_like(labels) > 0)
    loss.backward()
    assert torch.isfinite(loss) and cosines.grad is not None and (cosines.grad == 0).all()
    assert float(coarse_loss(coarse.detach(), nothing)) == 0


def test_the_coarse_head_learns_the_most_frequent_label_of_a_cell() -> None:
    labels = torch.full((1, 8, 8), 255)
    labels[:, :3, :3] = 1
    labels[:, 0, 4:6] = 0
    right = torch.tensor([[-20.0, 20.0]]).view(1, 2, 1, 1)
    assert float(coarse_loss(right, labels)) < 1e-6
    assert float(coarse_loss(-right, labels)) > 30


# --- VHF-ParaNet -------------------------------------------------------------------------------------------

VHF_TINY = VHFWidths(width=16, blocks=3, dim=48, depth=4, heads=3)


@pytest.mark.parametrize(("harmonise", "mla"), [("add", "agent"), ("adain", "agent"), ("adain", "setr")])
def test_vhf_gives_probabilities_on_the_grid_of_the_window(harmonise, mla) -> None:
    torch.manual_seed(4)
    network = VHFParaNet(5, widths=VHF_TINY, harmonise=harmonise, mla=mla).eval()
    with torch.inference_mode():
        for shape in ((1, 4, 64, 64), (2, 4, 48, 80)):
            scores = network(torch.randint(0, 255, shape, dtype=torch.uint8))
            assert scores.shape == (shape[0], 5, *shape[2:])
            torch.testing.assert_close(scores.sum(1), torch.ones(shape[0], *shape[2:]))
        with pytest.raises(ModelError, match="64 x 80"):
            network(torch.zeros(1, 4, 60, 84))


def test_aggregation_as_in_setr_adds_upper_layers_to_lower_ones_and_scripts() -> None:
    torch.manual_seed(6)
    mla = MultiLevelAggregation(8, 4).eval()
    layers = [torch.randn(1, 6, 8) for _ in range(4)]
    with torch.inference_mode():
        out = mla(layers, 2, 3)
        torch.testing.assert_close(torch.jit.script(mla)(layers, 2, 3), out)
        assert out.shape == (1, 8, 8, 12)
        layers[3] = layers[3] + 1  # reaches all
        assert ((mla(layers, 2, 3) - out).abs().amax(dim=(0, 2, 3)) > 0).view(4, 2).any(1).all()
        before = mla(layers, 2, 3)
        layers[0] = layers[0] + 1  # reaches the lowest alone
        assert torch.equal(mla(layers, 2, 3)[:, 2:], before[:, 2:])


def test_the_branches_of_vhf_are_apart_until_they_learn_to_listen() -> None:
    torch.manual_seed(5)
    network = VHFParaNet(5, widths=VHF_TINY).eval()
    x = torch.randint(0, 255, (1, 4, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        alone = network.branches(x)
        network.patches.weight.mul_(3)
        torch.testing.assert_close(network.branches(x)[0], alone[0])
        for stage in network.stages:
            stage.to_cnn.gamma.fill_(1)
        assert not torch.allclose(network.branches(x)[0], alone[0], atol=1e-3)


def test_nlat_teaches_the_second_branch_only_where_the_first_agrees() -> None:
    labels = torch.tensor([[[0, 1], [1, 255]]])
    cnn = torch.tensor([[[9.0, 9.0], [-9.0, 0.0]], [[-9.0, -9.0], [9.0, 0.0]]])[
        None
    ]  # agrees at (0,0), (1,0)
    vit = torch.zeros(1, 2, 2, 2, requires_grad=True)
    nlat_loss(cnn, vit, labels).backward()
    assert vit.grad is not None
    touched = vit.grad.abs().sum(1)[0] > 0
    assert touched.tolist() == [[True, False], [True, False]]
    empty = nlat_loss(cnn, vit, torch.full((1, 2, 2), 255))
    assert float(empty.detach()) == 0
    swapped = nlat_loss(vit.detach(), cnn, labels, swap=True)
    torch.testing.assert_close(swapped, nlat_loss(cnn, vit.detach(), labels))
