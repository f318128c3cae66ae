// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice A contract whose parameters only the timelock can change.
abstract contract Governed {
    /// @notice The timelock that owns every parameter, for good.
    address public immutable TIMELOCK;

    error NotTimelock(address caller);
    error ZeroAddress();

    constructor(address timelock) {
        require(timelock != address(0), ZeroAddress());
        TIMELOCK = timelock;
    }

    modifier onlyTimelock() {
        require(msg.sender == TIMELOCK, NotTimelock(msg.sender));
        _;
    }
}
