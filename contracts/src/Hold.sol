// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @notice HOLD, the platform's token: ERC-20 and ERC-2612, without an owner. Staking creates it, and mints rewards.
contract Hold is ERC20, ERC20Permit {
    /// @notice The only minter, for good: the contract that created this one. It mints no faster than its ceiling.
    address public immutable STAKING;

    error NotStaking(address caller);

    constructor(address holder, uint256 genesisSupply, string memory name, string memory symbol)
        ERC20(name, symbol)
        ERC20Permit(name)
    {
        STAKING = msg.sender;
        _mint(holder, genesisSupply);
    }

    function mint(address to, uint256 amount) external {
        require(msg.sender == STAKING, NotStaking(msg.sender));
        _mint(to, amount);
    }
}
