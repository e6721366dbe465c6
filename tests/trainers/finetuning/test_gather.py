from __future__ import annotations

import socket

import pytest
import torch
from torch import distributed, multiprocessing

from mmalign.objectives.contrast import clip_loss
from mmalign.trainers.finetuning.gather import gather_rows

SIZES = (3, 2)


def rows(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(SIZES), 4, generator=generator).double()


def both(a, b, everybody_a, everybody_b, offset):
    return (
        clip_loss(a, everybody_b, 3.0, offset=offset)
        + clip_loss(b, everybody_a, 3.0, offset=offset)
    ) / 2


def work(rank, port, queue):
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=len(SIZES)
    )
    start = sum(SIZES[:rank])
    a, b = (rows(seed)[start : start + SIZES[rank]].requires_grad_() for seed in (1, 2))
    (all_a, offset), (all_b, _) = gather_rows(a), gather_rows(b)
    # Weighed by the number of rows, the mean over processes is that over all rows.
    loss = both(a, b, all_a, all_b, offset) * SIZES[rank] / sum(SIZES)
    loss.backward()
    plain, _ = gather_rows(torch.full((SIZES[rank],), float(rank)))
    queue.put((rank, loss.item(), a.grad.tolist(), b.grad.tolist(), plain.tolist()))
    distributed.destroy_process_group()


def test_alone_rows_come_back_as_they_are():
    own = rows(1)
    found, offset = gather_rows(own)
    assert found is own
    assert offset == 0


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_two_processes_have_the_gradients_of_one():
    a, b = rows(1).requires_grad_(), rows(2).requires_grad_()
    whole = both(a, b, a, b, 0)
    whole.backward()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")  # a spawned one could not import a test
    queue = context.SimpleQueue()
    processes = [context.Process(target=work, args=(rank, port, queue)) for rank in (0, 1)]
    for process in processes:
        process.start()
    parts = sorted(queue.get() for _ in processes)
    for process in processes:
        process.join(60)
    assert sum(part[1] for part in parts) == pytest.approx(whole.item())
    for position, leaf in ((2, a), (3, b)):
        found = torch.tensor([row for part in parts for row in part[position]]).double()
        torch.testing.assert_close(found, leaf.grad, rtol=1e-6, atol=1e-9)
    assert parts[0][4] == parts[1][4] == [0.0, 0.0, 0.0, 1.0, 1.0]
