"""Where the contracts are: on a chain that isn't ours, and on a dev chain that an older Freehold made."""

from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner
from tests.chain.lab import Anvil

from freehold.app.first import check_deployment, ensure_deployment
from freehold.app.settings import Settings, load
from freehold.chain import deployments
from freehold.chain.model import Deployment
from freehold.cli.root import cli
from freehold.host.process import HostError


async def mainnet(request: web.Request) -> web.Response:
    """A node that says which chain it is on."""
    asked = await request.json()
    return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": "0x1"})


async def test_a_foreign_chain_without_a_deployment_names_the_setting(tmp_path: Path) -> None:
    node = web.Application()
    node.router.add_post("/", mainnet)
    async with TestServer(node) as server:
        url = str(server.make_url("/"))
        with pytest.raises(HostError, match=r"on chain 1, and no deployment .* FREEHOLD_DEPLOYMENT"):
            await ensure_deployment(load({}, folder=tmp_path), tmp_path / "deployment.toml", url, url, print)


def test_a_deployment_file_that_cannot_be_used_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    data, broken = tmp_path / "data", tmp_path / "broken.toml"
    broken.write_text("chain_id = 1\n")
    for file, said in ((tmp_path / "none.toml", "can't be read: No such file"), (broken, "needs a number")):
        result = CliRunner().invoke(
            cli, ["up", "--data", str(data), "--port", "0", "--no-model"], env={"FREEHOLD_DEPLOYMENT": str(file)}
        )
        assert result.exit_code == 2
        assert said in result.stderr and len(result.stderr.splitlines()) == 1
    assert not data.exists()


async def test_a_node_of_another_chain_than_the_files_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    file = tmp_path / "deployment.toml"
    names = {name: f"0x{n:040x}" for n, name in enumerate(deployments.CONTRACTS, 1)}
    deployments.save(file, Deployment(8453, names, names["vault"], 7, 2))
    node = web.Application()
    node.router.add_post("/", mainnet)
    async with TestServer(node) as server:
        url = str(server.make_url("/"))
        settings = Settings(data=tmp_path / "data", rpc_url=url, deployment=file)
        with pytest.raises(HostError, match=r"on chain 1, and .* is of chain 8453"):
            await check_deployment(settings)
        with pytest.raises(HostError, match=r"on chain 1, and no deployment .* FREEHOLD_DEPLOYMENT"):
            await check_deployment(Settings(data=tmp_path / "data", rpc_url=url))
    with pytest.raises(HostError, match="can't be used now"):
        await check_deployment(Settings(data=tmp_path, rpc_url="http://127.0.0.1:9"))
    await check_deployment(Settings(data=tmp_path / "data"))


async def test_a_dev_chain_of_an_older_freehold_gets_new_contracts_and_that_is_said(tmp_path: Path) -> None:
    anvil = Anvil()
    await anvil.start()
    file, said = tmp_path / "deployment.toml", list[str]()
    made = await ensure_deployment(Settings(data=tmp_path), file, anvil.rpc.node, "http://x", said.append)
    assert said == ["Deploying the contracts."]
    older = [line for line in file.read_text().splitlines(True) if not line.startswith(("strips", "book"))]
    file.write_text("".join(older))
    again = await ensure_deployment(Settings(data=tmp_path), file, anvil.rpc.node, "http://x", said.append)
    assert said[1].startswith("This dev chain's contracts are of an older Freehold: deploying new ones.")
    assert again.contracts["vault"] != made.contracts["vault"]
    assert deployments.load(file) == again
    await anvil.stop()
