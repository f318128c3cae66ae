"""Settings: from a file, the environment and options; a wrong one is a sentence that names it."""

from pathlib import Path

import pytest

from freehold.app.settings import NAMES, Settings, SettingsError, load, reference

ROOT = Path(__file__).parents[2]


def test_without_any_the_defaults_hold(tmp_path: Path) -> None:
    found = load({}, folder=tmp_path)
    assert (found.host, found.port, found.workers, found.no_model) == ("127.0.0.1", 8402, 1, False)
    assert (found.database_url, found.rpc_url, found.upstreams) == (None, None, ())


def test_an_option_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "freehold.toml").write_text('[freehold]\nport = 1\nhost = "::1"\nworkers = 3\n', "utf-8")
    found = load({"FREEHOLD_PORT": "2", "FREEHOLD_HOST": "0.0.0.0"}, folder=tmp_path, overrides={"port": 3})
    assert (found.port, found.host, found.workers) == (3, "0.0.0.0", 3)


def test_upstreams_come_as_tables_json_toml_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "freehold.toml").write_text('[[upstream]]\nname = "a"\nkind = "scripted"\n', "utf-8")
    assert load({}, folder=tmp_path).upstreams == ({"name": "a", "kind": "scripted"},)
    (tmp_path / "list.json").write_text('[{"name": "b"}]', "utf-8")
    for text in ('[{"name": "b"}]', '[[upstream]]\nname = "b"', str(tmp_path / "list.json")):
        assert load({"FREEHOLD_UPSTREAMS": text}, folder=tmp_path).upstreams == ({"name": "b"},)


@pytest.mark.parametrize(
    ("environ", "text", "sentence"),
    [
        ({"FREEHOLD_PROT": "1"}, "", "The setting FREEHOLD_PROT is not known: did you mean FREEHOLD_PORT?"),
        ({"FREEHOLD_port": "1"}, "", "The setting FREEHOLD_port is not known"),
        ({}, "[freehold]\nwokers = 2", "The setting wokers in .* is not known: did you mean workers?"),
        ({}, "port = 1", "port in .* is not known: settings stand under"),
        ({}, "[freehold", "is not TOML"),
        ({"FREEHOLD_CONFIG": "/nowhere.toml"}, "", "There is no settings file /nowhere.toml"),
        ({"FREEHOLD_PORT": "x"}, "", "The setting FREEHOLD_PORT must be a whole number from 0 to 65,535, not 'x'."),
        ({}, "[freehold]\nport = true", "must be a whole number"),
        ({"FREEHOLD_WORKERS": "0"}, "", "must be a whole number from 1 to 64"),
        ({"FREEHOLD_NO_MODEL": "maybe"}, "", "must be true or false"),
        ({"FREEHOLD_RPC_URL": "ftp://x"}, "", "must be a URL that begins with http:// or https://."),
        ({"FREEHOLD_OPERATOR": "0x12"}, "", "must be an address"),
        ({"FREEHOLD_LOG_LEVEL": "loud"}, "", "must be debug, info, warning or error"),
        ({"FREEHOLD_UPSTREAMS": "/nowhere.json"}, "", "there is no readable file /nowhere.json"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, environ: dict[str, str], text: str, sentence: str) -> None:
    if text:
        (tmp_path / "freehold.toml").write_text(text, "utf-8")
    with pytest.raises(SettingsError, match=sentence.replace("?", r"\?")):
        load(environ, folder=tmp_path)


def test_a_secret_in_a_wrong_url_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as wrong:
        load({"FREEHOLD_DATABASE_URL": "mysql://me:secret@host/db"}, folder=tmp_path)
    assert "secret" not in str(wrong.value)


def test_what_belongs_to_others_in_the_environment_is_let_be(tmp_path: Path) -> None:
    load({"PATH": "/bin", "FREEHOLD_URL": "http://x", "FREEHOLD_API_KEY": "fh_x", "HOME": "/"}, folder=tmp_path)


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text("utf-8")
    assert page == reference()
    for name in NAMES:
        assert f"| `{name}` | `FREEHOLD_{name.upper()}` |" in page
        assert Settings.__dataclass_fields__[name].metadata["doc"].endswith(".")
