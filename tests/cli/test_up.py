"""`freehold up` refuses a wrong setting before it starts anything."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from freehold.cli.root import cli


def test_a_wrong_setting_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["up", "--data", str(tmp_path)], env={"FREEHOLD_WORKERS": "many"})
    assert result.exit_code == 2
    assert "FREEHOLD_WORKERS" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_empty_data_directory_is_not_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["up", "--data", "", "--port", "0"])
    assert result.exit_code == 2
    assert "--data must be a text" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_setting_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["up", "--data", str(tmp_path)], env={"FREEHOLD_WORKRES": "2"})
    assert result.exit_code == 2
    assert "did you mean FREEHOLD_WORKERS?" in result.stderr
