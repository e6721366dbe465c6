from __future__ import annotations

import copy
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from mmalign.objectives.contrast import clip_loss
from mmalign.trainers.finetuning.gradient_cache import cached_backward


def net(seed, *, dropout=0.0, norm=False):
    torch.manual_seed(seed)
    layers = [nn.Linear(6, 32), nn.BatchNorm1d(32)] if norm else [nn.Linear(6, 32)]
    return nn.Sequential(*layers, nn.Tanh(), nn.Dropout(dropout), nn.Linear(32, 4)).double()


def inputs(count, seed):
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)).double()


def contrast(a, b):
    return (clip_loss(a, b, 5.0) + clip_loss(b, a, 5.0)) / 2


def grads(*nets):
    return [p.grad for n in nets for p in n.parameters()]


@pytest.mark.parametrize("chunk", [1, 3, 5, 16])
def test_gradients_are_those_of_the_whole_batch(chunk):
    a, b = net(1), net(2)
    whole_a, whole_b = copy.deepcopy(a), copy.deepcopy(b)
    x, y = inputs(16, 3), inputs(16, 4)
    expected = contrast(whole_a(x), whole_b(y))
    expected.backward()
    found = cached_backward([(a, x.split(chunk)), (b, y.split(chunk))], contrast)
    torch.testing.assert_close(found, expected.detach())
    for one, other in zip(grads(a, b), grads(whole_a, whole_b), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_encoders_may_have_other_numbers_of_chunks_and_the_loss_parameters():
    a, b = net(1), net(2)
    whole_a, whole_b = copy.deepcopy(a), copy.deepcopy(b)
    x, y = inputs(16, 3), inputs(16, 4)
    scales = [torch.tensor(5.0, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    clip_loss(whole_a(x), whole_b(y), scales[0]).backward()
    cached_backward([(a, [x]), (b, y.split(7))], lambda p, q: clip_loss(p, q, scales[1]))
    torch.testing.assert_close(scales[1].grad, scales[0].grad)
    for one, other in zip(grads(a, b), grads(whole_a, whole_b), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_normalisation_in_evaluation_is_that_of_the_whole_batch():
    a = net(1, norm=True)
    a(inputs(32, 5))
    a.eval()
    whole, x = copy.deepcopy(a), inputs(16, 3)
    contrast(whole(x), whole(x).roll(1, 0)).backward()
    cached_backward([(a, x.split(5))], lambda rows: contrast(rows, rows.roll(1, 0)))
    for one, other in zip(grads(a), grads(whole), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_backward_that_scales_scales_once():
    """As a GradScaler does, and the division by the batches of an accumulated step."""
    a, b, x = net(1), net(1), inputs(16, 3)

    def loss(rows):
        return contrast(rows, rows.roll(1, 0))

    passed = []

    def backward(value):
        passed.append(value.item())
        (value * 1024).backward()

    loss(b(x)).mul(1024).backward()
    found = cached_backward([(a, x.split(5))], loss, backward)
    assert passed[0] == pytest.approx(found.item(), rel=1e-12)
    torch.testing.assert_close(found, loss(b(x)).detach())
    for one, other in zip(grads(a), grads(b), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_under_autocast_all_parameters_get_the_gradient_of_the_whole_batch():
    a = net(1).float()
    whole, x = copy.deepcopy(a), inputs(16, 3).float()

    def loss(rows):
        return contrast(rows, rows.roll(1, 0))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss(whole(x)).backward()
        cached_backward([(a, x.split(5))], loss)
    for one, other in zip(grads(a), grads(whole), strict=True):
        assert other.norm() > 0
        assert (one - other).norm() < 0.05 * other.norm()


def test_gradients_of_half_precision_rows_do_not_vanish():
    encode = net(1).half()
    tiny = 1e-9  # a half holds nothing below 6e-8

    def loss(rows):
        assert rows.dtype == torch.float32
        return rows.sum() * tiny

    cached_backward([(encode, inputs(6, 3).half().split(2))], loss, lambda v: (v / tiny).backward())
    torch.testing.assert_close(encode[-1].bias.grad, torch.full((4,), 6.0).half())


def test_dropout_leaves_out_the_same_units_in_both_passes():
    a, b = net(1, dropout=0.5), net(2, dropout=0.5)
    plain_a, plain_b = copy.deepcopy(a), copy.deepcopy(b)
    x, y = inputs(12, 3).split(5), inputs(12, 4).split(5)
    torch.manual_seed(9)
    rows = [
        torch.cat([encode(part) for part in parts])
        for encode, parts in ((plain_a, x), (plain_b, y))
    ]
    expected = contrast(*rows)
    expected.backward()
    torch.manual_seed(9)
    found = cached_backward([(a, x), (b, y)], contrast)
    torch.testing.assert_close(found, expected.detach())
    for one, other in zip(grads(a, b), grads(plain_a, plain_b), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_generator_goes_on_from_where_the_first_pass_left_it():
    encode, parts = net(1, dropout=0.5), inputs(12, 3).split(4)
    torch.manual_seed(9)
    for part in parts:
        encode(part)
    expected = torch.rand(1)
    torch.manual_seed(9)
    cached_backward([(encode, parts)], lambda rows: rows.square().sum())
    assert torch.equal(torch.rand(1), expected)


def test_what_the_loss_draws_is_not_drawn_again():
    encode, parts = net(1), inputs(12, 3).split(4)
    drawn = []

    def loss(rows):
        drawn.append(torch.rand(1))
        return rows.square().sum()

    for _ in range(2):
        cached_backward([(encode, parts)], loss)
    assert not torch.equal(*drawn)


@pytest.mark.parametrize(
    ("module", "available", "name"),
    [
        (torch.cuda, torch.cuda, "rng_state_all"),
        (torch.xpu, torch.xpu, "rng_state_all"),
        (torch.mps, torch.backends.mps, "rng_state"),
    ],
)
def test_accelerators_draw_the_same_in_both_passes(monkeypatch, module, available, name):
    generator = torch.Generator()
    monkeypatch.setattr(available, "is_available", lambda: True)
    monkeypatch.setattr(module, f"get_{name}", generator.get_state)
    monkeypatch.setattr(module, f"set_{name}", generator.set_state)
    drawn = []

    def encode(chunk):
        drawn.append(torch.rand(3, generator=generator))
        return chunk * drawn[-1]

    chunks = torch.ones(4, 3).requires_grad_().split(2)
    cached_backward([(encode, chunks)], lambda rows: rows.sum())
    first, second = torch.stack(drawn[:2]), torch.stack(drawn[2:])
    assert torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


def test_vectors_of_a_power_iteration_move_once():
    encode = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4)).double()
    plain, parts = copy.deepcopy(encode), inputs(12, 3).split(4)
    expected = torch.cat([plain(part) for part in parts]).square().sum()
    expected.backward()
    cached_backward([(encode, parts)], lambda rows: rows.square().sum())
    for one, other in zip(encode.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(grads(encode), grads(plain), strict=True):
        torch.testing.assert_close(one, other)


def test_running_statistics_move_once():
    encode, plain = net(1, norm=True), net(1, norm=True)
    parts = inputs(12, 3).split(4)
    for part in parts:
        plain(part)
    cached_backward([(encode, parts)], lambda rows: rows.square().sum())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(encode.state_dict()[name], value)


def test_gradients_are_added_to_those_that_are_there():
    encode, parts = net(1), inputs(6, 3).split(2)
    cached_backward([(encode, parts)], lambda rows: rows.square().sum())
    once = [g.clone() for g in grads(encode)]
    cached_backward([(encode, parts)], lambda rows: rows.square().sum())
    for one, twice in zip(once, grads(encode), strict=True):
        torch.testing.assert_close(2 * one, twice)


def test_a_frozen_encoder_has_nothing_to_pass_on():
    frozen, tuned = net(1).requires_grad_(False), net(2)
    cached_backward([(frozen, inputs(6, 3).split(2)), (tuned, inputs(6, 4).split(2))], contrast)
    assert all(g is None for g in grads(frozen))
    assert all(g is not None for g in grads(tuned))


def test_a_side_without_anything_gives_zero():
    assert cached_backward([(net(1), []), (net(2), [inputs(2, 3)])], contrast).item() == 0
    elsewhere = cached_backward([(net(1).to("meta"), [])], contrast)
    assert elsewhere.device.type == "meta"


def test_a_loss_of_nothing_passes_nothing_on():
    encode = net(1)
    cached_backward([(encode, inputs(6, 3).split(2))], lambda rows: torch.tensor(2.0))
    assert not any(g.any() for g in grads(encode))


@pytest.mark.parametrize("chunk", [2, 6])
def test_processes_meet_in_the_last_backward_pass_alone(chunk):
    """However many chunks there are, and with an encoder at the end that is not trained."""
    together, meetings = True, []

    @contextmanager
    def unsynced():
        nonlocal together
        together = False
        yield
        together = True

    def backward(value):
        meetings.append(together)
        value.backward()

    tuned, frozen = net(1), net(2).requires_grad_(False)
    passes = [(tuned, inputs(6, 3).split(chunk)), (frozen, inputs(6, 4).split(chunk))]
    cached_backward(passes, contrast, backward, unsynced)
    assert len(meetings) > 1
    assert meetings == [False] * (len(meetings) - 1) + [True]
    plain = net(1)
    contrast(plain(inputs(6, 3)), frozen(inputs(6, 4))).backward()
    for one, other in zip(grads(tuned), grads(plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_no_more_than_a_chunk_is_kept_at_a_time():
    """What the graph holds for the backward pass, in bytes: the chunk's, and the rows of all."""
    encode = net(1)

    def peak(run):
        kept, most = 0, 0

        class Held:
            def __init__(self, tensor):
                nonlocal kept, most
                self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
                kept += self.size
                most = max(most, kept)

            def __del__(self):
                nonlocal kept
                kept -= self.size

        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            run()
        assert kept == 0
        return most

    def loss(rows):
        return rows.square().sum()

    chunk = inputs(16, 3)
    one = peak(lambda: loss(encode(chunk)).backward())
    for count in (4, 16):
        parts = inputs(16 * count, 4).split(16)
        rows = 16 * count * 4 * 8
        found = peak(lambda parts=parts: cached_backward([(encode, parts)], loss))
        assert found <= one + rows
        plain = peak(lambda parts=parts: loss(encode(torch.cat(parts))).backward())
        assert plain > count / 2 * one
