"""The papers' parts one by one: what each loss asks for, and what each module must not do."""

import math

import pytest
import torch

from export.networks.lgaf import LocalGlobalFusion, MultiHeadMultiScale, diversity_loss, length
from export.networks.mask_attention import (
    Attention,
    MultiFocalAttention,
    VisibleFeatures,
    attention_loss,
    background_map,
)
from export.networks.recognizability import (
    IndexTarget,
    PerceptibilityAttention,
    Projection,
    RecognizabilityHead,
    diversion_loss,
    index_loss,
    projection_loss,
)
from export.training.losses import against_prototypes, distillation, own_and_nearest


def unit(*rows: list[float]) -> torch.Tensor:
    x = torch.tensor(rows)
    return x / x.norm(dim=1, keepdim=True)


# --- mask attention ---------------------------------------------------------------------------------


def perfect(cover: torch.Tensor, masked: torch.Tensor, sure: float = 12.0) -> Attention:
    """What an attention would answer that knows the truth."""
    truth = torch.nn.functional.avg_pool2d(cover, 8)
    background = background_map(14, 14).expand_as(truth)
    maps = sure * (2 * torch.cat([truth, background], 1) - 1)
    hidden = torch.sigmoid(maps)
    return Attention(maps, (1 - hidden[:, :1]) * (1 - hidden[:, 1:]), sure * (2 * masked[:, None] - 1))


def test_the_attention_loss_is_least_for_the_truth_and_rises_with_each_kind_of_error() -> None:
    cover = torch.zeros(2, 1, 112, 112)
    cover[0, :, 64:104, 24:88] = 1
    masked = torch.tensor([1.0, 0.0])
    right = perfect(cover, masked)
    least = attention_loss(right, cover, masked)
    assert least < 0.05
    blind = right._replace(maps=torch.full_like(right.maps, -12.0))
    confused = right._replace(maps=right.maps.flip(1))
    mistaken = right._replace(mask_logit=-right.mask_logit)
    for wrong in (blind, confused, mistaken):
        assert attention_loss(wrong, cover, masked) > least + 1


def test_a_new_attention_sees_all_of_the_face_and_hides_nothing() -> None:
    torch.manual_seed(0)
    attention, visible = MultiFocalAttention(8), VisibleFeatures(6)
    found = attention(torch.randn(2, 8, 14, 14))
    # Bias -3 in both foci: (1 - sigmoid(-3))^2 = 0.907 everywhere.
    torch.testing.assert_close(found.visible, torch.full((2, 1, 14, 14), (1 - 1 / (1 + math.e**3)) ** 2))
    f4 = torch.randn(2, 6, 7, 7)
    assert torch.equal(visible(f4, found.visible)[0], f4)


def test_hidden_places_are_drawn_to_the_mean_and_visible_ones_are_not() -> None:
    visible = VisibleFeatures(3)
    visible.alpha.data.fill_(1.0)
    visible.mean.data.fill_(7.0)
    seen = torch.ones(1, 1, 14, 14)
    seen[..., 8:, :] = 0
    f4 = torch.zeros(1, 3, 7, 7)
    changed, small = visible(f4, seen)
    assert (changed[..., :4, :] == 0).all()
    assert (changed[..., 4:, :] == 7).all()
    assert small.shape == (1, 1, 7, 7)


def test_the_background_lies_outside_the_face() -> None:
    background = background_map(112, 112)
    assert background[60, 56] == 0
    assert background[51, 38] == 0  # an eye
    assert background[0, 0] == background[111, 111] == 1
    assert 0.2 < background_map(14, 14).mean() < 0.5


# --- recognisability --------------------------------------------------------------------------------


def test_the_index_target_falls_with_distance_from_oneself_and_with_nearness_to_others_or_to_nothing() -> (
    None
):
    target = IndexTarget(size=3)
    target.centre = unit([0.0, 0.0, 1.0])
    v = unit([1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 3.0])
    own = torch.tensor([0.9, 0.5, 0.9, 0.9])
    nearest = torch.tensor([0.2, 0.2, 0.8, 0.2])
    best, far_from_own, near_another, near_nothing = target(
        v, own, nearest, torch.zeros(4, dtype=torch.bool)
    )[:, 0]
    assert best > far_from_own
    assert best > near_another
    assert best > near_nothing


def test_the_index_of_the_paper_is_what_the_target_squashes() -> None:
    target = IndexTarget(size=2)
    target.centre = unit([0.0, 1.0])
    v = unit([3.0, 4.0])  # cosine 0.8 to the centre
    found = target(v, torch.tensor([0.7]), torch.tensor([0.4]), torch.tensor([False]))
    xi = (1 - 0.8) * (1 - 0.4) / ((1 - 0.7) + 1e-3)
    # One face alone moves no statistics: mean 0, deviation 1.
    torch.testing.assert_close(found, torch.sigmoid(torch.tensor([[1.7 * math.log(xi)]])))


def test_hopeless_faces_move_the_centre_and_have_target_zero() -> None:
    target = IndexTarget(size=2)
    v = unit([1.0, 0.0], [0.0, 1.0])
    found = target(v, torch.tensor([0.9, 0.9]), torch.tensor([0.1, 0.1]), torch.tensor([False, True]))
    assert found[1] == 0
    assert found[0] > 0
    torch.testing.assert_close(target.direction(), unit([0.0, 1.0]))


def test_index_diversion_asks_recognisable_faces_to_keep_away_from_the_hopeless() -> None:
    statistics = torch.tensor([-2.0, 0.5])
    logit = torch.tensor([[-2.0], [5.0], [-2.0]])
    assert diversion_loss(logit, statistics, torch.tensor([True, False, False])) == 3.0  # tau, no way off yet
    assert diversion_loss(logit, statistics, torch.tensor([False, True, False])) == 0.0
    assert diversion_loss(logit, statistics, torch.tensor([False, False, False])) == 0.0


def test_index_diversion_reaches_the_features_and_not_the_head() -> None:
    torch.manual_seed(0)
    head = RecognizabilityHead(5, 4).eval()
    f_global, f4 = torch.randn(3, 4, requires_grad=True), torch.randn(3, 5, 7, 7, requires_grad=True)
    logit = head.with_fixed_weights(f_global, f4)
    torch.testing.assert_close(logit, head(f_global, f4))
    logit.sum().backward()
    assert f_global.grad is not None
    assert f4.grad is not None
    assert all(p.grad is None for p in head.parameters())


def test_the_projection_target_does_not_point_at_the_centre() -> None:
    centre, v = unit([0.0, 0.0, 1.0]), unit([1.0, 0.0, 1.0])
    assert projection_loss(unit([1.0, 0.0, 0.0]), v, centre) == pytest.approx(0.0, abs=1e-6)
    assert projection_loss(v, v, centre) > 0.1


def test_a_projection_takes_away_what_points_at_its_centre_and_at_first_nothing() -> None:
    projection, v = Projection(3), unit([1.0, 2.0, 2.0], [0.0, 3.0, 0.5])
    torch.testing.assert_close(projection(v), v)
    projection.centre.copy_(unit([0.0, 0.0, 1.0]))
    torch.testing.assert_close(projection(v), unit([1.0, 2.0, 0.0], [0.0, 1.0, 0.0]))


def test_the_index_loss_is_zero_at_the_target_only() -> None:
    target = torch.tensor([[0.25]])
    assert index_loss(torch.logit(target), target) == pytest.approx(0.0, abs=1e-9)
    assert index_loss(torch.tensor([[1.0]]), target) > 0.1


def test_the_perceptibility_attention_starts_as_nothing_and_counts_once_blended_in() -> None:
    torch.manual_seed(0)
    attention, f4 = PerceptibilityAttention(32), torch.randn(2, 32, 7, 7)
    assert torch.equal(attention(f4)[0], f4)
    attention.blend.data.fill_(1.0)
    blended, attended = attention(f4)
    torch.testing.assert_close(blended, attended)
    assert not torch.allclose(blended, f4)
    torch.testing.assert_close(attention.embed(attended).norm(dim=1), torch.ones(2))


# --- local and global -------------------------------------------------------------------------------


def test_fusion_trusts_the_branch_whose_feature_is_long_for_its_kind() -> None:
    fusion = LocalGlobalFusion(bias=0.0)
    fusion.mean, fusion.std = torch.tensor([10.0, 2.0]), torch.tensor([2.0, 0.5])
    direction_g, direction_l = unit([1.0, 0.0]), unit([0.0, 1.0])
    _, usual = fusion(10 * direction_g, 2 * direction_l)
    _, global_long = fusion(14 * direction_g, 2 * direction_l)
    embedding, local_long = fusion(10 * direction_g, 3 * direction_l)
    assert usual.item() == pytest.approx(0.5)
    assert global_long.item() == pytest.approx(1 / (1 + math.exp(-2 / 3)))  # two deviations, a third of each
    assert local_long.item() == pytest.approx(1 / (1 + math.exp(2 / 3)))
    assert embedding.norm().item() == pytest.approx(1.0, abs=1e-6)
    assert embedding[0, 1] > embedding[0, 0]


def test_no_length_however_odd_lets_one_branch_take_all() -> None:
    fusion = LocalGlobalFusion(bias=3.0)
    fusion.mean, fusion.std = torch.tensor([10.0, 2.0]), torch.tensor([2.0, 1e-3])
    _, share = fusion(10 * unit([1.0, 0.0]), 900 * unit([0.0, 1.0]))
    assert share.item() == pytest.approx(1 / (1 + math.exp(-2)))


def test_the_first_measured_batch_sets_the_statistics_and_later_ones_move_them_slowly() -> None:
    fusion = LocalGlobalFusion()
    f_global, f_local = torch.randn(64, 8) * 5, torch.randn(64, 8)
    fusion.measure(f_global, f_local)
    torch.testing.assert_close(fusion.mean[0], length(f_global).mean())
    before = fusion.mean.clone()
    fusion.measure(2 * f_global, 2 * f_local)
    torch.testing.assert_close(fusion.mean, before * 1.05)


def test_no_gradient_inflates_a_branch_through_its_length() -> None:
    torch.manual_seed(0)
    fusion = LocalGlobalFusion()
    f_global, f_local = torch.randn(4, 6, requires_grad=True), torch.randn(4, 6)
    fusion.measure(f_global.detach(), f_local)
    wanted = unit(*torch.randn(4, 6).tolist())
    embedding, _ = fusion(f_global, f_local)
    (1 - (embedding * wanted).sum(1)).sum().backward()
    assert f_global.grad is not None
    along = (f_global.grad * f_global.detach()).sum(1)  # along the feature: its length
    torch.testing.assert_close(along, torch.zeros(4), rtol=0, atol=1e-6)


def test_the_local_branch_does_not_see_what_is_hidden() -> None:
    torch.manual_seed(0)
    mhms, f4 = MultiHeadMultiScale(6, width=8).eval(), torch.randn(1, 6, 7, 7)
    visible = torch.ones(1, 1, 7, 7)
    visible[..., 6] = 0
    changed = f4.clone()
    changed[..., 6] += 5.0
    one_by_one = mhms.heads[0]  # the 1x1 head alone sees no neighbours: hidden places reach nothing
    with torch.inference_mode():
        a, b = mhms(f4, visible), mhms(changed, visible)
        assert not torch.allclose(one_by_one(f4), one_by_one(changed))
    torch.testing.assert_close(a.heads[:, 0], b.heads[:, 0])
    assert (a.heads[..., 6] == 0).all()


def test_diversity_is_zero_for_heads_that_look_elsewhere_and_one_for_heads_that_agree() -> None:
    apart = torch.zeros(1, 4, 7, 7)
    for head in range(4):
        apart[0, head, head] = 1
    assert diversity_loss(apart).item() == pytest.approx(0.0, abs=1e-6)
    assert diversity_loss(torch.ones(1, 4, 7, 7)).item() == pytest.approx(1.0, abs=1e-5)


# --- what teaches the embedding ---------------------------------------------------------------------


def test_distillation_counts_weighted_faces_only() -> None:
    v = unit([1.0, 0.0], [0.0, 1.0])
    teacher = unit([1.0, 0.0], [1.0, 0.0])
    assert distillation(v, teacher, torch.tensor([1.0, 0.0])).item() == pytest.approx(0.0)
    assert distillation(v, teacher, torch.tensor([1.0, 1.0])).item() == pytest.approx(0.5)


def test_the_prototype_loss_has_a_margin_and_falls_when_the_own_cosine_rises() -> None:
    labels, weight = torch.tensor([0]), torch.ones(1)

    def loss(own: float, margin: float = 0.2) -> float:
        cosines = torch.tensor([[own, 0.3, 0.1]])
        return against_prototypes(cosines, labels, weight, scale=10, margin=margin).item()

    assert loss(0.9) < loss(0.5) < loss(0.3)
    assert loss(0.7, margin=0.2) == pytest.approx(loss(0.5, margin=0.0), rel=1e-5)


def test_the_nearest_other_prototype_is_never_ones_own() -> None:
    own, nearest = own_and_nearest(torch.tensor([[0.9, 0.2, 0.4]]), torch.tensor([0]))
    assert own.item() == pytest.approx(0.9)
    assert nearest.item() == pytest.approx(0.4)
