from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mmalign.objectives.contrast import clip_loss
from mmalign.trainers.finetuning.gather import gather_rows, share_of_mean
from mmalign.trainers.finetuning.gradient_cache import cached_backward

SIZES = (3, 2)


def rows(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(SIZES), 4, generator=generator).double()


def own(rank):
    start = sum(SIZES[:rank])
    return slice(start, start + SIZES[rank])


def both(a, b, everybody_a, everybody_b, offset):
    return (
        clip_loss(a, everybody_b, 3.0, offset=offset)
        + clip_loss(b, everybody_a, 3.0, offset=offset)
    ) / 2


def gathered_loss(a, b):
    (all_a, offset), (all_b, _) = gather_rows(a), gather_rows(b)
    return both(a, b, all_a, all_b, offset) * share_of_mean(len(a), len(all_a))


def in_two_processes(work, *arguments):
    """What ``work(rank, *arguments)`` gives in either of two processes of this file.

    They are started anew: a fork of a process whose threads have computed gradients cannot.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = [work.__name__, *map(str, arguments)]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(port), str(rank), *told],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in (0, 1)
    ]
    try:
        shown = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [json.loads(out.splitlines()[-1]) for out in shown]


def one_loss(rank):
    a, b = (rows(seed)[own(rank)].requires_grad_() for seed in (1, 2))
    loss = gathered_loss(a, b)
    loss.backward()
    plain, _ = gather_rows(torch.full((SIZES[rank],), rank))
    return loss.item() / 2, (a.grad / 2).tolist(), (b.grad / 2).tolist(), plain.tolist()


def nothing_in_the_second(rank):
    a, b = rows(1)[:3], rows(2)[:3]
    if rank == 1:
        a, b = a[:0], b[:0]
    else:
        a, b = a.bfloat16().requires_grad_(), b.bfloat16().requires_grad_()
    a, b = (x if rank == 0 else x.float() for x in (a, b))
    loss = gathered_loss(a, b)
    loss.backward()
    return loss.item() / 2, [] if a.grad is None else (a.grad / 2).tolist()


def encoder():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)).double()


def in_chunks(rank, chunk):
    tower = encoder()
    net = DistributedDataParallel(tower, find_unused_parameters=True)
    syncs = []

    def count(_, bucket):
        syncs.append(1)
        done = distributed.all_reduce(bucket.buffer() / len(SIZES), async_op=True)
        return done.get_future().then(lambda future: future.value()[0])

    net.register_comm_hook(None, count)
    cached_backward(
        [(net, rows(1)[own(rank)].split(int(chunk)))],
        lambda encoded: gathered_loss(encoded, encoded.flip(1)),
        unsynced=net.no_sync,
    )
    return len(syncs), [p.grad.tolist() for p in tower.parameters()]


def test_alone_rows_come_back_as_they_are():
    mine = rows(1)
    found, offset = gather_rows(mine)
    assert found is mine
    assert offset == 0
    assert share_of_mean(5, 5) == 1
    assert share_of_mean(0, 0) == 0


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one():
    a, b = rows(1).requires_grad_(), rows(2).requires_grad_()
    whole = both(a, b, a, b, 0)
    whole.backward()
    parts = in_two_processes(one_loss)
    assert sum(part[0] for part in parts) == pytest.approx(whole.item())
    for position, leaf in ((1, a), (2, b)):
        found = torch.tensor([row for part in parts for row in part[position]]).double()
        torch.testing.assert_close(found, leaf.grad, rtol=1e-6, atol=1e-6)
    assert parts[0][3] == parts[1][3] == [0, 0, 0, 1, 1]


@pytest.mark.slow
def test_a_process_with_nothing_to_encode_does_not_leave_the_other_waiting():
    """Its rows have no gradient, and are of the precision that autocast leaves them in."""
    a, b = (rows(seed)[:3].bfloat16().requires_grad_() for seed in (1, 2))
    whole = both(a, b, a, b, 0)
    whole.backward()
    parts = in_two_processes(nothing_in_the_second)
    assert parts[0][0] == pytest.approx(whole.item())
    assert parts[1] == [0, []]
    torch.testing.assert_close(torch.tensor(parts[0][1]).bfloat16(), a.grad)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunked_and_synchronised_once_two_processes_have_the_gradients_of_one(chunk):
    """Of chunks of 2 one process has two, the other one."""
    whole = encoder()
    encoded = whole(rows(1))
    both(encoded, encoded.flip(1), encoded, encoded.flip(1), 0).backward()
    for syncs, found in in_two_processes(in_chunks, chunk):
        assert syncs == 1
        for mine, p in zip(found, whole.parameters(), strict=True):
            torch.testing.assert_close(torch.tensor(mine).double(), p.grad, rtol=1e-6, atol=1e-6)


if __name__ == "__main__":
    port, rank, name, *arguments = sys.argv[1:]
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=int(rank), world_size=len(SIZES)
    )
    print(json.dumps(globals()[name](int(rank), *arguments)))
    distributed.destroy_process_group()
