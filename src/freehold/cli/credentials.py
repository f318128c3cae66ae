"""What the CLI may act as: the credentials of a server on this machine, and the wallets that have logged in.

A server writes `credentials.json` into its data folder and leaves a pointer to it in the configuration folder. Logins
are kept in `logins.json` there, mode 0600, by server URL and then by name.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from freehold.cli.refusal import Refusal

POINTER = "current.json"
LOGINS = "logins.json"
CREDENTIALS = "credentials.json"


@dataclass(frozen=True, slots=True)
class Local:
    """A server on this machine, as its operator knows it."""

    data: Path
    url: str
    admin_token: str
    api_key: str
    account_id: int


@dataclass(frozen=True, slots=True)
class Login:
    """A wallet that has signed in at one server."""

    name: str
    token: str
    account_id: int
    address: str
    expires_at: str
    api_key: str | None = None
    """Made at the first call, because a session alone doesn't pay for calls."""


def config_folder(xdg_config_home: Path | None) -> Path:
    """`${XDG_CONFIG_HOME:-~/.config}/freehold`."""
    return (xdg_config_home or Path.home() / ".config") / "freehold"


class Credentials:
    """The files of one configuration folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def local(self, data: Path | None) -> Local | None:
        """The server of the data folder, else of the folder that the pointer names; None when there is neither."""
        asked = data is not None
        if data is None:
            pointer = _read(self.folder / POINTER)
            if pointer is None or not isinstance(pointer.get("data"), str):
                return None
            data = Path(pointer["data"])
        found = _read(data / CREDENTIALS)
        if found is None:
            if asked:
                raise Refusal(
                    f"{data} holds no {CREDENTIALS}: no server was started there; run `freehold up --data {data}`."
                )
            return None
        try:
            return Local(
                data, str(found["url"]), str(found["admin_token"]), str(found["api_key"]), int(found["account_id"])
            )
        except (KeyError, TypeError, ValueError):
            raise Refusal(f"{data / CREDENTIALS} is incomplete; start the server again with `freehold up`.") from None

    def logins(self, url: str) -> dict[str, Login]:
        """Who has logged in at `url`, by name."""
        names = self._server(url).get("names")
        if not isinstance(names, dict):
            return {}
        try:
            return {name: Login(**fields) for name, fields in names.items()}
        except TypeError:
            raise Refusal(f"{self.folder / LOGINS} can't be read; remove it and log in again.") from None

    def current(self, url: str) -> str | None:
        """The name that `account use` chose for `url`."""
        chosen = self._server(url).get("current")
        return chosen if isinstance(chosen, str) else None

    def keep(self, url: str, login: Login) -> None:
        server = self._server(url)
        names = dict(server.get("names") or {})
        names[login.name] = asdict(login)
        self._put(url, {**server, "names": names})

    def keep_key(self, url: str, login: Login, api_key: str) -> Login:
        """Remember the API key of a login."""
        changed = replace(login, api_key=api_key)
        self.keep(url, changed)
        return changed

    def account_key(self, url: str, account_id: int) -> str | None:
        """The API key of an account that was made here."""
        kept = self._server(url).get("keys")
        key = kept.get(str(account_id)) if isinstance(kept, dict) else None
        return key if isinstance(key, str) else None

    def keep_account_key(self, url: str, account_id: int, key: str) -> None:
        server = self._server(url)
        self._put(url, {**server, "keys": {**(server.get("keys") or {}), str(account_id): key}})

    def forget(self, url: str, name: str) -> None:
        server = self._server(url)
        names = {other: fields for other, fields in (server.get("names") or {}).items() if other != name}
        current = server.get("current")
        self._put(url, {**server, "names": names, "current": None if current == name else current})

    def use(self, url: str, name: str | None) -> None:
        self._put(url, {**self._server(url), "current": name})

    def _server(self, url: str) -> Mapping[str, Any]:
        found = (_read(self.folder / LOGINS) or {}).get(url)
        return found if isinstance(found, dict) else {}

    def _put(self, url: str, server: Mapping[str, Any]) -> None:
        servers = dict(_read(self.folder / LOGINS) or {})
        servers[url] = server
        _write(self.folder / LOGINS, servers)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as broken:
        reason = broken.strerror if isinstance(broken, OSError) and broken.strerror else "it is not JSON"
        raise Refusal(f"{path} can't be read ({reason.lower()}); mend or remove it.") from None
    return value if isinstance(value, dict) else None


def _write(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a file at once, readable by its owner only."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2)
        fresh.replace(path)
    except OSError as broken:
        raise Refusal(f"{path} can't be written ({(broken.strerror or 'error').lower()}); check its folder.") from None
