// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {Governed} from "./Governed.sol";

/// @notice What one operator served, day by day: the root over each day's receipts, and totals per purse that add up. A
/// published day is never replaced; what was wrong is corrected in a later day.
contract EpochBook is Governed {
    /// Nano-USD. What was there and came is what was used, expired and is left.
    struct Purse {
        uint64 opening;
        uint64 granted;
        uint64 used;
        uint64 expired;
        uint64 closing;
    }

    /// Allowance and strip end with their day; promo and prepaid go on into the next.
    struct Totals {
        Purse allowance;
        Purse strip;
        Purse promo;
        Purse prepaid;
    }

    /// @notice Whose book this is, for good.
    address public immutable OPERATOR;

    /// @notice The key that publishes.
    address public publisher;
    /// @notice The first day that was published: days since 1970-01-01. 0 before.
    uint256 public firstDay;
    /// @notice The only day that can be published next. 0 before the first: any day that is over then can be.
    uint256 public nextDay;
    uint64 private _promoClosing;
    uint64 private _prepaidClosing;

    /// @notice The root over a day's receipts: 0 if there were none, or the day isn't published.
    mapping(uint256 day => bytes32) public rootOf;
    /// @notice keccak256(abi.encode(totals)) of a published day, else 0.
    mapping(uint256 day => bytes32) public totalsHashOf;

    event Published(uint256 indexed day, bytes32 root, Totals totals);
    event PublisherChanged(address indexed oldPublisher, address indexed newPublisher);

    error NotPublisher(address caller, address publisher);
    error NotNextDay(uint256 day, uint256 nextDay);
    error DayNotOver(uint256 day, uint256 endsAt, uint256 timestamp);
    error PurseUneven(string purse, uint256 came, uint256 went);
    error PurseCarried(string purse, uint256 opening, uint256 closing);
    error PurseBroken(string purse, uint256 opening, uint256 closedWith);
    error UsedWithoutReceipts(uint256 used);

    constructor(address timelock, address operator, address publisher_) Governed(timelock) {
        require(operator != address(0), ZeroAddress());
        OPERATOR = operator;
        _setPublisher(publisher_);
    }

    /// @notice Publishes a day that is over. Days follow one another without a gap, from the first published on; a day
    /// without receipts has root 0.
    function publish(uint256 day, bytes32 root, Totals calldata totals) external {
        require(msg.sender == publisher, NotPublisher(msg.sender, publisher));
        require(nextDay == 0 || day == nextDay, NotNextDay(day, nextDay));
        uint256 endsAt = (day + 1) * 1 days;
        require(block.timestamp >= endsAt, DayNotOver(day, endsAt, block.timestamp));
        uint256 used = _check("allowance", totals.allowance) + _check("strip", totals.strip)
            + _check("promo", totals.promo) + _check("prepaid", totals.prepaid);
        require(root != 0 || used == 0, UsedWithoutReceipts(used));
        _checkEnds("allowance", totals.allowance);
        _checkEnds("strip", totals.strip);
        if (nextDay == 0) {
            firstDay = day;
        } else {
            _checkGoesOn("promo", totals.promo, _promoClosing);
            _checkGoesOn("prepaid", totals.prepaid, _prepaidClosing);
        }
        nextDay = day + 1;
        (_promoClosing, _prepaidClosing) = (totals.promo.closing, totals.prepaid.closing);
        rootOf[day] = root;
        totalsHashOf[day] = keccak256(abi.encode(totals));
        emit Published(day, root, totals);
    }

    /// @notice Whether the receipt with this hash is one of `day`. `proof` holds the siblings from the leaf up, in the layout
    /// of OpenZeppelin's StandardMerkleTree with the leaf type bytes32; the leaf is the hash of the receipt's hash, so
    /// that no inner node passes for a receipt.
    function verify(uint256 day, bytes32 receiptHash, bytes32[] calldata proof) external view returns (bool) {
        bytes32 root = rootOf[day];
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(receiptHash))));
        return root != 0 && MerkleProof.verifyCalldata(proof, root, leaf);
    }

    /// @notice Replaces the key that publishes.
    function setPublisher(address newPublisher) external onlyTimelock {
        _setPublisher(newPublisher);
    }

    function _setPublisher(address newPublisher) private {
        require(newPublisher != address(0), ZeroAddress());
        emit PublisherChanged(publisher, newPublisher);
        publisher = newPublisher;
    }

    function _check(string memory name, Purse calldata purse) private pure returns (uint256 used) {
        uint256 came = uint256(purse.opening) + purse.granted;
        uint256 went = uint256(purse.used) + purse.expired + purse.closing;
        require(came == went, PurseUneven(name, came, went));
        return purse.used;
    }

    function _checkEnds(string memory name, Purse calldata purse) private pure {
        require(purse.opening == 0 && purse.closing == 0, PurseCarried(name, purse.opening, purse.closing));
    }

    function _checkGoesOn(string memory name, Purse calldata purse, uint256 closedWith) private pure {
        require(purse.opening == closedWith, PurseBroken(name, purse.opening, closedWith));
    }
}
