// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {CapacityVault} from "./CapacityVault.sol";
import {Diem} from "./Diem.sol";
import {Flows} from "./Flows.sol";
import {Months} from "./Months.sol";
import {Staking} from "./Staking.sol";
import {Strip} from "./Strip.sol";

/// @notice Splits DIEM into strips, one for each month, and the principal; merges and redeems them; turns strips into
/// allowances. A month is a number: months since 1970-01.
/// @dev For the running and each coming month m: strips of m + activated of m = Σ principals of months ≥ m. DIEM held here
/// is Σ principals. So as many DIEM as grant by strips lie here and grant nothing else.
contract Strips is Multicall {
    using SafeERC20 for Diem;
    using Flows for Flows.Flow;
    using SafeCast for uint256;

    /// @notice How many months have series, the running one included.
    uint256 public constant MAX_SERIES = 36;

    Diem public immutable DIEM;
    Staking public immutable STAKING;
    CapacityVault public immutable VAULT;
    /// @notice The code that each series' token delegates to.
    Strip public immutable IMPLEMENTATION;

    /// @notice Strips of a month that were activated.
    mapping(uint256 month => uint256) public activatedOf;

    /// A month's flow begins with its first day or later; what it says of days after the month's end doesn't count.
    mapping(address operator => mapping(address beneficiary => mapping(uint256 month => Flows.Flow))) private _flows;
    mapping(address operator => mapping(uint256 month => Flows.Flow)) private _totals;
    mapping(address operator => uint256 month) private _lastMonths;
    mapping(
        address owner
            => mapping(uint256 month => mapping(address operator => mapping(address beneficiary => uint256)))
    ) private _positions;

    event SeriesCreated(uint256 indexed month, bool isPrincipal, address token);
    event Split(address indexed owner, uint256 indexed month, uint256 amount, address indexed to);
    event Merged(address indexed owner, uint256 indexed month, uint256 amount, address indexed to);
    event Redeemed(address indexed owner, uint256 indexed month, uint256 amount, address indexed to);
    event Activated(
        address indexed owner,
        uint256 indexed month,
        uint256 amount,
        address indexed operator,
        address beneficiary,
        uint256 position
    );
    event ActivatedRedirected(
        address indexed owner,
        uint256 indexed month,
        uint256 amount,
        address operator,
        address beneficiary,
        address newOperator,
        address newBeneficiary
    );
    /// @notice The resulting allowance in wei of DIEM: of `day` itself, and of each later day of the same month. Of the
    /// events whose day is in the month of d and not after d, the newest one says what d grants.
    event AllowanceChanged(
        address indexed operator, address indexed beneficiary, uint256 day, uint256 today, uint256 onward
    );

    error ZeroAmount();
    error ZeroAddress();
    error MonthOutOfRange(uint256 month, uint256 first, uint256 last);
    error UnknownSeries(uint256 month);
    error NotMatured(uint256 month, uint256 maturesAt, uint256 timestamp);
    error MonthOver(uint256 month, uint256 endsAt);
    error UnknownOperator(address operator);
    error BeyondCommitted(address operator, uint256 staked, uint256 committed);
    error BeyondActivated(
        address owner, uint256 month, address operator, address beneficiary, uint256 amount, uint256 position
    );

    /// @notice Created by the vault, whose operators' commitments bound stakes and strips together.
    constructor(Staking staking) {
        STAKING = staking;
        DIEM = staking.DIEM();
        VAULT = CapacityVault(msg.sender);
        IMPLEMENTATION = new Strip();
    }

    // --- DIEM to strips and principal, and back ---

    /// @notice Takes `amount` of the caller's DIEM; gives `to` as much of the strip of each month from this one to
    /// `month`, and of the principal of `month`.
    function split(uint256 month, uint256 amount, address to) external {
        require(amount > 0, ZeroAmount());
        uint256 first = _checkMonth(month);
        emit Split(msg.sender, month, amount, to);
        for (uint256 m = first; m <= month; ++m) _createdSeries(m, false).mint(to, amount);
        _createdSeries(month, true).mint(to, amount);
        DIEM.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @notice Undoes a split: takes `amount` of the strips of each month from this one to `month`, and of the principal
    /// of `month`, and pays `to` as much DIEM. After `month` there are no strips to give, and it is `redeem`.
    function merge(uint256 month, uint256 amount, address to) external {
        require(amount > 0, ZeroAmount());
        (uint256 first, uint256 last) = months();
        require(month <= last, MonthOutOfRange(month, first, last));
        emit Merged(msg.sender, month, amount, to);
        for (uint256 m = first; m <= month; ++m) _series(m, false).burn(msg.sender, amount);
        _payPrincipal(month, amount, to);
    }

    /// @notice Pays `to` the DIEM of `amount` of the principal of `month`, one to one, once that month is over.
    function redeem(uint256 month, uint256 amount, address to) external {
        require(amount > 0, ZeroAmount());
        (uint256 first, uint256 last) = months();
        require(month <= last, MonthOutOfRange(month, first, last));
        require(month < first, NotMatured(month, endOf(month), block.timestamp));
        emit Redeemed(msg.sender, month, amount, to);
        _payPrincipal(month, amount, to);
    }

    // --- strips to allowances ---

    /// @notice Burns `amount` of the caller's strips of `month`. In the running month they grant the rest of today pro rata, and
    /// `amount` on each later day of the month; of a coming month, `amount` from its first day on.
    function activate(uint256 month, uint256 amount, address operator, address beneficiary) external {
        require(amount > 0, ZeroAmount());
        uint256 first = _checkMonth(month);
        activatedOf[month] += amount;
        uint256 position = _put(month, amount, operator, beneficiary);
        if (month == first) {
            uint256 extra = amount * (1 days - block.timestamp % 1 days) / 1 days;
            _flows[operator][beneficiary][month].extra[today()] += extra;
            _totals[operator][month].extra[today()] += extra;
        }
        if (_wholeDayLeft(month)) _checkCommitted(operator, month);
        emit Activated(msg.sender, month, amount, operator, beneficiary, position);
        _emitAllowance(month, operator, beneficiary);
        _series(month, false).burn(msg.sender, amount);
    }

    /// @notice Moves `amount` of what the caller has activated to another operator or beneficiary, from the next 00:00 UTC
    /// on, or from the month's first if that is later.
    function redirectActivated(
        uint256 month,
        uint256 amount,
        address operator,
        address beneficiary,
        address newOperator,
        address newBeneficiary
    ) external {
        require(amount > 0, ZeroAmount());
        require(_wholeDayLeft(month), MonthOver(month, endOf(month)));
        _take(month, amount, operator, beneficiary);
        _put(month, amount, newOperator, newBeneficiary);
        if (newOperator != operator) _checkCommitted(newOperator, month);
        emit ActivatedRedirected(msg.sender, month, amount, operator, beneficiary, newOperator, newBeneficiary);
        _emitAllowance(month, operator, beneficiary);
        _emitAllowance(month, newOperator, newBeneficiary);
    }

    // --- views ---

    /// @notice The UTC day: days since 1970-01-01.
    function today() public view returns (uint256) {
        return block.timestamp / 1 days;
    }

    /// @notice The running month, and the last one that can be split to.
    function months() public view returns (uint256 first, uint256 last) {
        first = Months.ofDay(today());
        last = first + MAX_SERIES - 1;
    }

    /// @notice The month that a day is in.
    function monthOf(uint256 day) external pure returns (uint256) {
        return Months.ofDay(day);
    }

    /// @notice The first day of a month.
    function firstDayOf(uint256 month) external pure returns (uint256) {
        return Months.firstDay(month);
    }

    /// @notice The second at which `month` is over and its principal can be redeemed.
    function endOf(uint256 month) public pure returns (uint256) {
        return Months.firstDay(month + 1) * 1 days;
    }

    /// @notice The tokens of a month's series, also before they are created.
    function seriesOf(uint256 month) external view returns (address strip, address principal) {
        return (_addressOf(month, false), _addressOf(month, true));
    }

    /// @notice What `beneficiary` may spend at `operator` on `day` by strips, in wei of DIEM; for a coming day, as things stand.
    function allowanceOf(address operator, address beneficiary, uint256 day) public view returns (uint256) {
        return _flows[operator][beneficiary][Months.ofDay(day)].on(day);
    }

    /// @notice What all beneficiaries together may spend at `operator` on `day` by strips.
    function totalAllowance(address operator, uint256 day) external view returns (uint256) {
        return _totals[operator][Months.ofDay(day)].on(day);
    }

    /// @notice The most that activated strips oblige `operator` to on a whole day, from tomorrow on.
    function peakOf(address operator) external view returns (uint256 peak) {
        uint256 last = _lastMonths[operator];
        for (uint256 m = Months.ofDay(today() + 1); m <= last; ++m) {
            uint256 total = _totals[operator][m].latest();
            if (total > peak) peak = total;
        }
    }

    /// @notice What `owner` has activated of `month` for `beneficiary` at `operator`.
    function positionOf(address owner, uint256 month, address operator, address beneficiary)
        external
        view
        returns (uint256)
    {
        return _positions[owner][month][operator][beneficiary];
    }

    // --- parts ---

    /// @dev The running month, if `month` is it or one of those that follow.
    function _checkMonth(uint256 month) private view returns (uint256 first) {
        uint256 last;
        (first, last) = months();
        require(month >= first && month <= last, MonthOutOfRange(month, first, last));
    }

    function _payPrincipal(uint256 month, uint256 amount, address to) private {
        _series(month, true).burn(msg.sender, amount);
        DIEM.safeTransfer(to, amount);
    }

    /// @dev Adds to each whole day of the month from tomorrow on.
    function _put(uint256 month, uint256 amount, address operator, address beneficiary)
        private
        returns (uint256 position)
    {
        require(beneficiary != address(0), ZeroAddress());
        (, address signer) = VAULT.operatorOf(operator);
        require(signer != address(0), UnknownOperator(operator));
        position = _positions[msg.sender][month][operator][beneficiary] += amount;
        if (month > _lastMonths[operator]) _lastMonths[operator] = month;
        if (!_wholeDayLeft(month)) return position;
        _flows[operator][beneficiary][month].add(_nextDay(month), amount);
        _totals[operator][month].add(_nextDay(month), amount);
    }

    /// @dev Takes from each whole day of the month from tomorrow on; today stays as it was granted.
    function _take(uint256 month, uint256 amount, address operator, address beneficiary) private {
        uint256 position = _positions[msg.sender][month][operator][beneficiary];
        require(
            amount <= position, BeyondActivated(msg.sender, month, operator, beneficiary, amount, position)
        );
        _positions[msg.sender][month][operator][beneficiary] = position - amount;
        _flows[operator][beneficiary][month].subtract(_nextDay(month), amount);
        _totals[operator][month].subtract(_nextDay(month), amount);
    }

    /// @dev The first whole day of the month that has not begun.
    function _nextDay(uint256 month) private view returns (uint256) {
        uint256 first = Months.firstDay(month);
        return today() < first ? first : today() + 1;
    }

    /// @dev False from the month's last day on.
    function _wholeDayLeft(uint256 month) private view returns (bool) {
        return _nextDay(month) < Months.firstDay(month + 1);
    }

    function _checkCommitted(address operator, uint256 month) private view {
        uint256 promised = VAULT.stakedTo(operator) + _totals[operator][month].latest();
        uint256 committed = STAKING.committedOf(operator);
        require(promised <= committed, BeyondCommitted(operator, promised, committed));
    }

    function _emitAllowance(uint256 month, address operator, address beneficiary) private {
        uint256 first = Months.firstDay(month);
        uint256 day = today() < first ? first : today();
        uint256 onward = _flows[operator][beneficiary][month].latest();
        emit AllowanceChanged(operator, beneficiary, day, allowanceOf(operator, beneficiary, day), onward);
    }

    // --- series ---

    function _createdSeries(uint256 month, bool isPrincipal) private returns (Strip token) {
        token = Strip(_addressOf(month, isPrincipal));
        if (address(token).code.length > 0) return token;
        bytes memory args = _args(month, isPrincipal);
        token = Strip(Clones.cloneDeterministicWithImmutableArgs(address(IMPLEMENTATION), args, 0));
        emit SeriesCreated(month, isPrincipal, address(token));
    }

    function _series(uint256 month, bool isPrincipal) private view returns (Strip token) {
        token = Strip(_addressOf(month, isPrincipal));
        require(address(token).code.length > 0, UnknownSeries(month));
    }

    function _addressOf(uint256 month, bool isPrincipal) private view returns (address) {
        return Clones.predictDeterministicAddressWithImmutableArgs(
            address(IMPLEMENTATION), _args(month, isPrincipal), 0
        );
    }

    function _args(uint256 month, bool isPrincipal) private pure returns (bytes memory) {
        return abi.encodePacked(month.toUint32(), isPrincipal);
    }
}
