"""The dev chain as a process. Skips nothing: the binary comes with `make test`'s set-up."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from freehold.host.anvil import Anvil, program_in
from freehold.host.process import HostError, end

NODE_MODULES = Path(__file__).parents[2] / "npm" / "node_modules"
HOLDER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    made = tmp_path / "with a space"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def start(data: Path) -> Iterator[Callable[[], Anvil]]:
    started: list[Anvil] = []
    said: list[str] = []

    def begin() -> Anvil:
        started.append(Anvil.start(data, program_in(NODE_MODULES), say=said.append))
        started[-1].go()
        return started[-1]

    yield begin
    for chain in started:
        chain.stop()


def head(chain: Anvil) -> tuple[int, int]:
    block = chain.call("eth_getBlockByNumber", "latest", False)
    return int(block["number"], 16), int(block["timestamp"], 16)


def await_block(chain: Anvil, number: int) -> tuple[int, int]:
    until = time.monotonic() + 30
    while (at := head(chain))[0] < number:
        assert time.monotonic() < until, f"no block {number}, but {at}"
        time.sleep(0.05)
    return at


def await_dump(data: Path, since_ns: int) -> None:
    state = data / "anvil" / "state.json"
    until = time.monotonic() + 30
    while not state.exists() or state.stat().st_mtime_ns <= since_ns:
        assert time.monotonic() < until, "no state was written"
        time.sleep(0.05)


def test_it_mines_by_itself_on_the_dev_chain_id(start: Callable[[], Anvil]) -> None:
    chain = start()
    assert int(chain.call("eth_chainId"), 16) == 402031
    await_block(chain, 2)


def test_time_never_runs_backwards_over_a_restart_of_an_advanced_chain(start: Callable[[], Anvil]) -> None:
    chain = start()
    chain.call("evm_increaseTime", 86_400)
    number, at_s = await_block(chain, head(chain)[0] + 2)
    assert at_s > time.time() + 80_000
    chain.stop()
    again = start()
    later_number, later_s = await_block(again, number + 2)
    assert later_number > number
    assert at_s < later_s < at_s + 60


def test_blocks_mined_before_it_goes_leave_its_time_at_the_walls(data: Path) -> None:
    chain = Anvil.start(data, program_in(NODE_MODULES))
    try:
        chain.step_back(60)
        for _ in range(20):
            chain.call("evm_mine")
        assert head(chain)[1] <= time.time()
        chain.go()
        _, at_s = await_block(chain, 21)
        assert abs(at_s - time.time()) < 10
    finally:
        chain.stop()


def test_a_killed_chain_goes_on_from_its_last_dump(start: Callable[[], Anvil], data: Path) -> None:
    chain = start()
    await_block(chain, 2)
    await_dump(data, time.time_ns())
    until = time.monotonic() + 30
    while not chain.keep_copy():
        assert time.monotonic() < until
    end(chain.child.identity, grace_s=0)
    number, _ = head(start())
    assert number >= 1


def test_a_leftover_of_a_killed_supervisor_is_ended_and_its_port_kept(start: Callable[[], Anvil]) -> None:
    first = start()
    second = start()  # the pid file of the first is still there, and the first runs
    assert first.child.poll() is not None
    assert second.url == first.url


def test_a_state_cut_off_in_the_middle_is_replaced_by_its_copy(start: Callable[[], Anvil], data: Path) -> None:
    chain = start()
    await_block(chain, 3)
    chain.stop()
    assert chain.keep_copy()
    state = data / "anvil" / "state.json"
    state.write_bytes(state.read_bytes()[:100])
    assert head(start())[0] >= 3


def test_a_chain_killed_in_its_first_dump_begins_anew(start: Callable[[], Anvil], data: Path) -> None:
    (data / "anvil").mkdir()
    (data / "anvil" / "state.json").write_text('{"block": {', "utf-8")
    await_block(start(), 1)


def test_a_broken_state_without_a_copy_is_one_sentence(start: Callable[[], Anvil], data: Path) -> None:
    (data / "anvil").mkdir()
    (data / "anvil" / "state.json").write_text("not a state", "utf-8")
    with pytest.raises(HostError, match=r"^The dev chain's state .* can't be read .*another --data\.$"):
        start()


def test_a_missing_program_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="make up"):
        program_in(tmp_path)


def test_no_private_key_is_in_its_log(start: Callable[[], Anvil], data: Path) -> None:
    await_block(start(), 1)
    assert "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80" not in (
        data / "logs" / "anvil.log"
    ).read_text("utf-8")
