"""`freehold deploy`: the contracts onto a chain, from a keystore; and whether what stands there is what it should be."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from freehold.cli import keystores
from freehold.cli.output import Output, when
from freehold.cli.planning import LENGTH
from freehold.cli.refusal import Refusal
from freehold.cli.session import Session, common

if TYPE_CHECKING:
    from freehold.chain.audit import Finding
    from freehold.chain.deploy import Parameters, Whole
    from freehold.chain.journal import Begun, Journal
    from freehold.chain.keywallet import Fees
    from freehold.chain.rollout import Outcome
    from freehold.chain.rpc import Rpc

JOURNAL = ".journal"
"""Ends the journal's name, which is else that of the deployment file."""
CONFIRMATIONS = 12
_ADDRESSES = ("operator", "receipt_signer", "publisher", "payee", "treasury", "usdc", "holder")
_NAMES = ("hold_name", "hold_symbol", "diem_name", "diem_symbol")
_OPTIONS = {"url": "endpoint", "governors": "governor", "delay_s": "delay"}
"""Of parameters that are called otherwise."""
_AMOUNTS = {"genesis": "HOLD", "emission": "HOLD", "emission_ceiling": "HOLD", "committed": "USD"}


@click.command()
@click.option("--rpc", "rpc_url", envvar="FREEHOLD_RPC_URL", metavar="URL", required=True,
              help="A node of the chain. [env: FREEHOLD_RPC_URL]")  # fmt: skip
@click.option(
    "--keystore", "wanted", metavar="NAME|FILE", help="The wallet that deploys: a keystore, as `wallet new` makes."
)
@keystores.with_password
@click.option("--out", "--deployment", "file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="The deployment file; deployment.toml in --data, or here, when left out.")  # fmt: skip
@click.option("--operator", metavar="ADDRESS", help="Whose stakes the gateway honours.")
@click.option("--endpoint", metavar="URL", help="The operator's URL, as its registration says.")
@click.option("--receipt-signer", metavar="ADDRESS",
              help="Whose key signs receipts; with --data that of its receipts.key, which is made when it isn't there.")  # fmt: skip
@click.option("--publisher", metavar="ADDRESS", help="Who publishes the days of the receipts' book; the operator.")
@click.option("--payee", metavar="ADDRESS", help="Where prepaid deposits go, for good; the operator.")
@click.option("--treasury", metavar="ADDRESS", help="Where the fifth goes that locked stakes don't earn; the operator.")
@click.option("--usdc", metavar="ADDRESS", help="The chain's USDC; on a development chain one is made when left out.")
@click.option("--governor", "governors", multiple=True, metavar="ADDRESS",
              help="Who may propose changes to the timelock, and cancel them. Repeatable; never the deployer.")  # fmt: skip
@click.option("--holder", metavar="ADDRESS", help="Who gets the genesis supply of HOLD; the treasury.")
@click.option("--delay", type=LENGTH, metavar="DAYS", help="How long a change waits at the timelock, such as 7d; 2d.")
@click.option(
    "--confirmations", type=click.IntRange(0, 10_000), help=f"Blocks that must stand on a block; {CONFIRMATIONS}."
)
@click.option("--hold-name", metavar="TEXT", help="Name of the platform's token; Freehold.")
@click.option("--hold-symbol", metavar="TEXT", help="Its symbol; HOLD.")
@click.option("--diem-name", metavar="TEXT", help="Name of the compute token; Diem.")
@click.option("--diem-symbol", metavar="TEXT", help="Its symbol, which strips have in theirs; DIEM.")
@click.option("--genesis", metavar="HOLD", help="HOLD that there is at the beginning; 100,000,000.")
@click.option("--emission", metavar="HOLD", help="HOLD that stakes earn in a second; 0.4.")
@click.option("--emission-ceiling", metavar="HOLD", help="The most that can ever be earned in a second; 1.")
@click.option(
    "--committed", metavar="USD", help="What the operator promises to serve a day, and so the most DIEM; 40,000."
)
@click.option("--beside", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Only what another operator has of its own, beside the contracts of this deployment file.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--dry-run", is_flag=True, help="Show the plan, and send nothing.")
@click.option(
    "--check", "only_check", is_flag=True, help="Deploy nothing: check what stands, against the shipped code."
)
@common
def deploy(
    session: Session,
    rpc_url: str,
    wanted: str | None,
    password_file: Path | None,
    password_fd: int | None,
    file: Path | None,
    yes: bool,
    dry_run: bool,
    only_check: bool,
    **options: Any,
) -> None:
    """Put the contracts onto a chain, from a wallet of your own, and check them.

    Shows the plan, the parameters and what it may cost, and asks. Each step is kept in a journal beside the deployment
    file: after any failure the same command goes on, and deploys nothing twice. Off the development chain the first
    settings wait at the timelock for its delay; run the command again then, with no more than --rpc, --keystore and
    the file. `freehold up` reads the file.
    """
    chosen = file or (session.data / "deployment.toml" if session.data else Path("deployment.toml"))
    if only_check:
        _report(session, asyncio.run(_checked(rpc_url, chosen)))
        return
    if wanted is None:
        raise click.UsageError("Say with --keystore which wallet deploys; `freehold wallet new NAME` makes one.")
    keystore = keystores.find(session, wanted, keystores.Password(password_file, password_fd))
    if session.data is not None:
        session.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    _Deployment(session, rpc_url, keystore, chosen, options).run(yes=yes, dry_run=dry_run)


class _Deployment:
    """One run of the command."""

    def __init__(
        self, session: Session, rpc_url: str, keystore: keystores.Keystore, file: Path, options: dict[str, Any]
    ) -> None:
        self._session = session
        self._rpc_url = rpc_url
        self._keystore = keystore
        self._file = file
        self._options = {name: value for name, value in options.items() if value not in (None, ())}

    def run(self, *, yes: bool, dry_run: bool) -> None:
        from freehold.chain.journal import Journal

        path = self._file.with_name(self._file.name + JOURNAL)
        if self._file.exists() and not path.exists():
            raise Refusal(
                f"{self._file} tells of contracts that stand already: `freehold deploy --check --out {self._file}` checks "
                "them; another --out deploys others."
            )
        with Journal.open(path) as journal:
            try:
                plan = asyncio.run(self._show(journal))
                if dry_run:
                    self._session.out.document({"plan": plan}, lambda out: None)
                    return
                if plan["steps"] and not yes:
                    _ask()
                secret = self._keystore.secret()
                outcome, findings = asyncio.run(self._carry_out(journal, secret))
            finally:
                if journal.begun is None:
                    path.unlink(missing_ok=True)
        self._tell(journal.begun, plan, outcome, findings)

    async def _show(self, journal: "Journal") -> dict[str, Any]:
        """The plan of what is still to do, as a document; drawn for people. Raises Refusal."""
        from freehold.chain.deploy import Plan, planned
        from freehold.chain.keywallet import fees_of
        from freehold.chain.rollout import require_same
        from freehold.chain.rpc import Rpc

        begun = journal.begun
        deployer = self._keystore.address()
        async with Rpc(self._rpc_url) as rpc:
            chain_id, nonce, balance = await rpc.batch(
                [
                    ("eth_chainId", []),
                    ("eth_getTransactionCount", [deployer, "pending"]),
                    ("eth_getBalance", [deployer, "latest"]),
                ]
            )
            if begun is not None:
                await require_same(rpc, begun)
                self._require_same(begun, deployer)
                parameters = begun.parameters
            else:
                parameters = await self._parameters(rpc, int(chain_id, 16), deployer)
            plan = Plan(deployer, int(nonce, 16), journal.nonces())
            whole = planned(parameters, plan, _package(int(chain_id, 16)))
            fees = await fees_of(rpc)
        return self._draw(rpc, int(chain_id, 16), parameters, whole, fees, int(balance, 16), journal)

    def _draw(
        self,
        rpc: "Rpc",
        chain_id: int,
        parameters: "Parameters",
        whole: "Whole",
        fees: "Fees",
        balance: int,
        journal: "Journal",
    ) -> dict[str, Any]:
        from freehold.chain.deploy import gas_of

        done = journal.open_step()
        steps: list[dict[str, Any]] = [
            {"step": at, "what": step.what, "address": step.creates or step.to, "gas": gas_of(step)}
            for at, step in enumerate(whole.steps, 1)
        ]
        gas = sum(step["gas"] for step in steps[done:])
        now, most = gas * (fees.most + fees.tip) // 2, gas * fees.most
        deployer = self._keystore.address()
        plan: dict[str, Any] = {
            "chain_id": chain_id,
            "deployer": deployer,
            "parameters": shown_parameters(parameters),
            "steps": steps[done:],
            "gas": gas,
            "cost_wei": now,
            "most_wei": most,
            "balance_wei": balance,
        }
        out = self._session.out
        if not out.as_json:
            out.say(f"On chain {chain_id} ({rpc.node}), from {deployer}:")
            out.facts([(name.replace("_", " "), text) for name, text in plan["parameters"].items()])
            out.table(
                (">", "what", "contract", ">gas, about"),
                [(str(step["step"]), step["what"], step["address"], f"{step['gas']:,}") for step in steps[done:]],
            )
            out.say(
                f"About {gas:,} gas: {_coin(now)} now, {_coin(most)} if the base fee doubles; the wallet has {_coin(balance)} "
                "of the chain's coin."
            )
            if done:
                out.say(f"{done} of {len(steps)} steps are done.")
        if balance < most:
            raise Refusal(
                f"{deployer} has {_coin(balance)} of the chain's coin, and the deployment may cost {_coin(most)}: send it more."
            )
        return plan

    async def _parameters(self, rpc: "Rpc", chain_id: int, deployer: str) -> "Parameters":
        """From the options. Raises Refusal."""
        from freehold.chain import deployments
        from freehold.chain.audit import usdc_fault
        from freehold.chain.deploy import LEAST_DELAY_S, NAMES, Parameters
        from freehold.chain.model import DEV_CHAIN_ID

        given, dev = self._given(), chain_id == DEV_CHAIN_ID
        beside = deployments.load(self._options["beside"]) if "beside" in self._options else None
        if beside is not None and beside.chain_id != chain_id:
            raise Refusal(f"{self._options['beside']} is of chain {beside.chain_id}, and the node on {chain_id}.")
        needed = ["operator", "url"] + ([] if dev or beside else ["usdc", "governors"])
        for name in needed:
            if name not in given:
                raise click.UsageError(f"Say with --{_OPTIONS.get(name, name)} {_WHAT[name]}.")
        operator = given["operator"]
        given.setdefault("treasury", operator)
        governors = given.get("governors", ())
        delay = given.get("delay_s", 0 if dev else LEAST_DELAY_S)
        if not dev and delay < LEAST_DELAY_S:
            raise click.UsageError("Off the development chain the timelock takes no --delay below 2 days.")
        if deployer in governors:
            raise click.UsageError(
                "The wallet that deploys keeps no right: name other wallets than it with --governor, such as a multisig."
            )
        if beside is None and "usdc" in given:
            fault = await usdc_fault(rpc, given["usdc"])
            if fault is not None:
                raise Refusal(f"{given['usdc']} can't be this chain's USDC: {fault}.")
        names = tuple(given.pop(f"name_{at}", NAMES[at]) for at in range(4))
        if not all(names):
            raise click.UsageError("A token's name or symbol can't be empty.")
        whole = {
            "receipt_signer": given.get("receipt_signer") or self._receipt_signer(),
            "publisher": operator,
            "payee": operator,
            "usdc": None,
            "holder": given["treasury"],
            "governors": governors,
            "delay_s": delay,
            "confirmations": CONFIRMATIONS,
        }
        return Parameters(**{**whole, **given}, names=names, beside=beside)

    def _given(self) -> dict[str, Any]:
        """What the options say, as parameters have it. Raises AmountError, InvalidRequest."""
        from freehold.chain.verbs import address_of
        from freehold.money import parse_units

        given: dict[str, Any] = {}
        for name, value in self._options.items():
            if name in _ADDRESSES:
                given[name] = address_of(value)
            elif name == "governors":
                given[name] = tuple(address_of(one) for one in value)
            elif name in _AMOUNTS:
                given[name] = parse_units(value, decimals=18, what=f"{_AMOUNTS[name]} amount")
            elif name == "endpoint":
                given["url"] = value.rstrip("/")
            elif name == "delay":
                given["delay_s"] = value * 86_400
            elif name in _NAMES:
                given[f"name_{_NAMES.index(name)}"] = value.strip()
            elif name != "beside":
                given[name] = value
        return given

    def _require_same(self, begun: "Begun", deployer: str) -> None:
        """Raises Refusal for options that differ from what was begun."""
        if begun.deployer != deployer:
            raise Refusal(
                f"This deployment was begun by {begun.deployer}, and {self._keystore.path} is {deployer}: "
                "go on with the same wallet, or name another --out."
            )
        for name, value in self._given().items():
            number = name.removeprefix("name_")
            before = begun.parameters.names[int(number)] if number != name else getattr(begun.parameters, name)
            if before != value:
                option = _NAMES[int(number)] if number != name else _OPTIONS.get(name, name)
                raise Refusal(
                    f"This deployment was begun with another --{option.replace('_', '-')} ({_plain(before)}): leave that "
                    "option out, or name another --out."
                )

    def _receipt_signer(self) -> str:
        """The address of the key in the data folder, made when there is none. Raises Refusal."""
        if self._session.data is None:
            raise click.UsageError(
                "Say with --receipt-signer whose key signs the receipts; or with --data in which folder the server will "
                "keep it, and it is made there."
            )
        from freehold.app.first import RECEIPT_KEY, ensure_key
        from freehold.receipts.signing import ReceiptKey

        return ReceiptKey(bytes.fromhex(ensure_key(self._session.data / RECEIPT_KEY))).address

    async def _carry_out(self, journal: "Journal", secret: bytes) -> "tuple[Outcome, list[Finding]]":
        from freehold.chain import deployments
        from freehold.chain.audit import audit
        from freehold.chain.keywallet import KeyWallet
        from freehold.chain.rollout import Rollout, begin
        from freehold.chain.rpc import Rpc

        async with Rpc(self._rpc_url) as rpc:
            wallet = KeyWallet(rpc, secret, name=self._keystore.name)
            chain_id = int(await rpc.call("eth_chainId"), 16)
            begun = journal.begun
            if begun is None:
                parameters = await self._parameters(rpc, chain_id, wallet.address)
                begun = await begin(rpc, journal, parameters, wallet.address)
            outcome = await Rollout(wallet, journal, package=_package(chain_id), tell=self._session.out.remark).run()
            deployments.save(self._file, outcome.deployment)
            waiting = outcome.effective_at_s is not None
            return outcome, await audit(rpc, outcome.deployment, begun, fresh=outcome.sent > 0, waiting=waiting)

    def _tell(self, begun: "Begun | None", plan: dict[str, Any], outcome: "Outcome", findings: "list[Finding]") -> None:
        from freehold.clock import rfc3339

        assert begun is not None  # noqa: S101 - begun by now
        at_s = outcome.effective_at_s
        document = {
            "plan": plan,
            "file": str(self._file),
            "contracts": dict(outcome.deployment.contracts),
            "change": None if outcome.settings is None else "0x" + outcome.settings.hex(),
            "effective_at": None if at_s is None else rfc3339(at_s),
        }

        def ending(out: Output) -> None:
            out.say(f"{self._file} tells where the contracts are.")
            for line in _next_steps(begun.parameters, outcome):
                out.say(line)

        _report(self._session, findings, document, ending)


_WHAT = {
    "operator": "whose stakes the gateway honours",
    "url": "at which URL the operator serves",
    "usdc": "where this chain's USDC is",
    "governors": "who may propose changes to the timelock",
}


def shown_parameters(parameters: "Parameters") -> dict[str, str]:
    """In words, with whole tokens."""
    from freehold.money import format_units

    hold, hold_symbol, diem, diem_symbol = parameters.names
    own = {
        "operator": f"{parameters.operator} at {parameters.url}",
        "receipt_signer": parameters.receipt_signer,
        "publisher": parameters.publisher,
        "deposits_go_to": parameters.payee,
        "confirmations": str(parameters.confirmations),
    }
    if parameters.beside is not None:
        return {**own, "usdc": parameters.beside.contracts["usdc"], "timelock": parameters.beside.contracts["timelock"]}

    def whole(units: int) -> str:
        before, dot, after = format_units(units, decimals=18).partition(".")
        return f"{int(before):,}{dot}{after}"

    return {
        **own,
        "HOLD": f"{hold} ({hold_symbol}), {whole(parameters.genesis)} of it to {parameters.holder}",
        "DIEM": f"{diem} ({diem_symbol})",
        "usdc": parameters.usdc or "made here",
        "treasury": parameters.treasury,
        "governors": ", ".join(parameters.governors) or "the deployer",
        "timelock": f"{parameters.delay_s // 86_400} days ({parameters.delay_s} s)",
        "emission": f"{whole(parameters.emission)} {hold_symbol} a second, at most {whole(parameters.emission_ceiling)} ever",
        "committed": f"{whole(parameters.committed)} USD a day",
        "curve": "90·exp(2·(S/38000)³) sHOLD per DIEM, to 50,000 DIEM",
    }


def _next_steps(parameters: "Parameters", outcome: "Outcome") -> list[str]:
    from freehold.money import format_units

    if parameters.beside is not None:
        usd = format_units(parameters.committed, decimals=18)
        return [
            "Nothing can be staked to this operator before the governors have let it: they propose, and execute after the delay,",
            f"  freehold governance propose committed {parameters.operator} {usd}",
            f"  freehold governance propose operator {parameters.operator} {parameters.url} {parameters.receipt_signer}",
        ]
    if outcome.effective_at_s is not None:
        assert outcome.settings is not None  # noqa: S101 - they are what waits
        return [
            "The curve, the promise, the emission and the operator wait at the timelock; until then nothing can be minted.",
            f"From {when(outcome.effective_at_s)} on, run this command again; or anybody carries them out by",
            f"  freehold governance execute 0x{outcome.settings.hex()[:10]}",
        ]
    return ["All is in force. `freehold up` with FREEHOLD_DEPLOYMENT and FREEHOLD_RPC_URL serves it."]


async def _checked(rpc_url: str, file: Path) -> "list[Finding]":
    from freehold.chain import deployments
    from freehold.chain.audit import audit
    from freehold.chain.journal import Journal
    from freehold.chain.rpc import Rpc

    deployment = deployments.load(file)
    path = file.with_name(file.name + JOURNAL)
    begun = None
    if path.exists():
        with Journal.open(path) as journal:
            begun = journal.begun
    async with Rpc(rpc_url) as rpc:
        chain_id = int(await rpc.call("eth_chainId"), 16)
        if chain_id != deployment.chain_id:
            raise Refusal(
                f"The node at {rpc.node} is on chain {chain_id}, and {file} is of chain {deployment.chain_id}."
            )
        return await audit(rpc, deployment, begun)


def _report(
    session: Session, findings: "list[Finding]", document: dict[str, Any] | None = None, ending: Any = None
) -> None:
    """What was found; exit code 1 when anything isn't as it should be."""
    wrong = [one for one in findings if not one.right]
    checks = [
        {"what": one.what, "found": one.found, "right": one.right, "expected": None if one.right else one.expected}
        for one in findings
    ]

    def draw(out: Output) -> None:
        out.table(
            ("checked", "found", ""),
            [(one.what, one.found, "" if one.right else f"WRONG, not {one.expected}") for one in findings],
        )
        if wrong:
            out.say(f"{len(wrong)} of {len(findings)} checks failed.")
        else:
            out.say(
                f"All {len(findings)} checks passed: the code is the shipped one, and the rights are as they should be."
            )
        if ending is not None:
            ending(out)

    session.out.document({**(document or {}), "right": not wrong, "checks": checks}, draw)
    if wrong:
        raise SystemExit(1)


def _ask() -> None:
    """Raises Refusal, Abort."""
    if not sys.stdin.isatty():
        raise Refusal("Nobody can be asked whether to deploy; read the plan above, and say --yes.")
    click.confirm("Deploy?", abort=True, err=True)


def _package(chain_id: int) -> Path | None:
    """Where a development chain's USDC comes from."""
    from freehold.app.first import node_modules
    from freehold.chain.model import DEV_CHAIN_ID

    return node_modules() / "@offchainlabs" / "stablecoin-evm" if chain_id == DEV_CHAIN_ID else None


def _plain(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _coin(wei: int) -> str:
    """In 10^18 wei, six places."""
    return f"{wei // 10**12 / 10**6:f}"
