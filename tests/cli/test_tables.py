from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mmalign.cli.tables import check_output, read_ids, write_table
from mmalign.errors import ConfigError, DataError


def test_ids_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_ids(["a", "b", "a"], "user_id") == ["a", "b"]
    assert read_ids(["one id.of this"], "user_id") == ["one id.of this"]
    odd = ["naïve é", " two  spaces ", "汉字", "line\u2028separator", "x\x85y"]
    (tmp_path / "ids.txt").write_text("\ufeff" + "\r\n".join([*odd, "", odd[0]]), encoding="utf-8")
    with_newline = read_ids(["ids.txt"], "user_id")
    assert with_newline == odd
    pd.DataFrame({"user_id": [*odd, "007", "1.50"]}).to_csv("ids.csv", index=False)
    assert read_ids(["ids.csv"], "user_id") == [*odd, "007", "1.50"]
    Path("ids.csv").rename("IDS.CSV")
    assert read_ids(["IDS.CSV"], "user_id") == [*odd, "007", "1.50"]
    pd.DataFrame({"user_id": [7.0, 8.0]}).to_parquet("ids.parquet")
    assert read_ids(["ids.parquet"], "user_id") == ["7", "8"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"\n \n", "holds no ids"),
        ("empty.csv", b"", "is empty"),
        ("latin.txt", "é".encode("latin-1"), "cannot read .*UTF-8"),
        ("other.csv", b"userid\nx\n", "no column 'user_id': did you mean 'userid'"),
        ("holes.csv", b"user_id,n\nx,1\n,2\n", "1 rows without user_id"),
        ("broken.parquet", b"PAR1", "cannot read"),
    ],
)
def test_files_without_ids(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_ids([str(tmp_path / name)], "user_id")


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(self, path, **_):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    (tmp_path / "recs.csv").write_text("old")
    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(DataError, match="No space left"):
        write_table(pd.DataFrame({"a": [1]}), str(tmp_path / "recs.csv"), as_json=False)
    assert [p.name for p in tmp_path.iterdir()] == ["recs.csv"]
    assert (tmp_path / "recs.csv").read_text() == "old"


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    check_output(None)
    check_output(str(tmp_path / "new" / "deep" / "recs.jsonl"))
    with pytest.raises(ConfigError, match="cannot tell the format"):
        check_output("recs.txt")
    for wrong in (tmp_path / "file" / "recs.csv", tmp_path / "folder.csv"):
        with pytest.raises(DataError, match="cannot write"):
            check_output(str(wrong))
