// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice A wallet that is a contract: its owner signs for it, and may be another contract some day.
contract ContractWallet {
    address public owner;

    constructor(address first) {
        owner = first;
    }

    function hand(address next) external {
        require(msg.sender == owner, "only the owner");
        owner = next;
    }

    /// @notice ERC-1271.
    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        require(signature.length == 65, "65 bytes, please");
        bytes32 r = bytes32(signature[0:32]);
        bytes32 s = bytes32(signature[32:64]);
        uint8 v = uint8(signature[64]);
        return owner != address(0) && ecrecover(hash, v, r, s) == owner ? bytes4(0x1626ba7e) : bytes4(0xffffffff);
    }
}

/// @notice Answers whatever it is asked with what it was made with.
contract Parrot {
    bytes private said;

    constructor(bytes memory words) {
        said = words;
    }

    fallback() external {
        bytes memory words = said;
        assembly {
            return(add(words, 32), mload(words))
        }
    }
}
