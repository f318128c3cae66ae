// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice A pool whose mean tick is whatever a test wants.
contract FixedPool {
    address public immutable token0;
    address public immutable token1;
    int56 public moved;

    constructor(address first, address second) {
        (token0, token1) = (first, second);
    }

    /// @notice By how much the tick's sum rises over any window.
    function setMoved(int56 sum) external {
        moved = sum;
    }

    function observe(uint32[] calldata) external view returns (int56[] memory sums, uint160[] memory liquidity) {
        (sums, liquidity) = (new int56[](2), new uint160[](2));
        (sums[0], sums[1]) = (7, 7 + moved);
    }
}

/// @notice A token that, once, calls somebody back in the middle of a transfer, and keeps what came of it. The first slots
/// are those of OpenZeppelin's ERC20, so that it can be put in a token's place.
contract CallingToken {
    mapping(address owner => uint256) public balanceOf;
    mapping(address owner => mapping(address spender => uint256)) private _unused;
    uint256 public totalSupply;
    uint256[47] private _gap;
    address public target;
    bytes public data;
    bool public calledBack;
    bool public succeeded;
    bytes public answer;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
        totalSupply += amount;
    }

    function burn(address from, uint256 amount) external {
        balanceOf[from] -= amount;
        totalSupply -= amount;
        _callBack();
    }

    function callBack(address to, bytes calldata what) external {
        (target, data, calledBack) = (to, what, false);
    }

    function approve(address, uint256) external pure returns (bool) {
        return true;
    }

    function transfer(address to, uint256 amount) external returns (bool) {
        return _move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external returns (bool) {
        return _move(from, to, amount);
    }

    function receiveWithAuthorization(
        address from,
        address to,
        uint256 amount,
        uint256,
        uint256,
        bytes32,
        bytes calldata
    ) external {
        _move(from, to, amount);
    }

    /// @dev The balances move after the call, as a token with a hook before the transfer does it.
    function _move(address from, address to, uint256 amount) private returns (bool) {
        _callBack();
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
        return true;
    }

    function _callBack() private {
        if (calledBack || target == address(0)) return;
        calledBack = true;
        (succeeded, answer) = target.call(data);
    }
}
