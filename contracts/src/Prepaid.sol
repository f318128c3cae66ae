// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @notice The part of USDC (FiatTokenV2_2) that is used here.
interface IUsdc is IERC20 {
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external;
}

/// @notice Pays USDC to one operator's treasury and records for whom. Holds nothing.
contract Prepaid {
    using SafeERC20 for IUsdc;

    IUsdc public immutable USDC;
    /// @notice Where every deposit goes, for good.
    address public immutable TREASURY;

    event Deposited(address indexed beneficiary, address indexed payer, uint256 amount);

    error ZeroAmount();
    error ZeroAddress();
    error FromTreasury(address payer, uint256 amount);

    constructor(IUsdc usdc, address treasury) {
        require(address(usdc) != address(0) && treasury != address(0), ZeroAddress());
        USDC = usdc;
        TREASURY = treasury;
    }

    /// @notice Pays `amount` of the caller's USDC for `beneficiary`.
    function deposit(address beneficiary, uint256 amount) external {
        _record(beneficiary, msg.sender, amount);
        USDC.safeTransferFrom(msg.sender, TREASURY, amount);
    }

    /// @notice Pays by the payer's ERC-3009 ReceiveWithAuthorization to this contract, submitted by anyone. Its nonce
    /// must be `authorizationNonce(beneficiary, salt)`: USDC's authorization names no beneficiary, so the nonce does, and
    /// nobody can submit it for another.
    function depositWithAuthorization(
        address payer,
        address beneficiary,
        uint256 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 salt,
        bytes calldata signature
    ) external {
        _record(beneficiary, payer, amount);
        bytes32 nonce = authorizationNonce(beneficiary, salt);
        USDC.receiveWithAuthorization(payer, address(this), amount, validAfter, validBefore, nonce, signature);
        USDC.safeTransfer(TREASURY, amount);
    }

    /// @notice keccak256(abi.encode(chain id, this contract, beneficiary, salt)).
    function authorizationNonce(address beneficiary, bytes32 salt) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), beneficiary, salt));
    }

    function _record(address beneficiary, address payer, uint256 amount) private {
        require(amount > 0, ZeroAmount());
        require(beneficiary != address(0), ZeroAddress());
        require(payer != TREASURY, FromTreasury(payer, amount)); // money that stays where it is pays for nothing
        emit Deposited(beneficiary, payer, amount);
    }
}
