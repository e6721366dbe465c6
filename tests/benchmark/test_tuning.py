from __future__ import annotations

from types import SimpleNamespace

import optuna
import pytest

from mmalign.benchmark import tuning
from mmalign.benchmark.fitting import fit_scorer
from mmalign.benchmark.pruning import Pruning
from mmalign.benchmark.space import lay
from mmalign.benchmark.tuning import tune
from mmalign.errors import MissingDependencyError, TrainingError
from mmalign.evaluation.protocol import evaluate


@pytest.fixture
def study(monkeypatch, make_config, catalog, features, tmp_path):
    """Tunes EASE by a made-up score, a parabola of log l2 with its top at 100."""
    fitted = []

    def score(config, values, *_):
        fitted.append(values)
        outcome = study.outcomes.get(len(fitted))
        if outcome is not None:
            raise outcome
        return -abs(config.model.ease.l2 - 100) if not values else -abs(values["l2"] - 100)

    def run(**benchmark):
        config = lay(make_config(**benchmark), "ease", {})
        reports = []
        found = tune(config, catalog, features, tmp_path / "s" / "ease.journal", reports.append)
        return found, reports

    study = SimpleNamespace(fitted=fitted, outcomes={}, run=run, file=tmp_path / "s/ease.journal")
    monkeypatch.setattr(tuning, "_score", score)
    return study


def test_the_configured_settings_come_first(study):
    found, reports = study.run(trials=8)
    assert study.fitted[0] == {}
    assert len(study.fitted) == len(reports) == found.trials == 8
    assert reports[0].score == -50
    assert found.score == max(r.score for r in reports) >= -50
    assert found.values == study.fitted[[r.score for r in reports].index(found.score)]
    assert [r.best for r in reports] == sorted(r.best for r in reports)
    assert all(10 <= values["l2"] <= 2000 for values in study.fitted[1:])
    assert len({values["l2"] for values in study.fitted[1:]}) == 7  # each trial draws anew


def test_a_study_goes_on_as_if_it_had_not_stopped(study, tmp_path):
    whole, _ = study.run(trials=8)
    tried = list(study.fitted)
    study.file.unlink()
    study.fitted.clear()
    study.run(trials=3)
    study.outcomes[5] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        study.run(trials=8)
    with study.file.open("ab") as file:  # killed while it wrote
        file.write(b'{"op_code": 5, "worke')
    (study.file.parent / "ease.journal.lock").symlink_to(study.file)
    again, reports = study.run(trials=8)
    assert [r.number for r in reports] == [5, 6, 7, 8]
    assert study.fitted[:4] + study.fitted[5:] == tried
    assert study.fitted[4] == study.fitted[5]
    assert (again.values, again.score, again.trials) == (whole.values, whole.score, 8)


@pytest.mark.parametrize("broken", [b'{"op_code": 4, "wor\n', b"\x00" * 40, b"\x00\n7\n"])
def test_a_broken_line_costs_what_follows_it_and_no_more(study, broken):
    study.run(trials=2)
    two = study.file.read_bytes()
    whole, _ = study.run(trials=4)
    study.file.write_bytes(two + broken + study.file.read_bytes()[len(two) :])
    again, reports = study.run(trials=4)
    assert [r.number for r in reports] == [3, 4]
    assert (again.values, again.score) == (whole.values, whole.score)


def test_what_is_done_is_not_done_again(study):
    study.run(trials=3)
    _, reports = study.run(trials=3)
    assert reports == []
    assert len(study.fitted) == 3


def test_a_smaller_budget_reads_no_further_than_it_goes(study):
    small, _ = study.run(trials=2)
    large, reports = study.run(trials=8)
    assert large.score > small.score
    assert [r.number for r in reports] == [3, 4, 5, 6, 7, 8]
    again, reports = study.run(trials=2)
    assert (again.values, again.score, again.trials) == (small.values, small.score, 2)
    assert reports == []


def test_a_failed_trial_costs_itself(study):
    study.outcomes |= {1: ValueError("no\nluck"), 3: optuna.TrialPruned()}
    found, reports = study.run(trials=4)
    assert [r.state for r in reports] == ["fail", "complete", "pruned", "complete"]
    assert reports[0].problem == "ValueError: no"
    assert (found.trials, found.failed, found.pruned) == (4, 1, 1)


def test_only_failures_fail(study):
    study.outcomes |= dict.fromkeys(range(9), ValueError("no luck"))
    with pytest.raises(TrainingError, match=r"all 2 trials failed.*no luck"):
        study.run(trials=2)


def test_a_missing_library_ends_it_at_once(study):
    study.outcomes |= dict.fromkeys(range(9), MissingDependencyError("x", fix="pip install x"))
    with pytest.raises(MissingDependencyError):
        study.run(trials=4)
    assert len(study.fitted) == 1


def test_minutes_end_it_after_the_first(study):
    found, _ = study.run(trials=50, minutes=1e-9)
    assert found.trials == 1
    assert found.values == {}
    assert found.budget == {"trials": 50, "minutes": 1e-9}


def test_equal_scores_keep_the_configured_settings(study, monkeypatch):
    monkeypatch.setattr(tuning, "_score", lambda *_: 0.5)
    assert study.run(trials=4)[0].values == {}


@pytest.mark.parametrize(
    ("model", "monitor"), [("popularity", "warm_ndcg@20"), ("random", "ndcg@20")]
)
def test_nothing_to_tune_is_one_trial(make_config, catalog, tmp_path, model, monitor):
    found = tune(lay(make_config(), model, {}), catalog, {}, tmp_path / "x")
    assert (found.trials, found.values, found.monitor) == (1, {}, f"valid/{monitor}")


def test_the_score_is_that_of_the_fitted_model_on_valid(make_config, catalog, features, tmp_path):
    config = lay(make_config(trials=3), "ridge", {})
    found = tune(config, catalog, features, tmp_path / "x")
    scorer, _ = fit_scorer(lay(config, "ridge", found.values), catalog, features)
    measured = evaluate(scorer, catalog, "valid", ks=(20,)).harmonic_mean("ndcg@20")
    assert found.score == pytest.approx(measured)
    assert set(found.values) <= {"l2", "regularization", "kernel.kind"}


def test_a_hopeless_network_is_pruned(make_config, catalog, features):
    """Real training, with a study that has seen better."""
    study = optuna.create_study(
        direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=1)
    )
    done = study.ask()
    for epoch in range(3):
        done.report(2.0, epoch)
    study.tell(done, 2.0)
    trial = study.ask()
    config = lay(make_config(), "aligned", {})
    with pytest.raises(optuna.TrialPruned, match="below the median"):
        fit_scorer(config, catalog, features, callbacks=[Pruning(trial, "valid/ndcg@20")])
    assert list(study.trials[1].intermediate_values) == [0]


def test_a_network_that_does_well_is_not_pruned(make_config, catalog, features):
    trial = optuna.create_study(direction="maximize").ask()
    config = lay(make_config(), "aligned", {})
    _, result = fit_scorer(config, catalog, features, callbacks=[Pruning(trial, "valid/ndcg@20")])
    logged = [point.value for point in result.curve if point.name == "valid/ndcg@20"]
    assert list(trial.storage.get_trial(trial._trial_id).intermediate_values.values()) == logged
    assert len(logged) == 2
