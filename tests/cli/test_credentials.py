"""What the CLI keeps, and where."""

import json
import stat
from pathlib import Path

import pytest

from freehold.cli.credentials import Credentials, Login, config_folder
from freehold.cli.refusal import Refusal

ALICE = Login("alice", "fh_s_secret", 7, "0x00000000000000000000000000000000000000A1", "2026-12-01T00:00:00Z")
HERE, THERE = "http://127.0.0.1:8402", "http://10.0.0.1:8402"


def server(data: Path) -> Path:
    data.mkdir(exist_ok=True)
    (data / "credentials.json").write_text(
        json.dumps({"url": HERE, "admin_token": "fh_admin_x", "api_key": "fh_x", "account_id": 1, "chain_id": 402031})
    )
    return data


def test_the_pointer_leads_to_the_server_of_this_machine(tmp_path: Path) -> None:
    data = server(tmp_path / "data")
    (tmp_path / "current.json").write_text(json.dumps({"data": str(data)}))
    local = Credentials(tmp_path).local(None)
    assert local is not None
    assert (local.url, local.admin_token, local.api_key, local.account_id) == (HERE, "fh_admin_x", "fh_x", 1)


def test_without_a_pointer_there_is_no_server(tmp_path: Path) -> None:
    assert Credentials(tmp_path).local(None) is None


def test_a_folder_that_was_asked_for_and_holds_no_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="freehold up --data"):
        Credentials(tmp_path).local(tmp_path)


@pytest.mark.parametrize("text", ["{", '{"url": "x"}'])
def test_broken_credentials_are_told_in_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "credentials.json").write_text(text)
    with pytest.raises(Refusal, match=r"credentials\.json"):
        Credentials(tmp_path).local(tmp_path)


def test_a_login_is_kept_for_its_server_only_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "freehold"
    kept = Credentials(folder)
    kept.keep(HERE, ALICE)
    assert kept.logins(HERE) == {"alice": ALICE}
    assert kept.logins(THERE) == {}
    assert stat.S_IMODE((folder / "logins.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == ["logins.json"]


def test_who_is_in_use_is_forgotten_with_the_login(tmp_path: Path) -> None:
    kept = Credentials(tmp_path)
    kept.keep(HERE, ALICE)
    kept.use(HERE, "alice")
    assert kept.current(HERE) == "alice"
    kept.forget(HERE, "alice")
    assert (kept.current(HERE), kept.logins(HERE)) == (None, {})


def test_a_key_of_a_login_is_remembered_beside_it(tmp_path: Path) -> None:
    kept = Credentials(tmp_path)
    kept.keep(HERE, ALICE)
    kept.keep_key(HERE, ALICE, "fh_key")
    assert kept.logins(HERE)["alice"].api_key == "fh_key"


def test_a_broken_file_of_logins_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "logins.json").write_text("{")
    with pytest.raises(Refusal, match="mend or remove"):
        Credentials(tmp_path).logins(HERE)


def test_the_configuration_folder_follows_xdg(tmp_path: Path) -> None:
    assert config_folder(tmp_path) == tmp_path / "freehold"
    assert config_folder(None) == Path.home() / ".config" / "freehold"
