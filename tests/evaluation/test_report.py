from __future__ import annotations

import json
import math

import numpy as np
import pytest
from rich.console import Console

from mmalign.errors import ConfigError
from mmalign.evaluation import report
from mmalign.evaluation.protocol import RandomScorer, evaluate
from mmalign.evaluation.result import Evaluation, SliceResult


def made_up(ndcg, recall, *, ks=(20,), split="test"):
    """An evaluation with given warm, cold and all values."""
    slices = {
        name: SliceResult(
            users=np.arange(0 if math.isnan(n) else 5),
            counts={"users": 5, "candidates": 9, "truths": 7, "unreachable": 0},
            metrics={f"{m}@{k}": v for k in ks for m, v in (("ndcg", n), ("recall", r))},
            per_user={},
            buckets={},
        )
        for name, n, r in zip(("warm", "cold", "all"), ndcg, recall, strict=True)
    }
    return Evaluation(split, ks, ("train", "valid"), slices)


def test_markdown_by_hand():
    table = report.markdown_table(
        {
            "EASE": made_up((0.5, math.nan, 0.25), (0.4, math.nan, 0.1)),
            "a|b": made_up((0.25, 0.1, 0.25), (0.44444, 0.2, 0.2)),
        }
    )
    assert table == (
        "| model | warm NDCG@20 | cold NDCG@20 | all NDCG@20 "
        "| warm Recall@20 | cold Recall@20 | all Recall@20 | harmonic NDCG@20 |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| EASE | **0.5000** | - | **0.2500** | 0.4000 | - | 0.1000 | **0.3333** |\n"
        "| a\\|b | 0.2500 | **0.1000** | **0.2500** "
        "| **0.4444** | **0.2000** | **0.2000** | 0.1667 |\n"
    )


def test_a_single_model_has_no_best():
    assert "**" not in report.markdown_table({"only": made_up((0.5, 0.5, 0.5), (0.1, 0.1, 0.1))})


def test_markdown_uses_the_largest_shared_cutoff():
    values = (0.5, 0.5, 0.5), (0.1, 0.1, 0.1)
    table = report.markdown_table(
        {"a": made_up(*values, ks=(5, 10, 20)), "b": made_up(*values, ks=(5, 10))}
    )
    assert "warm NDCG@10" in table
    assert "@20" not in table


def test_what_does_not_compare_is_refused():
    values = (0.5, 0.5, 0.5), (0.1, 0.1, 0.1)
    with pytest.raises(ConfigError, match="no evaluations"):
        report.markdown_table({})
    with pytest.raises(ConfigError, match="different protocols"):
        report.markdown_table({"a": made_up(*values), "b": made_up(*values, split="valid")})
    with pytest.raises(ConfigError, match="share no cut-off"):
        report.markdown_table({"a": made_up(*values, ks=(5,)), "b": made_up(*values, ks=(10,))})


def test_the_terminal_table_shows_every_number(make_log):
    result = evaluate(RandomScorer(), make_log())
    console = Console(width=80)
    with console.capture() as capture:
        console.print(report.rich_table(result))
    shown = [line.strip("│ \n").split("│") for line in capture.get().splitlines() if "│" in line]
    lines = {label.strip(): [cell.strip() for cell in cells] for label, *cells in shown}

    slices = ("warm", "cold", "all")
    assert lines["users"] == [str(result.slices[name].counts["users"]) for name in slices]
    for metric in ("Recall", "NDCG", "Coverage", "Gini"):
        for k in (10, 20):
            key = f"{metric}@{k}"
            assert lines[key] == [f"{result.metrics[s][key.lower()]:.4f}" for s in slices]
    assert lines["Novelty@20"][1] == f"{result.metrics['cold']['novelty@20']:.2f}"
    head = f"{result.slices['all'].buckets['head'].recall:.4f}"
    assert lines["Recall@20 head items"] == [lines["Recall@20 head items"][0], "-", head]
    assert lines["Recall@20 cold items"][0] == "-"
    assert "unreachable" not in lines


def test_the_terminal_table_tells_of_unreachable_truths(log, fixed_scores):
    repeated = type(log)([*log.rows, (0, 0, "test")], log.num_users, log.num_items)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(report.rich_table(evaluate(fixed_scores(np.arange(9)), repeated)))
    assert "unreachable" in capture.get()


def test_json_is_valid_and_keeps_names(log, fixed_scores):
    result = evaluate(fixed_scores(np.arange(9)), log)
    text = report.json_text({"modèle": result})
    assert json.loads(text) == {"modèle": result.to_dict()}
    assert "NaN" not in text
