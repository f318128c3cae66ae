"""The command tree: sections of its help, and the one place where an error becomes a sentence."""

from typing import Any

import click

from freehold.cli import (
    account,
    calling,
    chainside,
    curve,
    dated,
    deploying,
    development,
    governing,
    holding,
    lending,
    markets,
    members,
    operating,
    paying,
    planning,
    pooling,
    serving,
    touring,
    trading,
    verifying,
    weights,
)
from freehold.cli.refusal import Refusal

SECTIONS: tuple[tuple[str, tuple[click.Command, ...]], ...] = (
    ("Start", (serving.up, serving.status, touring.tour)),
    ("Call models", (calling.chat, calling.embed, serving.models, operating.prices)),
    (
        "Your account",
        (
            account.balance,
            account.usage,
            account.bill,
            account.receipt,
            verifying.verify,
            account.keys,
            members.members,
        ),
    ),
    ("Plan", (planning.plan, planning.backtest)),
    ("Sign in", (account.login, account.logout, account.whoami, account.account)),
    (
        "Own capacity",
        (
            chainside.wallet,
            holding.position,
            chainside.stake,
            chainside.unstake,
            chainside.mint,
            chainside.burn,
            chainside.withdraw,
            chainside.redirect,
            holding.allocate,
            chainside.deposit,
            paying.top_up,
            chainside.transfer,
            dated.strips,
            dated.claim,
        ),
    ),
    ("Trade", (trading.trade, pooling.pool, curve.curve)),
    ("Credit", (lending.lend, lending.borrow, lending.repay, lending.health, lending.liquidate)),
    (
        "Operate",
        (
            operating.accounts,
            operating.grant,
            operating.books,
            governing.governance,
            deploying.deploy,
            serving.reload,
        ),
    ),
    ("Development chain", (development.dev,)),
)


class Root(click.Group):
    """The group `freehold`."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click ends quietly when whoever read our output has left
        except Exception as problem:  # noqa: BLE001  the last catch: nobody is shown a traceback
            raise sentence(problem) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS:
            with formatter.section(title):
                formatter.write_dl([(command.name or "", command.get_short_help_str(80)) for command in commands])

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [command.name or "" for _, commands in SECTIONS for command in commands]


def sentence(problem: Exception) -> click.ClickException:
    """What a command raised, as one sentence with its mend."""
    from freehold.money import AmountError
    from freehold.problems import Problem

    if isinstance(problem, AmountError):
        return click.UsageError(str(problem))
    if isinstance(problem, Problem):
        return Refusal(problem.message)
    if isinstance(problem, OSError):
        return Refusal(f"{problem.filename or 'The system'}: {(problem.strerror or str(problem)).lower()}.")
    text = " ".join(str(problem).split())
    if type(problem).__module__.startswith("freehold.") and text:
        return Refusal(text)
    return Refusal(
        f"This is a fault in freehold ({type(problem).__name__}: {text[:200]}); "
        "please report it with the command that you ran and the output of `freehold status`."
    )


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Amounts are plain decimals in whole USD, DIEM, HOLD or USDC. `freehold COMMAND --help` says more.",
)
@click.version_option(package_name="freehold", message="freehold %(version)s")
def cli() -> None:
    """Own compute, don't only rent it: stake DIEM for a daily allowance, pay the rest by the call."""


serving.models.add_command(weights.models_install)
development.dev.add_command(markets.dev_defi)
for _, commands_of_section in SECTIONS:
    for _command in commands_of_section:
        cli.add_command(_command)
