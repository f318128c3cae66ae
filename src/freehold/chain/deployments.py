"""The deployment file: where a set of contracts lives, as TOML."""

import os
import tomllib
from pathlib import Path
from typing import Any

from eth_utils.address import is_address, to_checksum_address

from freehold.chain.model import Deployment
from freehold.chain.problems import DeploymentBroken

CONTRACTS = ("hold", "staking", "diem", "vault", "prepaid", "usdc", "timelock")
_NUMBERS = ("chain_id", "from_block", "confirmations")


def load(path: Path) -> Deployment:
    """Read a deployment file. Raises DeploymentBroken, naming the file and what is wrong with it."""
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
