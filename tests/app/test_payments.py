"""Whether payments by x402 are taken, and whose wallet carries them to the chain."""

from pathlib import Path

import pytest

from freehold.app import first
from freehold.app.plan import takes_payments
from freehold.app.settings import Settings, SettingsError, load
from freehold.chain import keystore
from freehold.chain.model import DEV_CHAIN_ID
from freehold.chain.problems import WalletRefused
from freehold.host.process import HostError

SECRET = bytes(range(1, 33))


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    keystore.write(tmp_path / "operator.json", SECRET, "pass")
    return tmp_path / "operator.json"


@pytest.mark.parametrize(
    ("setting", "chain_id", "taken"),
    [(None, DEV_CHAIN_ID, True), (False, DEV_CHAIN_ID, False), (None, 8453, False), (True, 8453, True)],
)
def test_they_are_on_by_themselves_on_the_dev_chain_only(setting: bool | None, chain_id: int, taken: bool) -> None:
    assert takes_payments(setting, chain_id) is taken


def test_elsewhere_they_need_a_keystore(kept: Path) -> None:
    first.check_payments(Settings(), 8453)
    first.check_payments(Settings(x402=True), DEV_CHAIN_ID)
    first.check_payments(Settings(x402=True, operator_keystore=kept), 8453)
    with pytest.raises(HostError, match="FREEHOLD_OPERATOR_KEYSTORE"):
        first.check_payments(Settings(x402=True), 8453)


def test_the_keystore_is_opened_with_a_file_or_by_asking(kept: Path, tmp_path: Path) -> None:
    assert first.open_operator(Settings(), None) is None
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "pass"

    assert first.open_operator(Settings(operator_keystore=kept), ask) == SECRET
    assert asked == [f"Password of {kept}: "]
    (tmp_path / "password").write_text("pass\n", "utf-8")
    settings = Settings(operator_keystore=kept, operator_password_file=tmp_path / "password")
    assert first.open_operator(settings, None) == SECRET
    with pytest.raises(HostError, match="FREEHOLD_OPERATOR_PASSWORD_FILE"):
        first.open_operator(Settings(operator_keystore=kept), None)
    with pytest.raises(HostError, match="can't be read"):
        first.open_operator(Settings(operator_keystore=kept, operator_password_file=tmp_path / "no"), None)
    (tmp_path / "password").write_text("other\n", "utf-8")
    with pytest.raises(WalletRefused, match="doesn't open"):
        first.open_operator(settings, None)


def test_the_least_is_read_as_usdc(tmp_path: Path) -> None:
    assert load({}, folder=tmp_path).x402_least == 1_000
    assert load({"FREEHOLD_X402_LEAST": "0.05"}, folder=tmp_path).x402_least == 50_000
    with pytest.raises(SettingsError, match="FREEHOLD_X402_LEAST must be an amount of USDC"):
        load({"FREEHOLD_X402_LEAST": "0.0000001"}, folder=tmp_path)
