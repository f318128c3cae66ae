"""The protocols of one data directory: fetched and deployed once, remembered, and found again by every later command."""

from collections.abc import Callable
from pathlib import Path

from freehold.chain.defi import model, packages
from freehold.chain.defi.deploy import deploy_defi, stands
from freehold.chain.defi.model import Defi
from freehold.chain.model import Deployment
from freehold.chain.problems import NoMarkets
from freehold.chain.rpc import Rpc
from freehold.chain.wallet import require_dev_chain

FILE = "defi.toml"
"""In the data directory: where the protocols are."""
PACKAGES = "defi"
"""In the data directory: the folder of the fetched packages."""


def missing(data: Path) -> bool:
    """Whether something would have to be fetched, which needs somebody's agreement first."""
    return bool(packages.missing(data / PACKAGES))


async def standing(rpc: Rpc, deployment: Deployment, data: Path) -> Defi | None:
    """What is remembered in `data`, if it stands on this chain and was made for this deployment; else None.

    Raises DeploymentBroken, NodeUnavailable.
    """
    path = data / FILE
    recorded = model.load(path) if path.exists() else None
    return recorded if recorded is not None and await stands(rpc, deployment, recorded) else None


async def find(rpc: Rpc, deployment: Deployment, data: Path) -> Defi:
    """The protocols of this chain. Raises NoMarkets, DeploymentBroken, NodeUnavailable."""
    found = await standing(rpc, deployment, data)
    if found is None:
        raise NoMarkets()
    return found


async def ensure(
    rpc: Rpc, deployment: Deployment, data: Path, *, say: Callable[[str], None], ripen: bool = True
) -> tuple[Defi, bool]:
    """The protocols: those that stand, else fetched where need be, and newly deployed; and whether they are new.

    Call it only after the user has agreed to the licences where `missing(data)`. Raises WalletRefused off the dev chain,
    PackageUnavailable, DeploymentBroken, Reverted, NodeUnavailable.
    """
    await require_dev_chain(rpc)
    found = await standing(rpc, deployment, data)
    if found is not None:
        return found, False
    folder = data / PACKAGES
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    await packages.fetch(folder, say)
    made = await deploy_defi(rpc, deployment, folder, say=say, ripen=ripen)
    model.save(data / FILE, made)
    return made, True
