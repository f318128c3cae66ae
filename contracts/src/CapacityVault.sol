// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";
import {Diem} from "./Diem.sol";
import {Flows} from "./Flows.sol";
import {Governed} from "./Governed.sol";
import {Staking} from "./Staking.sol";
import {Strips} from "./Strips.sol";

/// @notice DIEM staked here, to an operator and for a beneficiary, grants the beneficiary an allowance each UTC day.
/// @dev Every verb checks and moves tomorrow's balances, and only ever adds to today's extra: nothing granted today is
/// taken back, and no second of a DIEM is granted twice.
contract CapacityVault is Governed, Multicall {
    using SafeERC20 for Diem;
    using Flows for Flows.Flow;

    struct Request {
        address owner;
        address operator;
        address beneficiary;
        uint256 amount;
        uint256 madeAt;
    }

    struct Operator {
        string url;
        address receiptSigner;
    }

    /// @notice Seconds from a request to unstake until it can be withdrawn. With less than a day, seconds would be
    /// granted twice.
    uint256 public constant COOLDOWN = 1 days;

    Diem public immutable DIEM;
    Staking public immutable STAKING;
    /// @notice What turns DIEM into dated strips, whose allowances count against the same commitments.
    Strips public immutable STRIPS;

    mapping(address operator => Operator) private _operators;
    mapping(address operator => mapping(address beneficiary => Flows.Flow)) private _flows;
    /// What a day grants on top is for the part of it that was left when it was staked.
    mapping(address operator => Flows.Flow) private _totals;
    mapping(address owner => mapping(address operator => mapping(address beneficiary => uint256))) private _positions;
    mapping(uint256 id => Request) private _requests;
    uint256 private _lastRequest;

    /// @notice The resulting allowance in wei of DIEM: of `day` itself, and of each later day.
    event AllowanceChanged(
        address indexed operator, address indexed beneficiary, uint256 day, uint256 today, uint256 onward
    );
    event Staked(
        address indexed owner,
        address indexed operator,
        address indexed beneficiary,
        address payer,
        uint256 amount,
        uint256 position
    );
    event UnstakeRequested(
        uint256 indexed id,
        address indexed owner,
        address operator,
        address beneficiary,
        uint256 amount,
        uint256 readyAt,
        uint256 position
    );
    event UnstakeCancelled(
        uint256 indexed id,
        address indexed owner,
        address operator,
        address beneficiary,
        uint256 amount,
        uint256 position
    );
    event Withdrawn(uint256 indexed id, address indexed owner, uint256 amount);
    event Redirected(
        address indexed owner,
        address indexed operator,
        address indexed beneficiary,
        address newOperator,
        address newBeneficiary,
        uint256 amount,
        uint256 position,
        uint256 newPosition
    );
    event OperatorChanged(
        address indexed operator, string oldUrl, string newUrl, address oldReceiptSigner, address newReceiptSigner
    );

    error ZeroAmount();
    error UnknownOperator(address operator);
    error BeyondCommitted(address operator, uint256 staked, uint256 committed);
    error BeyondPosition(address owner, address operator, address beneficiary, uint256 amount, uint256 position);
    error UnknownRequest(uint256 id);
    error NotOwnRequest(uint256 id, address owner, address caller);
    error StillCooling(uint256 id, uint256 readyAt, uint256 timestamp);

    constructor(Staking staking) Governed(staking.TIMELOCK()) {
        STAKING = staking;
        DIEM = staking.DIEM();
        STRIPS = new Strips(staking);
    }

    // --- stake ---

    /// @notice Stakes the caller's DIEM to `operator` for `beneficiary`: at once for the rest of the day, in full from
    /// the next.
    function stake(uint256 amount, address operator, address beneficiary) external {
        _stake(msg.sender, amount, operator, beneficiary);
    }

    /// @notice Stakes the caller's DIEM as the position of `owner`, who alone can move or withdraw it.
    function stakeFor(address owner, uint256 amount, address operator, address beneficiary) external {
        require(owner != address(0), ZeroAddress());
        _stake(owner, amount, operator, beneficiary);
    }

    /// @notice As `stake`, with an ERC-2612 permit of the caller. Goes on when the permit was used already: anyone who
    /// sees it can submit it first, and the allowance is then there.
    function stakeWithPermit(
        uint256 amount,
        address operator,
        address beneficiary,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external {
        try DIEM.permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        _stake(msg.sender, amount, operator, beneficiary);
    }

    /// @notice Ends `amount` of a position with this day; its DIEM can be withdrawn after the cooldown. Each request
    /// cools on its own.
    function requestUnstake(address operator, address beneficiary, uint256 amount) external returns (uint256 id) {
        uint256 position = _take(msg.sender, operator, beneficiary, amount);
        id = ++_lastRequest;
        _requests[id] = Request(msg.sender, operator, beneficiary, amount, block.timestamp);
        emit UnstakeRequested(
            id, msg.sender, operator, beneficiary, amount, block.timestamp + COOLDOWN, position
        );
        _emitAllowance(operator, beneficiary);
    }

    /// @notice Puts the request's DIEM back where it was staked. On a later day than the request's, it also grants the
    /// rest of that day.
    function cancelUnstake(uint256 id) external {
        Request memory request = _takeRequest(id);
        uint256 position = _put(
            msg.sender, request.operator, request.beneficiary, request.amount, request.madeAt / 1 days != today()
        );
        _checkCommitted(request.operator);
        emit UnstakeCancelled(
            id, msg.sender, request.operator, request.beneficiary, request.amount, position
        );
        _emitAllowance(request.operator, request.beneficiary);
    }

    /// @notice Pays the request's DIEM out, once it has cooled.
    function withdraw(uint256 id) external {
        Request memory request = _takeRequest(id);
        uint256 readyAt = request.madeAt + COOLDOWN;
        require(block.timestamp >= readyAt, StillCooling(id, readyAt, block.timestamp));
        emit Withdrawn(id, msg.sender, request.amount);
        DIEM.safeTransfer(msg.sender, request.amount);
    }

    /// @notice Moves `amount` of a position to another operator or beneficiary, from the next 00:00 UTC on.
    function redirect(
        address operator,
        address beneficiary,
        address newOperator,
        address newBeneficiary,
        uint256 amount
    ) external {
        uint256 position = _take(msg.sender, operator, beneficiary, amount);
        uint256 newPosition = _put(msg.sender, newOperator, newBeneficiary, amount, false);
        if (newOperator != operator) _checkCommitted(newOperator);
        emit Redirected(
            msg.sender, operator, beneficiary, newOperator, newBeneficiary, amount, position, newPosition
        );
        _emitAllowance(operator, beneficiary);
        _emitAllowance(newOperator, newBeneficiary);
    }

    // --- parameters ---

    /// @notice Admits an operator, or changes its address on the web and the key that signs its receipts.
    function registerOperator(address operator, string calldata url, address receiptSigner) external onlyTimelock {
        require(operator != address(0) && receiptSigner != address(0), ZeroAddress());
        Operator memory old = _operators[operator];
        _operators[operator] = Operator(url, receiptSigner);
        emit OperatorChanged(operator, old.url, url, old.receiptSigner, receiptSigner);
    }

    // --- views ---

    /// @notice The UTC day: days since 1970-01-01.
    function today() public view returns (uint256) {
        return block.timestamp / 1 days;
    }

    /// @notice What `beneficiary` may spend at `operator` on `day`, in wei of DIEM; for a coming day, as things stand.
    function allowanceOf(address operator, address beneficiary, uint256 day) public view returns (uint256) {
        return _flows[operator][beneficiary].on(day);
    }

    /// @notice What all beneficiaries together may spend at `operator` on `day`.
    function totalAllowance(address operator, uint256 day) external view returns (uint256) {
        return _totals[operator].on(day);
    }

    /// @notice DIEM staked to `operator` from tomorrow on.
    function stakedTo(address operator) public view returns (uint256) {
        return _totals[operator].latest();
    }

    /// @notice USD a day that `operator` has committed, and the most that it owes on a whole day from tomorrow on, to
    /// stakes and activated strips together; coverage is their ratio.
    function coverage(address operator) public view returns (uint256 committed, uint256 owed) {
        return (STAKING.committedOf(operator), stakedTo(operator) + STRIPS.peakOf(operator));
    }

    function positionOf(address owner, address operator, address beneficiary) external view returns (uint256) {
        return _positions[owner][operator][beneficiary];
    }

    /// @notice Zero for a request that is cancelled, withdrawn, or was never made.
    function requestOf(uint256 id)
        external
        view
        returns (address owner, address operator, address beneficiary, uint256 amount, uint256 madeAt)
    {
        Request storage request = _requests[id];
        return (request.owner, request.operator, request.beneficiary, request.amount, request.madeAt);
    }

    /// @notice Where an operator serves and who signs its receipts; the zero address if it isn't registered.
    function operatorOf(address operator) external view returns (string memory url, address receiptSigner) {
        return (_operators[operator].url, _operators[operator].receiptSigner);
    }

    // --- the mid-day rule ---

    function _stake(address owner, uint256 amount, address operator, address beneficiary) private {
        uint256 position = _put(owner, operator, beneficiary, amount, true);
        _checkCommitted(operator);
        emit Staked(owner, operator, beneficiary, msg.sender, amount, position);
        _emitAllowance(operator, beneficiary);
        DIEM.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @dev Adds to tomorrow and every later day and, with `restOfToday`, today's seconds that are left.
    function _put(address owner, address operator, address beneficiary, uint256 amount, bool restOfToday)
        private
        returns (uint256 position)
    {
        require(amount > 0, ZeroAmount());
        require(beneficiary != address(0), ZeroAddress());
        require(_operators[operator].receiptSigner != address(0), UnknownOperator(operator));
        position = _positions[owner][operator][beneficiary] += amount;
        uint256 extra = restOfToday ? amount * (1 days - block.timestamp % 1 days) / 1 days : 0;
        _flows[operator][beneficiary].add(today() + 1, amount);
        _totals[operator].add(today() + 1, amount);
        if (extra > 0) {
            _flows[operator][beneficiary].extra[today()] += extra;
            _totals[operator].extra[today()] += extra;
        }
    }

    /// @dev Takes from tomorrow and every later day; today stays as it was granted.
    function _take(address owner, address operator, address beneficiary, uint256 amount)
        private
        returns (uint256 position)
    {
        require(amount > 0, ZeroAmount());
        position = _positions[owner][operator][beneficiary];
        require(amount <= position, BeyondPosition(owner, operator, beneficiary, amount, position));
        position -= amount;
        _positions[owner][operator][beneficiary] = position;
        _flows[operator][beneficiary].subtract(today() + 1, amount);
        _totals[operator].subtract(today() + 1, amount);
    }

    function _checkCommitted(address operator) private view {
        (uint256 committed, uint256 owed) = coverage(operator);
        require(owed <= committed, BeyondCommitted(operator, owed, committed));
    }

    function _emitAllowance(address operator, address beneficiary) private {
        emit AllowanceChanged(
            operator,
            beneficiary,
            today(),
            allowanceOf(operator, beneficiary, today()),
            _flows[operator][beneficiary].latest()
        );
    }

    function _takeRequest(uint256 id) private returns (Request memory request) {
        request = _requests[id];
        require(request.owner != address(0), UnknownRequest(id));
        require(request.owner == msg.sender, NotOwnRequest(id, request.owner, msg.sender));
        delete _requests[id];
    }
}
