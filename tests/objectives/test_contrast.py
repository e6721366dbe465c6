from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mmalign.errors import ConfigError, DataError
from mmalign.objectives.alignment import info_nce
from mmalign.objectives.contrast import behaviour_loss, clip_loss, same_content, siglip_loss

SIZES = st.tuples(st.integers(1, 6), st.integers(1, 5))


def rows(count, dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=generator, dtype=torch.float64)


def both_ways(loss, left, right, *args, **named):
    return (loss(left, right, *args, **named) + loss(right, left, *args, **named)) / 2


def gradients(loss, *leaves):
    return torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_clip_loss_and_gradient_are_those_of_open_clip(count):
    open_clip = pytest.importorskip("open_clip")
    a, b = rows(count, seed=1).requires_grad_(), rows(count, seed=2).requires_grad_()
    scale = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    ours = both_ways(clip_loss, a, b, scale)
    theirs = open_clip.loss.ClipLoss()(F.normalize(a, dim=1), F.normalize(b, dim=1), scale)
    torch.testing.assert_close(ours, theirs)
    for x, y in zip(gradients(ours, a, b, scale), gradients(theirs, a, b, scale), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_siglip_loss_and_gradient_are_those_of_open_clip(count):
    open_clip = pytest.importorskip("open_clip")
    a, b = rows(count, seed=1).requires_grad_(), rows(count, seed=2).requires_grad_()
    scale = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-3.0, dtype=torch.float64, requires_grad=True)
    ours = both_ways(siglip_loss, a, b, scale, bias)
    theirs = open_clip.loss.SigLipLoss()(F.normalize(a, dim=1), F.normalize(b, dim=1), scale, bias)
    torch.testing.assert_close(ours, theirs)
    leaves = a, b, scale, bias
    for x, y in zip(gradients(ours, *leaves), gradients(theirs, *leaves), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("loss", [clip_loss, lambda *a, **n: siglip_loss(*a, -1.0, **n)])
def test_blocks_of_rows_that_ask_make_the_whole(loss):
    a, b = rows(6, seed=1), rows(6, seed=2)
    ignore = torch.rand(6, 6) < 0.3
    whole = loss(a, b, 4.0, ignore=ignore)
    parts = [loss(a[i : i + 2], b, 4.0, ignore=ignore[i : i + 2], offset=i) for i in (0, 2, 4)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_blocks_of_rows_have_the_gradients_of_the_whole():
    a, b = rows(6, seed=1).requires_grad_(), rows(6, seed=2).requires_grad_()
    known = torch.rand(6, 6, generator=torch.Generator().manual_seed(3)) < 0.3
    log_q = rows(6, 1, seed=4)[:, 0]

    def every_loss(x, known, offset):
        return (
            clip_loss(x, b, 4.0, ignore=known, offset=offset)
            + siglip_loss(x, b, 4.0, -1.0, ignore=known, offset=offset)
            + behaviour_loss(x, b, 4.0, positives=known, log_q=log_q, offset=offset)
        )

    whole = every_loss(a, known, 0)
    parts = [every_loss(a[s], known[s], s.start) for s in (slice(0, 1), slice(1, 4), slice(4, 6))]
    joint = (parts[0] + 3 * parts[1] + 2 * parts[2]) / 6
    torch.testing.assert_close(joint, whole)
    for x, y in zip(gradients(joint, a, b), gradients(whole, a, b), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("loss", [clip_loss, lambda *a, **n: siglip_loss(*a, -1.0, **n)])
def test_what_is_ignored_may_be_anything(loss):
    a, b, other = rows(4, seed=1), rows(6, seed=2), rows(6, seed=3)
    ignore = torch.zeros(4, 6, dtype=torch.bool)
    ignore[:, 4:] = True
    changed = torch.cat([b[:4], other[4:]])
    torch.testing.assert_close(loss(a, b, 4.0, ignore=ignore), loss(a, changed, 4.0, ignore=ignore))
    assert not torch.isclose(loss(a, b, 4.0), loss(a, changed, 4.0))


def test_a_partner_is_never_ignored():
    a = rows(3)
    torch.testing.assert_close(
        clip_loss(a, a, 2.0, ignore=torch.eye(3, dtype=torch.bool)), clip_loss(a, a, 2.0)
    )
    everything = torch.ones(3, 3, dtype=torch.bool)
    assert clip_loss(a, a, 2.0, ignore=everything).item() == 0


@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_with_nothing_to_contrast_gives_zero_and_no_gradient(count):
    a, b = rows(count, seed=1).requires_grad_(), rows(count, seed=2).requires_grad_()
    known = torch.zeros(count, count, dtype=torch.bool)
    for loss in (clip_loss(a, b, 5.0), behaviour_loss(a, b, 5.0, positives=known)):
        assert loss.item() == 0
        assert not any(g.abs().sum() for g in gradients(loss, a, b))


@given(SIZES, st.integers(0, 100), st.floats(0.1, 50))
def test_the_order_of_a_batch_does_not_matter(sizes, seed, scale):
    count, dim = sizes
    a, b = rows(count, dim, seed), rows(count, dim, seed + 1)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(clip_loss(a[order], b[order], scale), clip_loss(a, b, scale))
    known = torch.rand(count, count, generator=torch.Generator().manual_seed(seed)) < 0.4
    plain = behaviour_loss(a, b, scale, positives=known)
    mixed = behaviour_loss(a[order], b[order], scale, positives=known[order][:, order])
    torch.testing.assert_close(mixed, plain)
    assert plain >= -1e-9
    assert torch.isfinite(plain)


def test_behaviour_by_hand():
    """One item asks: cosines 1 with its partner, 0 with a rare item, 0 with a known positive."""
    left = torch.tensor([[2.0, 0.0]])
    right = torch.tensor([[1.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
    known = torch.tensor([[True, False, True]])
    log_q = torch.log(torch.tensor([0.5, 0.25, 0.25]))
    found = behaviour_loss(left, right, 3.0, positives=known, log_q=log_q)
    own, other = math.exp(3) / 0.5, 1 / 0.25
    assert found.item() == pytest.approx(-math.log(own / (own + other)), rel=1e-6)


def test_siglip_by_hand():
    """Cosines 1 and 0 with the partner and another; the last answer is ignored."""
    left, right = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0], [5.0, 0.0], [1.0, 1.0]])
    ignore = torch.tensor([[False, False, True]])
    found = siglip_loss(left, right, 3.0, -1.0, ignore=ignore, offset=1)
    expected = math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_both_directions_are_info_nce_with_false_negatives():
    a, b = rows(6, seed=1), rows(6, seed=2)
    ignore = torch.rand(6, 6, generator=torch.Generator().manual_seed(3)) < 0.3
    ours = (clip_loss(a, b, 4.0, ignore=ignore) + clip_loss(b, a, 4.0, ignore=ignore)) / 2
    torch.testing.assert_close(ours, info_nce(a, b, 0.25, false_negatives=ignore))


def test_an_item_with_several_partners_contrasts_each_with_negatives_alone():
    """Items 0 and 1 take three and two of seven answers; plain loops over partners."""
    items, answers, log_q = rows(2, seed=1), rows(7, seed=2), rows(7, 1, seed=3)[:, 0]
    asks = [0, 0, 1, 0, 1]  # answer n is a partner of item asks[n]; the last two are of nobody
    positives = torch.zeros(5, 7, dtype=torch.bool)
    for n, item in enumerate(asks):
        for m, other in enumerate(asks):
            positives[n, m] = item == other
    found = behaviour_loss(items[asks], answers, 4.0, positives=positives, log_q=log_q)
    logits = 4.0 * F.cosine_similarity(items[:, None], answers[None], dim=2) - log_q
    terms = []
    for partner, item in enumerate(asks):
        own = math.exp(logits[item, partner])
        negatives = [m for m in range(7) if m >= 5 or asks[m] != item]
        terms.append(-math.log(own / (own + sum(math.exp(logits[item, m]) for m in negatives))))
    assert found.item() == pytest.approx(sum(terms) / len(terms))


def test_equally_popular_answers_need_no_correction():
    a, b = rows(3, seed=1), rows(5, seed=2)
    none = torch.zeros(3, 5, dtype=torch.bool)
    found = behaviour_loss(a, b, 4.0, positives=none, log_q=torch.full((5,), -2.0).double())
    torch.testing.assert_close(found, clip_loss(a, b, 4.0))


def test_gradients_agree_with_finite_differences():
    a, b = rows(3, seed=1).requires_grad_(), rows(5, seed=2).requires_grad_()
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    known = torch.rand(3, 5, generator=torch.Generator().manual_seed(3)) < 0.4
    log_q = rows(5, 1, seed=4)[:, 0]
    for loss in (
        lambda *x: clip_loss(*x, ignore=known, offset=1),
        lambda *x: siglip_loss(*x, -2.0, ignore=known, offset=1),
        lambda *x: behaviour_loss(*x, positives=known, log_q=log_q, offset=1),
    ):
        assert torch.autograd.gradcheck(loss, (a, b, scale))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_single(dtype):
    a, b = rows(9, seed=1).to(dtype), rows(9, seed=2).to(dtype)
    a[0] = 0  # in half precision its length is nothing to divide by
    none = torch.zeros(9, 9, dtype=torch.bool)
    for loss in (
        lambda x, y: clip_loss(x, y, 100.0),
        lambda x, y: siglip_loss(x, y, 100.0, -10.0),
        lambda x, y: behaviour_loss(x, y, 100.0, positives=none),
    ):
        expected = loss(a.float(), b.float())
        assert torch.isfinite(expected)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(loss(a, b), expected)
        torch.testing.assert_close(loss(a, b.float()), expected)


def test_an_item_is_no_negative_of_itself():
    left, right = rows(1, seed=1), torch.cat([rows(2, seed=2), rows(1, seed=1)])
    known = torch.zeros(1, 3, dtype=torch.bool)
    itself = torch.tensor([[False, False, True]])
    torch.testing.assert_close(
        behaviour_loss(left, right, 3.0, positives=known, ignore=itself),
        behaviour_loss(left, right[:2], 3.0, positives=known[:, :2]),
    )


def test_equal_keys_are_the_same_content():
    left, right = torch.tensor([1, 2]), torch.tensor([2, 1, 2])
    assert same_content(left, right).tolist() == [[False, True, False], [True, False, True]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clip_loss(rows(2, 3), rows(2, 4), 1.0), "one width"),
        (lambda: clip_loss(rows(3), rows(2), 1.0), "needs its partner"),
        (lambda: clip_loss(rows(2), rows(3), 1.0, offset=2), "needs its partner"),
        (lambda: clip_loss(rows(2), rows(2), 1.0, ignore=torch.eye(3) > 0), "one bool per pair"),
        (lambda: siglip_loss(rows(2), rows(2), 1.0, 0.0, ignore=torch.eye(2)), "one bool per pair"),
        (
            lambda: behaviour_loss(rows(2), rows(2), 1.0, positives=torch.eye(1) > 0),
            "one bool per pair",
        ),
        (
            lambda: behaviour_loss(
                rows(2), rows(2), 1.0, positives=torch.eye(2) > 0, ignore=torch.eye(1) > 0
            ),
            "one bool per pair",
        ),
        (
            lambda: behaviour_loss(
                rows(2), rows(2), 1.0, positives=torch.eye(2) > 0, log_q=torch.ones(2, 1)
            ),
            "one number per answer",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_a_scale_is_positive(scale):
    with pytest.raises(ConfigError, match="scale must be positive"):
        clip_loss(rows(2), rows(2), scale)
