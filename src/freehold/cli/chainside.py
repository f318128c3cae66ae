"""Commands that send a wallet's own transactions: stake, mint, burn, unstake, withdraw, redirect, deposit, transfer."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from freehold.cli import keystores
from freehold.cli.output import Output, seconds_of, when
from freehold.cli.refusal import Refusal
from freehold.cli.session import OPERATOR_ACCOUNT, Session, common
from freehold.cli.wallets import Done, Wallets, amount_of


def signing(command: Callable[..., Any]) -> Callable[..., Any]:
    """`common`, and the wallet that signs."""
    return click.option(
        "--from", "name", metavar="NAME", help="Whose wallet: alice, bob, … The login in use when left out."
    )(with_keystore(command))


def with_keystore(command: Callable[..., Any]) -> Callable[..., Any]:
    """`common`, and a keystore file to sign with, which is kept in the session."""

    @functools.wraps(command)
    def run(
        session: Session,
        *args: Any,
        wallet_file: str | None,
        password_file: Path | None,
        password_fd: int | None,
        rpc_url: str | None,
        **options: Any,
    ) -> Any:
        if wallet_file is not None:
            if options.get("name") is not None:
                raise click.UsageError("--from names a wallet of the development chain, --wallet a file: give one.")
            session.keystore = keystores.find(session, wallet_file, keystores.Password(password_file, password_fd))
        session.rpc_url = rpc_url
        return command(session, *args, **options)

    wallet_file = click.option(
        "--wallet", "wallet_file", metavar="FILE", help="Sign with this keystore: a file, or a name of `wallet list`."
    )
    rpc_url = click.option(
        "--rpc-url", metavar="URL", help="The chain's node; on the development chain the server's own."
    )
    return wallet_file(keystores.with_password(rpc_url(common(run))))


def signer(session: Session, name: str | None) -> str:
    """The wallet's name that was given, or the login that is in use."""
    if session.keystore is not None:
        return session.keystore.name
    chosen = name or session.credentials.current(session.url)
    if not chosen or (name is None and chosen not in session.logins()):
        raise click.UsageError("Say whose wallet it is: --from NAME, such as --from alice, or --wallet FILE.")
    return chosen


def beneficiary_option(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--for WHO`."""
    return click.option(
        "--for",
        "beneficiary",
        metavar="WHO",
        help=f"{what}: a wallet's name, an account's id or name, or an address. The wallet's own when left out.",
    )


cancel_option = click.option("--cancel", type=click.IntRange(min=0), metavar="ID", help="Cancel this request.")


@click.group(invoke_without_command=True)
@signing
@click.pass_context
def wallet(ctx: click.Context, session: Session, name: str | None) -> None:
    """Show what a wallet has: tokens, stakes, locks, and what is on its way out. Or keep keys in files."""
    if ctx.invoked_subcommand is not None:
        return
    wallets = Wallets(session)
    who = signer(session, name)
    with session.out.busy("Reading the chain …"):
        read = wallets.holdings(who)
    session.out.document(read, lambda out: draw_holdings(out, read))


for _kept in (keystores.new, keystores.import_key, keystores.list_wallets, keystores.export_address):
    wallet.add_command(_kept)


def draw_holdings(out: Output, read: dict[str, Any]) -> None:
    now_s = seconds_of(read["chain_time"])
    out.facts(
        [
            ("wallet", f"{read['name']} {read['address']}"),
            ("HOLD", f"{read['hold']} free, {read['staked_hold']} staked, of that {read['locked_hold']} locked"),
            ("DIEM", f"{read['diem']} free, {read['outstanding_diem']} minted and not burned"),
            ("USDC", read["usdc"]),
        ]
    )
    if read["stakes"]:
        out.table(
            (">DIEM staked", "beneficiary", "operator"),
            [(row["amount"], row["beneficiary"], row["operator"]) for row in read["stakes"]],
        )
    if read["requests"]:
        out.table(
            ("on its way out", ">request", ">amount", "withdraw"),
            [
                (row["token"], str(row["id"]), row["amount"], when(row["ready_at"], now_s=now_s))
                for row in read["requests"]
            ],
        )


# --- stake and unstake ------------------------------------------------------------------------------------------------


@click.group()
def stake() -> None:
    """Stake HOLD (for sHOLD) or DIEM (for a daily allowance)."""


@stake.command("hold")
@click.argument("amount", metavar="HOLD")
@signing
def stake_hold(session: Session, amount: str, name: str | None) -> None:
    """Stake HOLD: the wallet gets as much sHOLD, which it can lock to mint DIEM."""
    units = amount_of(amount, "HOLD")
    wallets, who = Wallets(session), signer(session, name)
    report(session, lambda: wallets.stake_hold(who, units))


@stake.command("diem")
@click.argument("amount", metavar="DIEM")
@beneficiary_option("Whose account gets the allowance")
@signing
def stake_diem(session: Session, amount: str, beneficiary: str | None, name: str | None) -> None:
    """Stake DIEM with this server's operator: as many USD of inference a day, from now on."""
    units = amount_of(amount, "DIEM")
    wallets, who = Wallets(session), signer(session, name)
    goes_to = address_of(session, wallets, beneficiary or who)
    report(session, lambda: wallets.stake_diem(who, units, goes_to))


@click.group()
def unstake() -> None:
    """Ask for staked HOLD or DIEM back, or cancel that."""


@unstake.command("hold")
@click.argument("amount", metavar="[HOLD]", required=False)
@cancel_option
@signing
def unstake_hold(session: Session, amount: str | None, cancel: int | None, name: str | None) -> None:
    """Ask for unlocked sHOLD back: it can be withdrawn after 7 days, as HOLD."""
    units = amount_or_none(amount, "HOLD", cancel)
    wallets, who = Wallets(session), signer(session, name)
    if units is None:
        report(session, lambda: wallets.cancel(who, "HOLD", cancel or 0))
    else:
        report(session, lambda: wallets.unstake_hold(who, units))


@unstake.command("diem")
@click.argument("amount", metavar="[DIEM]", required=False)
@cancel_option
@beneficiary_option("Whose allowance it is")
@signing
def unstake_diem(
    session: Session, amount: str | None, cancel: int | None, beneficiary: str | None, name: str | None
) -> None:
    """Ask for staked DIEM back: today's allowance stays, tomorrow's is gone; withdraw after 24 hours."""
    units = amount_or_none(amount, "DIEM", cancel)
    wallets, who = Wallets(session), signer(session, name)
    if units is None:
        report(session, lambda: wallets.cancel(who, "DIEM", cancel or 0))
    else:
        whose = address_of(session, wallets, beneficiary or who)
        report(session, lambda: wallets.unstake_diem(who, units, whose))


@click.command()
@click.argument("what", type=click.Choice(["hold", "diem"]))
@click.argument("request_id", type=click.IntRange(min=0), metavar="ID")
@signing
def withdraw(session: Session, what: str, request_id: int, name: str | None) -> None:
    """Take out what a request to unstake has set free."""
    wallets, who = Wallets(session), signer(session, name)
    report(session, lambda: wallets.withdraw(who, what.upper(), request_id))


@click.command()
@click.argument("amount", metavar="DIEM")
@beneficiary_option("Whose allowance it is now")
@click.option("--to", "new_beneficiary", metavar="WHO", help="Whose it becomes; the same when left out.")
@click.option("--operator", metavar="ADDRESS", help="The operator now; this server's when left out.")
@click.option("--to-operator", "new_operator", metavar="ADDRESS", help="The operator that it goes to.")
@signing
def redirect(
    session: Session,
    amount: str,
    beneficiary: str | None,
    new_beneficiary: str | None,
    operator: str | None,
    new_operator: str | None,
    name: str | None,
) -> None:
    """Give staked DIEM's allowance to another account or operator, from the next 00:00 UTC on."""
    if new_beneficiary is None and new_operator is None:
        raise click.UsageError("Say where it goes: --to WHO, --to-operator ADDRESS, or both.")
    units = amount_of(amount, "DIEM")
    wallets, who = Wallets(session), signer(session, name)
    now = address_of(session, wallets, beneficiary or who)
    then = address_of(session, wallets, new_beneficiary) if new_beneficiary else now
    report(
        session,
        lambda: wallets.redirect(
            who, units, beneficiary=now, new_beneficiary=then, operator=operator, new_operator=new_operator
        ),
    )


# --- mint and burn ----------------------------------------------------------------------------------------------------


@click.command()
@click.argument("amount", metavar="DIEM")
@click.option("--max-lock", metavar="HOLD", help="Lock at most this much sHOLD; 1 % over the quote when left out.")
@signing
def mint(session: Session, amount: str, max_lock: str | None, name: str | None) -> None:
    """Mint DIEM by locking sHOLD at the curve's rate."""
    units = amount_of(amount, "DIEM")
    most = amount_of(max_lock, "HOLD") if max_lock is not None else None
    wallets, who = Wallets(session), signer(session, name)
    report(session, lambda: wallets.mint(who, units, most))


@click.command()
@click.argument("amount", metavar="DIEM")
@click.option("--min-unlock", metavar="HOLD", help="Refuse when less than this much sHOLD comes free.")
@signing
def burn(session: Session, amount: str, min_unlock: str | None, name: str | None) -> None:
    """Burn DIEM: the wallet's locked sHOLD comes free, pro rata of what it has minted."""
    units = amount_of(amount, "DIEM")
    least = amount_of(min_unlock, "HOLD") if min_unlock is not None else None
    wallets, who = Wallets(session), signer(session, name)
    report(session, lambda: wallets.burn(who, units, least))


# --- deposit and transfer ---------------------------------------------------------------------------------------------


@click.command()
@click.argument("amount", metavar="USDC")
@beneficiary_option("Whose account gets the credit")
@signing
def deposit(session: Session, amount: str, beneficiary: str | None, name: str | None) -> None:
    """Pay USDC for prepaid credit, one USD for each; it is credited after a few blocks."""
    units = amount_of(amount, "USDC")
    wallets, who = Wallets(session), signer(session, name)
    goes_to = address_of(session, wallets, beneficiary or who)
    report(session, lambda: wallets.deposit(who, units, goes_to))


@click.command()
@click.argument("amount")
@click.argument("token", type=click.Choice(["hold", "diem", "usdc"], case_sensitive=False))
@click.argument("to", metavar="WHO")
@signing
def transfer(session: Session, amount: str, token: str, to: str, name: str | None) -> None:
    """Send AMOUNT of HOLD, DIEM or USDC to a wallet's name or an address."""
    symbol = token.upper()
    units = amount_of(amount, symbol)
    wallets, who = Wallets(session), signer(session, name)
    goes_to = address_of(session, wallets, to, accounts=False)
    report(session, lambda: wallets.transfer(who, symbol, units, goes_to))


# --- parts ------------------------------------------------------------------------------------------------------------


def report(session: Session, verb: Callable[[], Done]) -> None:
    """Do a verb, wait until it is mined, and show what came of it."""
    unlock(session)
    with session.out.busy("Waiting for the transaction to be mined …"):
        done = verb()

    def draw(out: Output) -> None:
        out.say(done.sentence())
        out.dim(done.where())

    session.out.document(done.document(), draw)


def unlock(session: Session) -> None:
    """Ask for a keystore's password, before anything is shown."""
    if session.keystore is not None:
        session.keystore.secret()


def address_of(session: Session, wallets: Wallets, who: str, *, accounts: bool = True) -> str:
    """The address that `who` means: an address, a wallet's name, a login's or an account's name, or an account's id."""
    if who.startswith("0x"):
        return wallets.checked(who)
    if wallets.has(who):
        return wallets.address(who)
    if accounts and who in session.logins():
        return wallets.checked(session.logins()[who].address)
    if accounts and session.local is not None:
        account_id = session.local.account_id if who == OPERATOR_ACCOUNT else session.account_id(who)
        return wallets.checked(str(session.operator().get("/v1/account", account=account_id)["address"]))
    raise Refusal(f"{who!r} is no wallet of the development chain ({', '.join(wallets.names())}) and no address.")


def amount_or_none(text: str | None, token: str, cancel: int | None) -> int | None:
    """The amount; None with --cancel, which takes none."""
    if cancel is not None and text is not None:
        raise click.UsageError("--cancel takes the whole request; leave the amount out.")
    if cancel is None and text is None:
        raise click.UsageError("Say how much, or which request to --cancel.")
    return None if text is None else amount_of(text, token)
