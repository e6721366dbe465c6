from __future__ import annotations

import json

import numpy as np
from rich.console import Console

from mmalign.evaluation import report
from mmalign.evaluation.protocol import evaluate
from mmalign.models.popularity import RandomConfig, RandomModel


def test_the_terminal_table_shows_every_number(make_log):
    result = evaluate(RandomModel(RandomConfig()), make_log())
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
