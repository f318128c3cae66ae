// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";

/// @notice Owns every parameter of Freehold. Nobody administers it: its own rules change through itself, with its own delay.
contract FreeholdTimelock is TimelockController {
    /// @notice The least delay, off the dev chain.
    uint256 public constant LEAST_DELAY = 2 days;
    /// @notice The chain on which the delay may be anything, also none.
    uint256 public constant DEV_CHAIN_ID = 402031;

    error DelayTooShort(uint256 delay, uint256 least);

    constructor(uint256 minDelay, address[] memory proposers, address[] memory executors)
        TimelockController(minDelay, proposers, executors, address(0))
    {
        _checkDelay(minDelay);
    }

    /// @inheritdoc TimelockController
    function updateDelay(uint256 newDelay) public override {
        _checkDelay(newDelay);
        super.updateDelay(newDelay);
    }

    function _checkDelay(uint256 delay) private view {
        require(delay >= LEAST_DELAY || block.chainid == DEV_CHAIN_ID, DelayTooShort(delay, LEAST_DELAY));
    }
}
