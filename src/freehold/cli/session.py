"""One run of a command: which server, as whom, and where the result goes."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from freehold.cli.client import Client
from freehold.cli.credentials import Credentials, Local, Login, config_folder
from freehold.cli.output import Output
from freehold.cli.refusal import Refusal, ServerRefused

if TYPE_CHECKING:
    from freehold.cli.keystores import Keystore

OPERATOR_ACCOUNT = "default"
"""The name of the account that a server makes at its first start."""

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Acting:
    """A token, and the account that it speaks for: `query` goes with each account route."""

    token: str
    name: str
    account: int | None = None
    """Set for the operator's token, which belongs to no account."""

    def query(self) -> dict[str, object]:
        return {} if self.account is None else {"account": self.account}


class Session:
    """Which server, as whom. Reads files and asks the server lazily."""

    def __init__(
        self,
        *,
        out: Output,
        credentials: Credentials,
        url: str | None = None,
        data: Path | None = None,
        account: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self.out = out
        self.credentials = credentials
        self.account_name = account
        self.api_key = api_key
        self.keystore: Keystore | None = None
        """The file of the wallet that signs, where one was given instead of a name."""
        self.rpc_url: str | None = None
        """The chain's node, where it was given."""
        self.data = data
        """The data folder, where it was named."""
        self._url = url

    @functools.cached_property
    def local(self) -> Local | None:
        """The server on this machine, if it is the one that is meant."""
        found = self.credentials.local(self.data)
        if found is None or (self._url is not None and _plain(self._url) != _plain(found.url)):
            return None
        return found

    @functools.cached_property
    def client(self) -> Client:
        """The server, without a token."""
        if self._url is not None:
            return Client(self._url)
        if self.local is None:
            raise Refusal("No server is known here; start one with `freehold up`, or give --url (or FREEHOLD_URL).")
        return Client(self.local.url)

    @property
    def url(self) -> str:
        return self.client.url

    def logins(self) -> dict[str, Login]:
        return self.credentials.logins(self.url)

    def operator(self) -> Client:
        """The server with the operator's token. Refused when this machine doesn't hold it."""
        if self.local is None:
            raise Refusal(
                "This needs the operator's token, which is in the data folder of the server; "
                "run it there, or name that folder with --data."
            )
        return self.client.bearing(self.local.admin_token)

    def chosen(self) -> str | None:
        """The account's name that was asked for, or that `account use` chose."""
        return self.account_name or self.credentials.current(self.url)

    def acting(self) -> Acting:
        """As whom account routes are called: a key given, a login, or the operator for an account of theirs."""
        if self.api_key and not self.account_name:
            return Acting(self.api_key, "the given API key")
        name = self.chosen()
        login = self.logins().get(name) if name else None
        if login is not None:
            return Acting(login.token, login.name)
        if self.local is not None and name in (None, OPERATOR_ACCOUNT):
            return Acting(self.local.admin_token, OPERATOR_ACCOUNT, self.local.account_id)
        if self.local is not None and name is not None:
            return Acting(self.local.admin_token, name, self.account_id(name))
        raise self._unknown(name)

    def account(self) -> tuple[Client, dict[str, object]]:
        """A client for account routes, and the query that goes with each of them."""
        acting = self.acting()
        return self.client.bearing(acting.token), acting.query()

    def calling_key(self) -> str:
        """An API key to call models with; makes one, and remembers it, for a login that has none."""
        if self.api_key and not self.account_name:
            return self.api_key
        name = self.chosen()
        login = self.logins().get(name) if name else None
        if login is not None:
            return login.api_key or self.make_key(login)
        if self.local is not None and name in (None, OPERATOR_ACCOUNT, str(self.local.account_id)):
            return self.local.api_key
        if self.local is not None and name is not None:
            kept = self.credentials.account_key(self.url, self.account_id(name))
            if kept is not None:
                return kept
            raise Refusal(
                f"No API key of account {name} is kept here; make one with `freehold keys create NAME --account {name}` "
                "and give it as FREEHOLD_API_KEY."
            )
        raise self._unknown(name)

    def make_key(self, login: Login) -> str:
        """A key for a login's own calls, remembered beside it."""
        made = self.client.bearing(login.token).post(
            "/v1/account/keys", {"name": "freehold command line", "scopes": ["inference", "read"]}
        )
        self.credentials.keep_key(self.url, login, str(made["secret"]))
        return str(made["secret"])

    def account_id(self, name: str) -> int:
        if name.isascii() and name.isdigit():
            return int(name)
        for account in items(self.operator().get("/v1/admin/accounts")):
            if name in (account.get("name"), account.get("address")):
                return int(account["id"])
        raise self._unknown(name)

    def _unknown(self, name: str | None) -> Refusal:
        if name is None:
            return Refusal(
                "No credentials for this server are kept here; give an API key as FREEHOLD_API_KEY (or --api-key), "
                "or run `freehold login --from NAME`."
            )
        return Refusal(
            f"No account {name!r} is known here; log in with `freehold login --from {name}`, "
            "or see who has with `freehold whoami`."
        )


def _plain(url: str) -> str:
    """A URL to compare with: `localhost` is this machine."""
    return Client(url).url.replace("://localhost", "://127.0.0.1")


def items(answer: Any) -> list[dict[str, Any]]:
    """The rows of a list answer: a bare list, or the first list in an object."""
    if isinstance(answer, dict):
        answer = next((value for value in answer.values() if isinstance(value, list)), [])
    return [row for row in answer if isinstance(row, dict)] if isinstance(answer, list) else []


def segment(text: str) -> str:
    """A path segment."""
    from urllib.parse import quote

    return quote(text, safe="")


def ended(problem: ServerRefused, name: str) -> Refusal:
    """A login's token that the server no longer takes, said with its mend."""
    if problem.status == 401:
        return Refusal(f"The login of {name} has ended; run `freehold login --from {name}` again.")
    return problem


def common(command: Command) -> Command:
    """Options of every command that talks to a server; the command gets a Session first."""

    @functools.wraps(command)
    def run(
        *args: Any,
        as_json: bool,
        url: str | None,
        data: Path | None,
        xdg_config_home: Path | None,
        account: str | None = None,
        api_key: str | None = None,
        **options: Any,
    ) -> Any:
        session = Session(
            out=Output(as_json=as_json),
            credentials=Credentials(config_folder(xdg_config_home)),
            url=url,
            data=data,
            account=account,
            api_key=api_key,
        )
        return command(session, *args, **options)

    for option in reversed(
        (
            click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout."),
            click.option("--url", envvar="FREEHOLD_URL", metavar="URL", help="The server. [env: FREEHOLD_URL]"),
            click.option(
                "--data",
                envvar="FREEHOLD_DATA",
                metavar="DIR",
                type=click.Path(path_type=Path, file_okay=False),
                help="Data folder of a server on this machine. [env: FREEHOLD_DATA]",
            ),
            click.option(
                "--config-home",
                "xdg_config_home",
                envvar="XDG_CONFIG_HOME",
                type=click.Path(path_type=Path),
                hidden=True,
            ),
        )
    ):
        run = option(run)
    return run  # type: ignore[return-value]


def acting(command: Command) -> Command:
    """`common`, and options that say whose account is meant."""
    return click.option("--account", metavar="NAME", help="A login's name, 'default', or an account's id.")(
        click.option("--api-key", envvar="FREEHOLD_API_KEY", metavar="KEY", help="An API key. [env: FREEHOLD_API_KEY]")(
            common(command)
        )
    )
