"""`freehold plan`: rent or hold, from files of usage or from the running server."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from freehold.cli.output import Output
from freehold.cli.refusal import Refusal
from freehold.cli.session import Session, acting, common

if TYPE_CHECKING:
    from freehold.planner.loaders.trace import PriceOf
    from freehold.planner.model import Commitment, OwnGpu, Usage

DAYS = {"d": 1, "w": 7, "m": 30, "y": 365}


class Days(click.ParamType[int]):
    """A length in days: `90`, `90d`, `12w`, `6m` or `1y`."""

    name = "days"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        read = re.fullmatch(r"(\d{1,5})([dwmy]?)", str(value).strip().lower())
        if read is None or int(read[1]) == 0:
            self.fail(f"{value!r} is not a length such as 90d, 12w, 6m or 1y.", param, ctx)
        return int(read[1]) * DAYS[read[2] or "d"]


def _share(text: str) -> float:
    """Raises ValueError."""
    text = text.strip()
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


class Share(click.ParamType[float]):
    """A share: `0.3` or `30%`."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return _share(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a number such as 0.3 or 30%.", param, ctx)


class Usd(Share):
    """An amount of USD, or of DIEM."""

    name = "amount"


class Currency(click.ParamType[tuple[str, float]]):
    """A currency and its rate: `EUR=0.92`, units for one USD."""

    name = "CODE=RATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        code, _, rate = str(value).partition("=")
        code = code.strip().upper()
        if not re.fullmatch(r"[A-Z]{3,5}", code):
            self.fail(f"{value!r} is not a currency's code such as EUR=0.92.", param, ctx)
        if code == "USD" and not rate:
            return code, 1.0
        try:
            return code, float(rate)
        except ValueError:
            self.fail(f"Say what one USD is in {code}, such as {code}=0.92.", param, ctx)


class Commit(click.ParamType["Commitment"]):
    """`DISCOUNT[:TERM]`: `30%:1y`."""

    name = "DISCOUNT[:TERM]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Commitment":
        from freehold.planner.model import Commitment

        discount, _, term = str(value).partition(":")
        return Commitment(
            discount=Share().convert(discount, param, ctx),
            term_days=Days().convert(term or "1y", param, ctx),
            name=f"commitment {discount}",
        )


class Gpu(click.ParamType["OwnGpu"]):
    """`USD_PER_HOUR:TOKENS_PER_SECOND:USD_PER_MILLION_TOKENS[:BUSY]`."""

    name = "HOUR:TOKENS:MILLION[:BUSY]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "OwnGpu":
        from freehold.planner.model import OwnGpu

        try:
            hour, tokens, million, *busy = map(_share, str(value).split(":"))
            (share,) = busy or [1.0]
        except ValueError:
            self.fail(
                f"{value!r} is not USD an hour, tokens a second, and what a million tokens cost by the call, such as "
                "2.5:1800:0.6 (and :70% for how busy it can be kept).",
                param,
                ctx,
            )
        return OwnGpu(hour, tokens, million, share)


SHARE, AMOUNT, LENGTH = Share(), Usd(), Days()

ASSUMED: tuple[tuple[str, str, click.ParamType[Any], str], ...] = (
    ("--horizon", "horizon_days", LENGTH, "How far the plan looks: 90d, 12w, 1y."),
    ("--discount-rate", "discount_rate", SHARE, "Of money, a year."),
    ("--hazard", "hazard", SHARE, "Rate a year at which the platform may stop honouring DIEM."),
    ("--volatility", "volatility", SHARE, "Of DIEM's price, a year."),
    ("--resale", "resale", SHARE, "Price expected at the end over today's, if the platform is alive."),
    ("--fee", "fee", SHARE, "Lost when buying, and again when selling."),
    ("--unbonding", "unbonding_days", LENGTH, "From asking to unstake to having DIEM to sell."),
    ("--rent-ratio", "rent_ratio", SHARE, "What the same work costs elsewhere, per dollar of list price."),
    ("--lease", "lease", SHARE, "What a dollar of idle credit fetches."),
    ("--lease-depth", "lease_depth", AMOUNT, "USD of idle credit that the lease market takes a day."),
    ("--budget", "budget", AMOUNT, "The most to spend on DIEM, USD."),
    ("--held", "held", AMOUNT, "DIEM held already."),
    ("--growth", "demand_growth", SHARE, "Of the workload, a year."),
    ("--list-price-change", "list_price_change", SHARE, "Of list prices, a year: -0.3 when they fall."),
    ("--stressed-exit", "stressed_exit", SHARE, "Share of the price that a sale in a thin market gets."),
    ("--risk-weight", "risk_weight", SHARE, "λ of mean + λ·CVaR95."),
    ("--trust", "trust", SHARE, "λ of the forecast-trusting rule; 1 doesn't trust."),
    ("--paths", "paths", click.IntRange(100, 1_000_000), "Scenario paths."),
    ("--seed", "seed", click.IntRange(0), "Of the scenarios."),
)
"""Option, the assumption's name, its kind, and what it means."""


def assumptions(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `ASSUMED`, and the DIEM price."""
    for option, name, kind, meaning in reversed(ASSUMED):
        command = click.option(option, name, type=kind, help=meaning)(command)
    return click.option("--price", "diem_price", type=AMOUNT, help="What one DIEM costs, USD.")(command)


def usage_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How usage is priced."""
    for option in reversed(
        (
            click.option("--usd-per-request", type=AMOUNT, help="What a request costs, where rows have no price."),
            click.option("--model", "default_model", default="", help="The model of rows that name none."),
            click.option(
                "--model-price",
                multiple=True,
                metavar="MODEL=IN,OUT",
                help="USD per million input and output tokens; before the published price.",
            ),
            click.option("--client", help="Only this client's series, of a set of clients'."),
            click.option("--skip-bad-rows", is_flag=True, help="Leave rows out that can't be read, and say so."),
        )
    ):
        command = option(command)
    return command


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="USAGE...")
@click.option("--live", is_flag=True, help="From the running server: the account's own usage so far.")
@click.option("--from-chain", is_flag=True, help="Take DIEM's price from the chain's DIEM/USDC pool.")
@assumptions
@usage_options
@click.option("--currency", type=Currency(), default="USD", help="Show amounts in it, such as EUR=0.92.")
@click.option("--commitment", "commitments", multiple=True, type=Commit(), help="Compare a committed-use discount.")
@click.option("--gpu", "gpus", multiple=True, type=Gpu(), help="Compare an own GPU, such as 2.5:1800:0.6:70%.")
@click.option(
    "--list-prices",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A history of list prices (CSV: observed_date, provider, model, …); the scenarios redraw its changes.",
)
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the plan as a page.")
@click.option("--csv", "sheet", type=click.Path(path_type=Path, dir_okay=False), help="Write the cash flows as CSV.")
@acting
def plan(
    session: Session,
    files: tuple[Path, ...],
    live: bool,
    from_chain: bool,
    diem_price: float | None,
    usd_per_request: float | None,
    default_model: str,
    model_price: tuple[str, ...],
    client: str | None,
    skip_bad_rows: bool,
    currency: tuple[str, float],
    commitments: tuple["Commitment", ...],
    gpus: tuple["OwnGpu", ...],
    list_prices: Path | None,
    html: Path | None,
    sheet: Path | None,
    **given: Any,
) -> None:
    """Rent, hold, or both? Decide from usage, with the number that would flip the decision.

    USAGE are files or folders, told by their content: `freehold usage --csv`, `freehold bill --csv`, OpenAI's usage and
    costs, LiteLLM's spend logs, traces of Azure, ServeGen, Mooncake and BurstGPT, or any table with a time and a cost,
    tokens or requests; gzip and tar are opened.
    """
    if live == bool(files):
        raise click.UsageError("Give files of usage, or --live for the running server's.")
    if from_chain and diem_price is not None:
        raise click.UsageError("--price and --from-chain exclude each other.")
    price, sources = pool_price(session) if from_chain else (diem_price, {})
    if price is None:
        raise click.UsageError(
            "Say what one DIEM costs: --price 183, or --from-chain where a DIEM/USDC pool is deployed."
        )
    if live:
        usage = live_usage(session)
    else:
        book = price_of(model_price)
        usage = read_usage(
            session.out, files, book, usd_per_request, default_model, client, skip_bad_rows=skip_bad_rows
        )
    from freehold.planner.model import Assumptions
    from freehold.planner.planner import plan as decide

    stated = {name: value for name, value in given.items() if value is not None}
    code, rate = currency
    whole = Assumptions(diem_price=price, currency=code, currency_per_usd=rate, **stated)
    redrawn = None
    if list_prices is not None:
        from freehold.planner.list_prices import history, read_history

        redrawn = history(read_history(list_prices)).paths(whole.horizon_days, whole.paths, whole.seed)
    with session.out.busy("Drawing scenarios …"):
        made = decide(
            usage,
            whole,
            stated={"diem_price", *stated},
            commitments=commitments,
            gpus=gpus,
            list_prices=redrawn,
            sources=sources,
        )
    if html is not None:
        from datetime import UTC, datetime

        from freehold.planner.report.page import page

        html.write_text(page(made, made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")), "utf-8")
        session.out.remark(f"Wrote {html}.")
    if sheet is not None:
        from freehold.planner.report.flows import sheet as flows

        sheet.write_text(flows(made), "utf-8")
        session.out.remark(f"Wrote {sheet}.")
    from freehold.cli.plandraw import draw_plan
    from freehold.planner.report.document import document, with_version

    read = with_version(made)
    turned = None
    if live:
        from freehold.planner.live import crossing

        turned = crossing(usage, whole)
        read["crossing"] = None if turned is None else {**document(turned), "sentence": turned.sentence}

    def draw(out: Output) -> None:
        if turned is not None:
            out.strong(turned.sentence)
        draw_plan(out, made)

    session.out.document(read, draw)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="TRACE...")
@click.option("--carry", type=AMOUNT, help="What a DIEM-day costs, USD per dollar of list price; else from the price.")
@click.option("--learn", "learn_days", type=click.IntRange(0, 10_000), help="Days that only teach; 7 when left out.")
@assumptions
@usage_options
@common
def backtest(
    session: Session,
    files: tuple[Path, ...],
    carry: float | None,
    learn_days: int | None,
    diem_price: float | None,
    usd_per_request: float | None,
    default_model: str,
    model_price: tuple[str, ...],
    client: str | None,
    skip_bad_rows: bool,
    **given: Any,
) -> None:
    """Replay real usage day by day: what renting, holding, the online rules and a clairvoyant would have cost.

    TRACE are files as `freehold plan` takes them; of a set of clients' series each is replayed by itself, on all cores.
    """
    if (carry is None) == (diem_price is None):
        raise click.UsageError("Say what a DIEM-day costs: --carry 0.5, or --price 183 with what the plan assumes.")
    from freehold.planner import sizing
    from freehold.planner.backtest import LEARNT_DAYS, Rules, Series
    from freehold.planner.backtest import backtest as replay
    from freehold.planner.loaders.load import load
    from freehold.planner.model import Assumptions
    from freehold.planner.report.document import with_version

    stated = {name: value for name, value in given.items() if value is not None}
    whole = Assumptions(diem_price=diem_price or 1.0, **stated)
    rules = Rules(
        carry=sizing.carry(whole) if carry is None else carry,
        learn_days=LEARNT_DAYS if learn_days is None else learn_days,
        overflow_price=whole.overflow_price,
        lease=whole.lease,
        trust=whole.trust,
    )
    with reading(session.out) as progress:
        trace = load(files, progress=progress, leave_out_bad_rows=skip_bad_rows)
    book = price_of(model_price)

    def one(name: str | None) -> "Usage":
        return trace.usage(book, usd_per_request=usd_per_request, model=default_model, client=name)

    names = [client] if client is not None else list(trace.clients)
    usages = {name: one(name or None) for name in names}
    series = [Series(name or "all", usage.demand) for name, usage in usages.items()]
    with session.out.busy(f"Replaying {len(series)} series …"):
        made = replay(series, rules)
    units = {str(usage.unit) for usage in usages.values()}
    notes = list(dict.fromkeys(note for usage in usages.values() for note in usage.provenance.notes))
    read = {**with_version(made), "unit": " / ".join(sorted(units)), "notes": notes}
    from freehold.cli.plandraw import draw_backtest

    session.out.document(read, lambda out: draw_backtest(out, made, notes))


def read_usage(
    out: Output,
    files: Sequence[Path],
    prices: "PriceOf",
    usd_per_request: float | None,
    default_model: str,
    client: str | None,
    *,
    skip_bad_rows: bool = False,
) -> "Usage":
    """The usage in `files`, priced. Shows how far it has read."""
    from freehold.planner.loaders.load import load

    with reading(out) as progress:
        trace = load(files, progress=progress, leave_out_bad_rows=skip_bad_rows)
    return trace.usage(prices, usd_per_request=usd_per_request, model=default_model, client=client)


@contextmanager
def reading(out: Output) -> Iterator[Callable[[int, int], None] | None]:
    """A bar of what was read, on stderr; nothing when stderr is no terminal."""
    import sys

    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Reading …", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def price_of(stated: Sequence[str]) -> "PriceOf":
    """Prices by model: those stated, then what is published for the model's name."""
    from freehold.pricing.model import INPUT, OUTPUT, Price
    from freehold.pricing.seed import Offered, nano_per_million_up, published

    own: dict[str, Price] = {}
    for each in stated:
        name, _, rates = each.rpartition("=")
        try:
            into, out = (_amount(rate) for rate in rates.split(","))
        except ValueError:
            raise click.UsageError(
                f"--model-price {each!r}: write MODEL=IN,OUT in USD per million tokens, such as my-model=0.5,1.5."
            ) from None
        own[name] = Price(name, {INPUT: nano_per_million_up(into), OUTPUT: nano_per_million_up(out)}, "stated prices")
    known: dict[str, Price | None] = {}

    def find(model: str) -> Price | None:
        if model in own:
            return own[model]
        if model and model not in known:
            known[model] = published(Offered(model, model, 0))
        return known.get(model)

    return find


def _amount(text: str) -> Any:
    from decimal import Decimal, InvalidOperation

    try:
        amount = Decimal(text.strip())
    except InvalidOperation:
        raise ValueError(text) from None
    if not amount.is_finite() or amount < 0:
        raise ValueError(text)
    return amount


def live_usage(session: Session) -> "Usage":
    """The account's charges by day, from the running server; the day that still runs is left out."""
    from freehold.cli.session import items
    from freehold.clock import Day
    from freehold.planner.live import usage_of_days

    client, query = session.account()
    rows = items(client.get("/v1/account/usage", **query, group_by="day"))
    today = Day.parse(str(client.get("/v1/account/balance", **query)["day"])[:10])
    spent = [(Day.parse(str(row["group"])[:10]), int(row["cost_nano"])) for row in rows]
    if not any(day < today for day, _ in spent):
        raise Refusal(
            "This account has no day of usage that has ended, so there is nothing to plan from yet; "
            "call models, and ask again tomorrow."
        )
    return usage_of_days(spent, until=today, calls=sum(int(row["calls"]) for row in rows))


def pool_price(session: Session) -> tuple[float, dict[str, str]]:
    """What one DIEM costs in the chain's DIEM/USDC pool, USD, and where that was read. Refused where there is none."""
    from freehold.chain.defi.pools import diem_price
    from freehold.chain.problems import NoMarkets
    from freehold.cli.markets import defi_of
    from freehold.cli.wallets import Wallets

    wallets = Wallets(session)
    try:
        defi = defi_of(session, wallets)
    except NoMarkets:
        raise Refusal(
            "This chain has no DIEM/USDC pool to read a price from: `freehold dev defi` makes one on the development "
            "chain; else give a price with --price."
        ) from None
    found = wallets.look(lambda rpc: diem_price(rpc, wallets.deployment, defi))
    return float(found.usd), {"diem_price": found.source}
