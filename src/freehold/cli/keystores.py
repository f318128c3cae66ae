"""Wallets in files of one's own: encrypted keystores, and the commands that make, import and list them.

A password comes from a prompt, a file or a file descriptor: never from an argument or the environment, which others see.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from freehold.cli.output import Output
from freehold.cli.refusal import Refusal
from freehold.cli.session import Session, common

Command = TypeVar("Command", bound=Callable[..., Any])

FOLDER = "wallets"
LONGEST_PASSWORD = 4_096


@dataclass(frozen=True, slots=True)
class Password:
    """Where a password comes from."""

    file: Path | None = None
    descriptor: int | None = None

    def read(self, what: str, *, twice: bool = False) -> str:
        """`what` is shown by the prompt. Raises Refusal."""
        if self.file is not None and self.descriptor is not None:
            raise click.UsageError("--password-file and --password-fd exclude each other.")
        if self.file is not None:
            try:
                return _first_line(self.file.read_bytes())
            except OSError as error:
                reason = (error.strerror or "error").lower()
                raise Refusal(f"The password file {self.file} can't be read: {reason}.") from None
        if self.descriptor is not None:
            try:
                with os.fdopen(self.descriptor, "rb", closefd=False) as file:
                    return _first_line(file.read(LONGEST_PASSWORD))
            except OSError:
                raise Refusal(f"File descriptor {self.descriptor} can't be read; open it, as in `3< FILE`.") from None
        if not sys.stdin.isatty():
            raise Refusal(f"{what} is needed; name a file with --password-file, or a descriptor with --password-fd.")
        asked: str = click.prompt(what, hide_input=True, confirmation_prompt=twice, err=True)
        return asked


def _first_line(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace").split("\n", 1)[0].rstrip("\r")
    if not text:
        raise Refusal("The password is empty.")
    return text


@dataclass(frozen=True, slots=True)
class Keystore:
    """One keystore file. The key is decrypted at the first use, once."""

    path: Path
    password: Password
    _opened: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """How commands call it: its file's name without the ending."""
        return self.path.stem

    def address(self) -> str:
        from freehold.chain.keystore import address_in

        return address_in(self.path)

    def secret(self) -> bytes:
        from freehold.chain.keystore import open_secret

        if "key" not in self._opened:
            self._opened["key"] = open_secret(self.path, self.password.read(f"Password of {self.path}"))
        return self._opened["key"]


def folder_of(session: Session) -> Path:
    return session.credentials.folder / FOLDER


def find(session: Session, wanted: str, password: Password) -> Keystore:
    """The keystore at a path, or of that name in the folder of wallets. Raises Refusal."""
    path = Path(wanted).expanduser()
    if not path.is_file() and "/" not in wanted:
        path = folder_of(session) / f"{wanted}.json"
    if not path.is_file():
        raise Refusal(f"There is no keystore file {wanted}, and no wallet of that name in {folder_of(session)}.")
    return Keystore(path, password)


def with_password(command: Command) -> Command:
    """`--password-file` and `--password-fd`."""
    file = click.option(
        "--password-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
        help="Read the keystore's password from the first line of FILE.",
    )  # fmt: skip
    descriptor = click.option(
        "--password-fd", type=click.IntRange(min=0), metavar="N", help="Read it from file descriptor N."
    )
    return file(descriptor(command))


name_argument = click.argument("wanted", metavar="NAME|FILE")


@click.command("new")
@name_argument
@with_password
@common
def new(session: Session, wanted: str, password_file: Path | None, password_fd: int | None) -> None:
    """Make a new key and keep it encrypted: as NAME in the folder of wallets, or in FILE (a path with a /)."""
    from freehold.chain.keystore import new_secret

    _keep(session, wanted, new_secret, Password(password_file, password_fd))


@click.command("import")
@name_argument
@click.option(
    "--key-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Read the private key (64 hexadecimal digits) from FILE; asked for when left out.",
)  # fmt: skip
@with_password
@common
def import_key(
    session: Session, wanted: str, key_file: Path | None, password_file: Path | None, password_fd: int | None
) -> None:
    """Keep a private key that there is already, encrypted."""
    from freehold.chain.keystore import secret_of

    def given() -> bytes:
        return secret_of(Password(key_file).read("Private key"))

    _keep(session, wanted, given, Password(password_file, password_fd))


@click.command("list")
@common
def list_wallets(session: Session) -> None:
    """List the wallets in the folder of wallets."""
    from freehold.chain.keystore import address_in

    found = sorted(folder_of(session).glob("*.json"))
    rows = [{"name": path.stem, "address": address_in(path), "file": str(path)} for path in found]

    def draw(out: Output) -> None:
        if rows:
            out.table(("name", "address", "file"), [(row["name"], row["address"], row["file"]) for row in rows])
        else:
            out.say(f"No wallet is kept in {folder_of(session)}; `freehold wallet new NAME` makes one.")

    session.out.document({"wallets": rows}, draw)


@click.command("export-address")
@name_argument
@common
def export_address(session: Session, wanted: str) -> None:
    """Print a keystore's address; its password isn't needed."""
    keystore = find(session, wanted, Password())
    address = keystore.address()
    session.out.document({"name": keystore.name, "address": address}, lambda out: out.say(address))


def _keep(session: Session, wanted: str, make: Callable[[], bytes], password: Password) -> None:
    """Encrypt a key into a new file."""
    from freehold.chain.keystore import write

    path = Path(wanted).expanduser() if "/" in wanted else folder_of(session) / f"{wanted}.json"
    if path.exists():
        raise Refusal(f"{path} exists already; a wallet is never overwritten.")
    secret = make()
    chosen = password.read(f"Password for {path}", twice=True)
    if path.parent == folder_of(session):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with session.out.busy("Encrypting …"):
        address = write(path, secret, chosen)
    document = {"name": path.stem, "address": address, "file": str(path)}
    session.out.document(
        document,
        lambda out: out.say(
            f"{address} is kept in {path}. Keep a copy of the file, and the password: both are needed."
        ),
    )
