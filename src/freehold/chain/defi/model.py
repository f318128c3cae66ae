"""Where the other protocols are on a dev chain, as values and as a TOML file."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from freehold.chain.problems import DeploymentBroken


@dataclass(frozen=True, slots=True)
class Pool:
    """A Uniswap v3 pool of `base` against USDC."""

    address: str
    base: str
    fee: int
    """Parts in a million of what a swap gives."""


@dataclass(frozen=True, slots=True)
class Market:
    """A Morpho Blue market: USDC lent against `collateral`. The first five are its parameters, in Morpho's order."""

    loan: str
    collateral: str
    oracle: str
    rate_model: str
    lltv: int
    """The most that may be borrowed against a collateral's value, 18 decimals."""
    id: str

    @property
    def parameters(self) -> tuple[str, str, str, str, int]:
        return (self.loan, self.collateral, self.oracle, self.rate_model, self.lltv)


@dataclass(frozen=True, slots=True)
class Defi:
    """What `deploy_defi` has put onto a dev chain. Pools and markets by symbol: DIEM, pDIEM-2027-01, DIEM-2026-12."""

    chain_id: int
    vault: str
    """Of the deployment that it was made for."""
    factory: str
    router: str
    positions: str
    quoter: str
    morpho: str
    permit2: str
    multicall: str
    pools: Mapping[str, Pool]
    markets: Mapping[str, Market]


def save(path: Path, defi: Defi) -> None:
    """Write the file, whole or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(dump(defi), "utf-8")
    fresh.replace(path)


def dump(defi: Defi) -> str:
    facts = asdict(defi)
    lines = ["# Other people's protocols on this dev chain."]
    lines += [_line(name, value) for name, value in facts.items() if not isinstance(value, dict)]
    for group in ("pools", "markets"):
        for symbol, values in facts[group].items():
            lines += ["", f'[{group}."{symbol}"]', *(_line(name, value) for name, value in values.items())]
    return "\n".join(lines) + "\n"


def load(path: Path) -> Defi:
    """Raises DeploymentBroken, naming the file."""
    try:
        read: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
        pools = {symbol: Pool(**values) for symbol, values in read.pop("pools").items()}
        markets = {symbol: Market(**values) for symbol, values in read.pop("markets").items()}
        return Defi(**read, pools=pools, markets=markets)
    except OSError as error:
        raise DeploymentBroken(reason=f"{path} can't be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise DeploymentBroken(
            reason=f"{path} is not what Freehold wrote there: delete it, and the protocols are deployed anew."
        ) from None


def _line(name: str, value: Any) -> str:
    # LLTVs have 18 decimals and fit into TOML's 64 bits.
    return f"{name} = {value}" if isinstance(value, int) else f'{name} = "{value}"'
