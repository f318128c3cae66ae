"""Settings: from `freehold.toml` and the environment, the latter winning. Nothing else reads the environment.

An unknown setting is an error, because a misspelt one would silently do nothing.
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from freehold.money import USDC_DECIMALS, AmountError, parse_units

FILE = "freehold.toml"
PREFIX = "FREEHOLD_"
CLIENT = {
    "FREEHOLD_URL": "The server that the command line talks to; else the one that this user started last.",
    "FREEHOLD_API_KEY": "The API key that `freehold chat` and other calls are made with.",
    "FREEHOLD_CONFIG": f"Path of the settings file; else `{FILE}` in the current directory, if it is there.",
}
"""Of the environment only: what the command line and the loader themselves read."""


class SettingsError(Exception):
    """A setting is wrong; the text is one sentence that names it."""


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text")
    return value


def _path(value: object) -> Path:
    return Path(_text(value)).expanduser().absolute()


def _flag(value: object) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in known:
        return known[value.strip().lower()]
    raise ValueError("true or false")


def _number(least: int, most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"\d{1,12}", value.strip()):
            value = int(value)
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"a whole number from {least:,} to {most:,}")
        return value

    return read


def _url(*schemes: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        text = _text(value).strip()
        try:
            parts = urlsplit(text)
            parts.port  # noqa: B018 - raises for a port that is none
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in schemes or not (parts.netloc or parts.query):
            raise ValueError(f"a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return text.rstrip("/") if schemes[0].startswith("http") else text

    return read


def _address(value: object) -> str:
    text = _text(value).strip()
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", text):
        raise ValueError("an address of 0x and 40 hexadecimal digits")
    return text


def _answer_key(value: object) -> str:
    text = _text(value).strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError("64 hexadecimal digits")
    return text


def _usdc(value: object) -> int:
    """USDC as base units."""
    try:
        return parse_units(str(value), decimals=USDC_DECIMALS)
    except AmountError:
        raise ValueError("an amount of USDC such as 0.001, with at most 6 decimal places") from None


def _choice(*known: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        text = _text(value).strip().lower()
        if text not in known:
            raise ValueError(f"{', '.join(known[:-1])} or {known[-1]}")
        return text

    return read


_level = _choice("debug", "info", "warning", "error")


def _tables(value: object) -> tuple[Mapping[str, Any], ...]:
    """The upstreams: tables, or JSON, or TOML, or the path of a file with either."""
    wanted = "a list of tables as JSON, TOML with [[upstream]], or the path of a file with either"
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith(("[", "{")) and "\n" not in text and "=" not in text:
            try:
                text = Path(text).expanduser().read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError):
                raise ValueError(f"{wanted} (there is no readable file {text})") from None
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            try:
                value = tomllib.loads(text)
            except tomllib.TOMLDecodeError:
                raise ValueError(wanted) from None
    if isinstance(value, Mapping):
        value = value.get("upstream", [value])
    if not isinstance(value, list | tuple) or not value or not all(isinstance(table, Mapping) for table in value):
        raise ValueError(wanted)
    return tuple(value)


def _setting(default: Any, doc: str, read: Callable[[object], Any], *, shown: str | None = None) -> Any:
    metadata = {"doc": doc, "read": read, "shown": shown}
    return (
        field(default_factory=default, metadata=metadata)
        if callable(default)
        else field(default=default, metadata=metadata)
    )


def checkout() -> Path | None:
    """The checkout that this code runs from; None when it was installed as a wheel."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "npm" / "package.json").is_file() else None


def _default_data() -> Path:
    root = checkout()
    return root / ".freehold" if root else Path.home() / ".local" / "share" / "freehold"


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, checked. The names are those of `freehold.toml`; in the environment `FREEHOLD_` stands before."""

    data: Path = _setting(
        _default_data,
        "Directory of everything that is kept: database, dev chain, credentials, logs. Made with mode 0700.",
        _path,
        shown="`.freehold` in the checkout",
    )
    host: str = _setting("127.0.0.1", "Address to listen on.", _text)
    port: int = _setting(8402, "TCP port to listen on; 0 takes a free one.", _number(0, 65_535))
    workers: int = _setting(1, "Worker processes that share the port.", _number(1, 64))
    no_model: bool = _setting(
        False, "Start without the embedded model; a scripted one answers if there are no upstreams.", _flag
    )
    defi: bool = _setting(
        False, "Put Uniswap v3 and Morpho Blue onto the dev chain, with pools and lending markets; what that fetches has "
        "licences of its own, which the first start shows.", _flag,
    )  # fmt: skip
    database_url: str | None = _setting(
        None, "A PostgreSQL of your own, instead of the embedded one.", _url("postgresql", "postgres")
    )
    rpc_url: str | None = _setting(
        None, "A node of your own, instead of the embedded dev chain; needs `deployment` off chain 402031.",
        _url("http", "https"),
    )  # fmt: skip
    upstreams: tuple[Mapping[str, Any], ...] = _setting(
        (), "Where models run, instead of the embedded ones: JSON, TOML, or the path of a file with either.", _tables,
        shown="the embedded models",
    )  # fmt: skip
    deployment: Path | None = _setting(
        None, "File that says where the contracts live.", _path, shown="`deployment.toml` in `data`"
    )
    operator: str | None = _setting(
        None, "Address of the operator whose stakes count here.", _address, shown="that of the deployment"
    )
    confirmations: int | None = _setting(
        None, "Blocks that must stand on a block before it counts.", _number(0, 10_000),
        shown="that of the deployment; 2 on the dev chain",
    )  # fmt: skip
    public_url: str | None = _setting(
        None, "The server's address as callers see it; wallets sign it.", _url("http", "https"),
        shown="`http://host:port`",
    )  # fmt: skip
    default_output_tokens: int = _setting(
        4_096, "Most output tokens of a call that names no maximum.", _number(256, 1_000_000)
    )
    body_limit_bytes: int = _setting(
        16 * 1024 * 1024, "Largest body of a model call.", _number(1_024, 1024 * 1024 * 1024)
    )
    x402: bool | None = _setting(
        None, "Take payments by x402: calls without an account, and top-ups. Off the dev chain it needs `operator_keystore`.",
        _flag, shown="true on the dev chain, else false",
    )  # fmt: skip
    x402_least: int = _setting(
        1_000, "The least USDC that a call without an account is asked for; each payment costs a transaction.",
        _usdc, shown="0.001",
    )  # fmt: skip
    operator_keystore: Path | None = _setting(
        None, "Keystore file of the wallet that publishes each day's receipts and carries x402 payments to the chain.", _path,
        shown="the operator's own, on the dev chain",
    )  # fmt: skip
    operator_password_file: Path | None = _setting(
        None, "File with the password of `operator_keystore`.", _path, shown="asked for at the start"
    )
    answer_key: str | None = _setting(
        None, "Key that answers kept for an Idempotency-Key are sealed with; the same on every host of one database.",
        _answer_key, shown="`answers.key` in `data`",
    )  # fmt: skip
    otlp_endpoint: str | None = _setting(
        None, "A collector that traces of calls go to by OTLP over HTTP, such as http://127.0.0.1:4318; none: no traces.",
        _url("http", "https"),
    )  # fmt: skip
    log_level: str = _setting("info", "debug, info, warning or error.", _level)
    log_format: str = _setting(
        "text", "How the workers log: text, or json for one JSON object a line.", _choice("text", "json")
    )


NAMES = tuple(setting.name for setting in fields(Settings))


def load(
    environ: Mapping[str, str] | None = None,
    *,
    folder: Path | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Settings from the file, then the environment, then `overrides` (a command's options). Raises SettingsError."""
    environ = os.environ if environ is None else environ
    read: dict[str, Any] = {}
    for where, name, value in (
        *_from_file(environ, folder or Path.cwd()),
        *_from_environment(environ),
        *(
            (f"--{name.replace('_', '-')}", name, value)
            for name, value in (overrides or {}).items()
            if value is not None
        ),
    ):
        reader = next(setting.metadata["read"] for setting in fields(Settings) if setting.name == name)
        try:
            read[name] = reader(value)
        except ValueError as wanted:
            shown = (
                ""
                if isinstance(value, Mapping | list)
                or "url" in name
                or name in ("upstreams", "answer_key", "otlp_endpoint")
                else f", not {value!r}"
            )
            raise SettingsError(f"The setting {where} must be {wanted}{shown}.") from None
    return Settings(**read)


def config_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where the command line keeps what belongs to a user: `${XDG_CONFIG_HOME:-~/.config}/freehold`."""
    chosen = (os.environ if environ is None else environ).get("XDG_CONFIG_HOME")
    return (Path(chosen) if chosen else Path.home() / ".config") / "freehold"


def child_environment() -> dict[str, str]:
    """What our own children may see of the environment: everything but the settings, which they are told."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def _from_environment(environ: Mapping[str, str]) -> list[tuple[str, str, object]]:
    found: list[tuple[str, str, object]] = []
    for variable, value in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable in CLIENT or not value:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in NAMES or variable != PREFIX + name.upper():
            raise SettingsError(_unknown(variable, [*(PREFIX + known.upper() for known in NAMES), *CLIENT]))
        found.append((variable, name, value))
    return found


def _from_file(environ: Mapping[str, str], folder: Path) -> list[tuple[str, str, object]]:
    chosen = environ.get("FREEHOLD_CONFIG")
    path = Path(chosen).expanduser() if chosen else folder / FILE
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if chosen:
            raise SettingsError(f"There is no settings file {path}, which FREEHOLD_CONFIG names.") from None
        return []
    except OSError as error:
        raise SettingsError(f"The settings file {path} can't be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings file {path} is not TOML: {error}.") from None
    found: list[tuple[str, str, object]] = []
    for name, value in tables.items():
        if name == "upstream":
            found.append((f"[[upstream]] in {path}", "upstreams", value))
        elif name != "freehold" or not isinstance(value, Mapping):
            raise SettingsError(
                f"{name} in {path} is not known: settings stand under [freehold], upstreams under [[upstream]]."
            )
    for name, value in (tables.get("freehold") or {}).items():
        if name not in NAMES:
            raise SettingsError(_unknown(name, NAMES, f" in {path}"))
        found.append((f"{name} in {path}", name, value))
    return found


def _unknown(name: str, known: Sequence[str], where: str = "") -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "docs/reference/settings.md lists them all."
    return f"The setting {name}{where} is not known: {hint}"


def reference() -> str:
    """The page docs/reference/settings.md."""
    rows = []
    for setting in fields(Settings):
        default = setting.metadata["shown"] or ("none" if setting.default is None else f"`{_toml(setting.default)}`")
        rows.append(f"| `{setting.name}` | `{PREFIX}{setting.name.upper()}` | {default} | {setting.metadata['doc']} |")
    client = [f"| `{name}` | {doc} |" for name, doc in CLIENT.items()]
    return "\n".join(
        [
            "# Settings",
            "",
            "Made by `make generate` from src/freehold/app/settings.py.",
            "",
            f"Each setting stands in `{FILE}` under `[freehold]`, or in the environment, which wins; an option of",
            "`freehold up` wins over both. Upstreams stand in the file as `[[upstream]]` tables",
            "([fields](../../src/freehold/upstream/README.md)). An unknown setting stops the start with exit code 2.",
            "",
            f"| in `{FILE}` | in the environment | default | |",
            "|---|---|---|---|",
            *rows,
            "",
            "In the environment only:",
            "",
            "| | |",
            "|---|---|",
            *client,
            "",
        ]
    )


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
