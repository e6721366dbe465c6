from __future__ import annotations

import copy

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


def test_no_more_than_a_chunk_is_kept_at_a_time():
    encode = net(1)

    def peak(parts):
        kept, most = 0, 0

        def pack(tensor):
            nonlocal kept, most
            kept += tensor.numel()
            most = max(most, kept)
            return tensor

        def unpack(tensor):
            nonlocal kept
            kept -= tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            cached_backward([(encode, parts)], lambda rows: rows.square().sum())
        return most

    x = inputs(256, 3)
    assert peak(x.split(16)) < peak([x]) / 4
