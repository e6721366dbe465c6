from __future__ import annotations

import logging
import sys
import warnings

import pytest

from mmalign.trainers.callbacks import quiet_lightning


def test_a_log_file_gets_a_line_per_validation_and_no_more(shop, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        shop.train(progress=True, max_epochs=4, check_val_every_n_epoch=2)
        shop.train(progress=True, max_epochs=2, check_val_every_n_epoch=2)  # same folder again
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "epoch 2/4",
        "epoch 4/4",
        lines[2],
        "epoch 2/2",
        lines[4],
    ]
    for word in ("loss", "warm", "cold", "all", "harmonic"):
        assert word in lines[0]
    assert lines[2].startswith("best valid/ndcg@20 0.")


def test_the_last_epoch_is_said_whatever_its_number(shop, capsys):
    shop.train(progress=True, max_epochs=3, check_val_every_n_epoch=2)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == ["epoch 2/3", "epoch 3/3"]
    assert all("harmonic" in line for line in lines[:-1])


def test_an_end_before_any_validation_is_said(shop, capsys):
    shop.train(progress=True, max_time={"milliseconds": 1}, check_val_every_n_epoch=10)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "training ended before any validation: the last weights stay"
    )


def test_the_reason_to_stop_early_is_said(shop, capsys):
    from mmalign.experiment import TrainingConfig

    shop.train(
        progress=True,
        max_epochs=50,
        model={"learning_rate": 1e-12},
        training=TrainingConfig(patience=2),
    )
    assert capsys.readouterr().err.splitlines()[-1].endswith("no better for 2 validations")


def test_a_terminal_gets_a_bar_instead(shop, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shop.train(progress=True, max_epochs=2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Epoch 1/1" in shown.err
    assert "epoch 1/2" not in shown.err


@pytest.mark.parametrize("options", [{"progress": False}, {"enable_progress_bar": False}])
def test_without_progress_nothing_is_printed(shop, capsys, options):
    shop.train(**{"progress": True, **options}, max_epochs=2)
    assert capsys.readouterr() == ("", "")


def test_only_notes_are_kept_out():
    names = ("lightning.pytorch", "lightning.fabric")
    before = [logging.getLogger(name).level for name in names]
    with quiet_lightning(), warnings.catch_warnings(record=True) as caught:
        warnings.warn("The 'train_dataloader' does not have many workers", stacklevel=1)
        warnings.warn("the number of training batches is zero", stacklevel=1)
        levels = {logging.getLogger(name).getEffectiveLevel() for name in names}
    assert levels == {logging.WARNING}
    assert [str(w.message) for w in caught] == ["the number of training batches is zero"]
    assert [logging.getLogger(name).level for name in names] == before
