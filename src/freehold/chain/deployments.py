"""The deployment file: where a set of contracts lives, as TOML."""

import os
import tomllib
from pathlib import Path
from typing import Any

from eth_utils.address import is_address, to_checksum_address

from freehold.chain.model import DEV_CHAIN_ID, Deployment
from freehold.chain.problems import DeploymentBroken

CONTRACTS = ("hold", "staking", "diem", "vault", "prepaid", "usdc", "timelock", "strips", "book")
SINCE_THE_FIRST = ("strips", "book")
"""Contracts that a deployment file of an older Freehold doesn't name."""
ABSENT = "0x" + "00" * 20
_NUMBERS = ("chain_id", "from_block", "confirmations")


def load(path: Path) -> Deployment:
    """Read a deployment file. Raises DeploymentBroken, naming the file and what is wrong with it.

    In one of a dev chain, contracts that an older Freehold didn't have yet are ABSENT: `deploy_dev` then deploys anew.
    """
    try:
        read = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DeploymentBroken(reason=f"The deployment file {path} can't be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DeploymentBroken(reason=f"The deployment file {path} is not TOML: {error}.") from None
    for name in _NUMBERS:
        if not isinstance(read.get(name), int) or isinstance(read.get(name), bool) or read[name] < 0:
            raise DeploymentBroken(reason=f"The deployment file {path} needs a number, 0 or more, as {name}.")
    contracts = read.get("contracts")
    if isinstance(contracts, dict):
        _complete(path, read["chain_id"], contracts)
    if not isinstance(contracts, dict) or set(contracts) != set(CONTRACTS):
        raise DeploymentBroken(
            reason=f"The deployment file {path} needs a table [contracts] with exactly {', '.join(CONTRACTS)}."
        )
    return Deployment(
        chain_id=read["chain_id"],
        contracts={name: _address(path, name, contracts[name]) for name in CONTRACTS},
        operator=_address(path, "operator", read.get("operator")),
        from_block=read["from_block"],
        confirmations=read["confirmations"],
    )


def _complete(path: Path, chain_id: int, contracts: dict[str, Any]) -> None:
    absent = [name for name in SINCE_THE_FIRST if name not in contracts]
    if absent and set(contracts) == set(CONTRACTS) - set(absent):
        if chain_id != DEV_CHAIN_ID:
            raise DeploymentBroken(
                reason=f"The deployment file {path} is of an older Freehold, whose contracts had no {', '.join(absent)}: "
                "deploy this version's contracts, which can't be added to the old ones."
            )
        contracts.update(dict.fromkeys(absent, ABSENT))


def save(path: Path, deployment: Deployment) -> None:
    """Write a deployment file, whole or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(dump(deployment), "utf-8")
    fresh.replace(path)


def dump(deployment: Deployment) -> str:
    lines = [
        "# Where Freehold's contracts live, and whose stakes count here.",
        f"chain_id = {deployment.chain_id}",
        f'operator = "{deployment.operator}"',
        f"from_block = {deployment.from_block}",
        f"confirmations = {deployment.confirmations}",
        "",
        "[contracts]",
        *(f'{name} = "{deployment.contracts[name]}"' for name in CONTRACTS),
    ]
    return "\n".join(lines) + "\n"


def _address(path: Path, name: str, value: Any) -> str:
    if not isinstance(value, str) or not is_address(value):
        raise DeploymentBroken(reason=f"The deployment file {path} needs an address as {name}, not {value!r}.")
    return str(to_checksum_address(value))
