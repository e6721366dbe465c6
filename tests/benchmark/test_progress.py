from __future__ import annotations

import io

from mmalign.benchmark.progress import Progress


def test_the_rest_is_guessed_by_model():
    progress = Progress({"a": 3, "b": 2}, io.StringIO())
    assert progress.seconds_left() == 0
    progress.step("a", "x", 10)
    assert progress.seconds_left() == 2 * 10 + 2 * 10  # of b nothing is known yet
    progress.step("b", "x", 1)
    assert progress.seconds_left() == 2 * 10 + 1 * 1
    progress.step("a", "x", 20)
    assert progress.seconds_left() == 15 + 1


def test_lines():
    stream = io.StringIO()
    progress = Progress({"a": 2, "b": 3}, stream)
    progress.step("a", "trial 1/1 0.5", 2)
    progress.skip("b", "not run", progress.rest("b"))
    progress.step("a", "seed 0", 4)
    assert stream.getvalue().splitlines() == [
        "[1/5] a: trial 1/1 0.5, 2.0 s; about 8.0 s left",
        "[4/5] b: not run",
        "[5/5] a: seed 0, 4.0 s",
    ]
