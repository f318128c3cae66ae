// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {Curve} from "./Curve.sol";
import {Diem} from "./Diem.sol";
import {Governed} from "./Governed.sol";
import {Hold} from "./Hold.sol";

/// @notice Stake HOLD for sHOLD, lock sHOLD to mint DIEM along the curve, burn DIEM to unlock it, earn HOLD meanwhile.
/// @dev One sHOLD is one staked HOLD. Balances change in `_update` and locks in `_mintDiem` and `burn`, nowhere else; each
/// of them first settles what was earned with the old ones.
contract Staking is ERC20, Governed {
    using SafeERC20 for Hold;
    using Curve for uint256[];

    /// What the tokens are called, for good.
    struct Names {
        string hold;
        string holdSymbol;
        string diem;
        string diemSymbol;
    }

    struct Position {
        /// sHOLD that can't be unstaked.
        uint256 locked;
        /// The part of it that burning `outstanding` unlocks: less by a wei for each mint and each burn so far. The
        /// curve costs 2 wei or more for each of DIEM, so there is at least a wei for each outstanding.
        uint256 redeemable;
        /// DIEM minted and not yet burned by this owner.
        uint256 outstanding;
    }

    struct Request {
        address owner;
        uint256 amount;
        uint256 readyAt;
    }

    struct Reward {
        /// The index up to which `owed` counts.
        uint256 index;
        /// HOLD earned and not yet claimed.
        uint256 owed;
    }

    /// @notice Seconds from a request to unstake until it can be withdrawn.
    uint256 public constant COOLDOWN = 7 days;
    /// @notice Of what locked sHOLD earns, this many fifths are its owner's; the rest is the treasury's.
    uint256 public constant LOCKED_FIFTHS = 4;
    /// @dev The index has 100 binary digits below 1. A second's emission is below 2^80, so that the index stays below
    /// 2^256 for 2^76 seconds even if there is just one wei of sHOLD.
    uint256 private constant SCALE = 2 ** 100;

    Hold public immutable HOLD;
    Diem public immutable DIEM;
    /// @notice The most that `emissionPerSecond` can ever be, wei of HOLD.
    uint80 public immutable EMISSION_CEILING;

    /// @notice USD a day that an operator has promised to serve, with 18 decimals: so many DIEM can be staked to it.
    mapping(address operator => uint256) public committedOf;
    /// @notice What all operators have committed: the most DIEM there can be.
    uint256 public totalCommitted;
    /// @notice sHOLD locked by all positions.
    uint256 public totalLocked;
    /// @notice What all stakes together earn in a second, wei of HOLD. While nothing is staked nothing is emitted.
    uint80 public emissionPerSecond;
    uint48 private _settledAt;
    /// @notice All HOLD emitted up to the last settlement, claimed or not: HOLD's supply is never above genesis and this.
    uint128 public totalEmitted;
    /// @notice Who gets a fifth of what locked sHOLD earns.
    address public treasury;

    uint256[] private _curve;
    mapping(address owner => Position) private _positions;
    mapping(uint256 id => Request) private _requests;
    uint256 private _lastRequest;
    mapping(address owner => Reward) private _rewards;
    /// HOLD that one wei of unlocked sHOLD has earned since the beginning, times SCALE, up to `_settledAt`.
    uint256 private _index;

    event Staked(address indexed payer, address indexed recipient, uint256 amount, uint256 balance);
    event UnstakeRequested(
        uint256 indexed id, address indexed owner, uint256 amount, uint256 readyAt, uint256 balance
    );
    event UnstakeCancelled(uint256 indexed id, address indexed owner, uint256 amount, uint256 balance);
    event Withdrawn(uint256 indexed id, address indexed owner, uint256 amount);
    event Minted(
        address indexed owner, uint256 diemOut, uint256 cost, uint256 locked, uint256 outstanding, uint256 supply
    );
    event Burned(
        address indexed owner, uint256 diemIn, uint256 unlocked, uint256 locked, uint256 outstanding, uint256 supply
    );
    event CommittedChanged(address indexed operator, uint256 oldAmount, uint256 newAmount, uint256 total);
    event Claimed(address indexed owner, uint256 amount, bool staked);
    event EmissionChanged(uint256 oldPerSecond, uint256 newPerSecond);
    event TreasuryChanged(address indexed oldTreasury, address indexed newTreasury);
    event CurveChanged(uint256[] oldWords, uint256[] newWords);

    error ZeroAmount();
    error NotTransferable(address from, address to, uint256 amount);
    error NotUnlocked(address owner, uint256 needed, uint256 unlocked);
    error UnknownRequest(uint256 id);
    error NotOwnRequest(uint256 id, address owner, address caller);
    error StillCooling(uint256 id, uint256 readyAt, uint256 timestamp);
    error TooLittleDiem(uint256 diemOut, uint256 least);
    error TooMuchLocked(uint256 cost, uint256 most);
    error TooLittleUnlocked(uint256 unlocked, uint256 least);
    error BurnBeyondPosition(address owner, uint256 amount, uint256 outstanding);
    error BeyondCommitted(uint256 supply, uint256 committed);
    error NothingToClaim(address owner);
    error AboveCeiling(uint256 perSecond, uint256 ceiling);
    error CurveBelow(uint256 last, uint256 least);

    /// @notice Creates HOLD, all of it the deployer's, and DIEM. Nothing is emitted until the timelock says so.
    constructor(
        address timelock,
        uint256 genesisSupply,
        address treasury_,
        uint80 emissionCeiling,
        Names memory names
    )
        ERC20(string.concat("Staked ", names.hold), string.concat("s", names.holdSymbol))
        Governed(timelock)
    {
        HOLD = new Hold(msg.sender, genesisSupply, names.hold, names.holdSymbol);
        DIEM = new Diem(names.diem, names.diemSymbol);
        EMISSION_CEILING = emissionCeiling;
        _setTreasury(treasury_);
        _settledAt = uint48(block.timestamp);
    }

    // --- stake ---

    /// @notice Stakes `amount` of the caller's HOLD for `recipient`.
    function stake(address recipient, uint256 amount) external {
        require(amount > 0, ZeroAmount());
        _mint(recipient, amount);
        emit Staked(msg.sender, recipient, amount, balanceOf(recipient));
        HOLD.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @notice Takes `amount` of unlocked sHOLD out of the stake; its HOLD can be withdrawn after the cooldown. Each
    /// request cools on its own.
    function requestUnstake(uint256 amount) external returns (uint256 id) {
        require(amount > 0, ZeroAmount());
        _burn(msg.sender, amount);
        id = ++_lastRequest;
        uint256 readyAt = block.timestamp + COOLDOWN;
        _requests[id] = Request(msg.sender, amount, readyAt);
        emit UnstakeRequested(id, msg.sender, amount, readyAt, balanceOf(msg.sender));
    }

    /// @notice Puts the request's HOLD back into the stake.
    function cancelUnstake(uint256 id) external {
        uint256 amount = _takeRequest(id).amount;
        _mint(msg.sender, amount);
        emit UnstakeCancelled(id, msg.sender, amount, balanceOf(msg.sender));
    }

    /// @notice Pays the request's HOLD out, once it has cooled.
    function withdraw(uint256 id) external {
        Request memory request = _takeRequest(id);
        require(block.timestamp >= request.readyAt, StillCooling(id, request.readyAt, block.timestamp));
        emit Withdrawn(id, msg.sender, request.amount);
        HOLD.safeTransfer(msg.sender, request.amount);
    }

    // --- rewards ---

    /// @notice Pays out what the caller has earned.
    function claim() external returns (uint256 amount) {
        amount = _takeReward();
        emit Claimed(msg.sender, amount, false);
        HOLD.mint(msg.sender, amount);
    }

    /// @notice Stakes what the caller has earned.
    function claimAndStake() external returns (uint256 amount) {
        amount = _takeReward();
        _mint(msg.sender, amount);
        emit Claimed(msg.sender, amount, true);
        emit Staked(msg.sender, msg.sender, amount, balanceOf(msg.sender));
        HOLD.mint(address(this), amount);
    }

    /// @notice What `owner` can claim now. The treasury's part of what locked sHOLD earns is in the treasury's.
    function claimable(address owner) external view returns (uint256 amount) {
        (uint256 index,) = _indexNow();
        amount = _rewards[owner].owed + _earned(owner, index);
        if (owner == treasury) amount += _treasuryEarned(index);
    }

    // --- mint and burn ---

    /// @notice Mints the most DIEM that `amountToLock` of unlocked sHOLD pays for, and locks exactly what that costs.
    function mint(uint256 amountToLock, uint256 minDiemOut) external returns (uint256 diemOut) {
        diemOut = quoteMint(amountToLock);
        require(diemOut >= minDiemOut, TooLittleDiem(diemOut, minDiemOut));
        _mintDiem(diemOut, quoteLock(diemOut));
    }

    /// @notice Mints `diemOut`, locking at most `maxToLock` of unlocked sHOLD.
    function mintExact(uint256 diemOut, uint256 maxToLock) external returns (uint256 cost) {
        cost = quoteLock(diemOut);
        require(cost <= maxToLock, TooMuchLocked(cost, maxToLock));
        _mintDiem(diemOut, cost);
    }

    /// @notice Burns the caller's DIEM, whoever minted it, and unlocks pro rata of the caller's own position.
    function burn(uint256 diemAmount, uint256 minUnlocked) external returns (uint256 unlocked) {
        require(diemAmount > 0, ZeroAmount());
        unlocked = quoteBurn(msg.sender, diemAmount);
        require(unlocked >= minUnlocked, TooLittleUnlocked(unlocked, minUnlocked));
        _settle(msg.sender);
        Position storage position = _positions[msg.sender];
        position.redeemable -= unlocked + 1;
        position.outstanding -= diemAmount;
        position.locked -= unlocked;
        totalLocked -= unlocked;
        uint256 supply = DIEM.totalSupply() - diemAmount;
        emit Burned(msg.sender, diemAmount, unlocked, position.locked, position.outstanding, supply);
        DIEM.burn(msg.sender, diemAmount);
    }

    /// @notice DIEM that locking `amountToLock` pays for now, whether operators have committed so much or not.
    function quoteMint(uint256 amountToLock) public view returns (uint256 diemOut) {
        uint256 supply = DIEM.totalSupply();
        return _curve.supplyFor(_curve.cost(supply) + amountToLock) - supply;
    }

    /// @notice sHOLD that minting `diemOut` locks now: C(supply + diemOut) − C(supply).
    function quoteLock(uint256 diemOut) public view returns (uint256 cost) {
        uint256 supply = DIEM.totalSupply();
        require(supply + diemOut <= totalCommitted, BeyondCommitted(supply + diemOut, totalCommitted));
        return _curve.cost(supply + diemOut) - _curve.cost(supply);
    }

    /// @notice sHOLD that burning `diemAmount` unlocks for `owner`. One wei stays, so that Σ locked ≥ C(supply) is exact.
    function quoteBurn(address owner, uint256 diemAmount) public view returns (uint256 unlocked) {
        Position storage position = _positions[owner];
        require(diemAmount <= position.outstanding, BurnBeyondPosition(owner, diemAmount, position.outstanding));
        if (diemAmount == 0) return 0;
        return Math.mulDiv(position.redeemable, diemAmount, position.outstanding) - 1;
    }

    // --- parameters ---

    /// @notice Sets what an operator has promised to serve, up or down. Below the supply of DIEM nothing can be minted.
    function setCommitted(address operator, uint256 amount) external onlyTimelock {
        uint256 old = committedOf[operator];
        uint256 total = totalCommitted - old + amount;
        require(amount <= old || total <= _curve.end(), CurveBelow(_curve.end(), total));
        committedOf[operator] = amount;
        totalCommitted = total;
        emit CommittedChanged(operator, old, amount, total);
    }

    /// @notice Replaces the curve. What is locked stays as it is; coming mints pay the new rates.
    function setCurve(Curve.Point[] calldata points) external onlyTimelock {
        uint256[] memory old = _curve;
        _curve.replace(points);
        uint256 least = Math.max(totalCommitted, DIEM.totalSupply());
        require(_curve.end() >= least, CurveBelow(_curve.end(), least));
        emit CurveChanged(old, _curve);
    }

    /// @notice Sets what all stakes together earn in a second; what they earned so far was at the old rate.
    function setEmission(uint80 perSecond) external onlyTimelock {
        require(perSecond <= EMISSION_CEILING, AboveCeiling(perSecond, EMISSION_CEILING));
        _settleAll();
        emit EmissionChanged(emissionPerSecond, perSecond);
        emissionPerSecond = perSecond;
    }

    /// @notice Changes who gets the treasury's part from now on; what was earned so far stays the old one's to claim.
    function setTreasury(address newTreasury) external onlyTimelock {
        _settleAll();
        _setTreasury(newTreasury);
    }

    // --- views ---

    /// @notice sHOLD that `owner` can unstake or lock.
    function unlockedOf(address owner) public view returns (uint256) {
        return balanceOf(owner) - _positions[owner].locked;
    }

    function positionOf(address owner) external view returns (uint256 locked, uint256 outstanding) {
        return (_positions[owner].locked, _positions[owner].outstanding);
    }

    /// @notice Zero for a request that is cancelled, withdrawn, or was never made.
    function requestOf(uint256 id) external view returns (address owner, uint256 amount, uint256 readyAt) {
        Request storage request = _requests[id];
        return (request.owner, request.amount, request.readyAt);
    }

    /// @notice C(supply), in wei of HOLD.
    function costOf(uint256 supply) external view returns (uint256) {
        return _curve.cost(supply);
    }

    /// @notice The curve's points, one word each: supply (80 bits), rate (80), cost up to there (96).
    function curve() external view returns (uint256[] memory words) {
        return _curve;
    }

    // --- shares ---

    /// @dev Every change of a stake passes here. sHOLD goes to nobody else, and what is locked stays.
    function _update(address from, address to, uint256 amount) internal override {
        _settle(from == address(0) ? to : from);
        if (from != address(0)) {
            require(to == address(0), NotTransferable(from, to, amount));
            require(amount <= unlockedOf(from), NotUnlocked(from, amount, unlockedOf(from)));
        }
        super._update(from, to, amount);
    }

    function _mintDiem(uint256 diemOut, uint256 cost) private {
        require(diemOut > 0, ZeroAmount());
        require(cost <= unlockedOf(msg.sender), NotUnlocked(msg.sender, cost, unlockedOf(msg.sender)));
        _settle(msg.sender);
        Position storage position = _positions[msg.sender];
        position.locked += cost;
        position.redeemable += cost - 1;
        position.outstanding += diemOut;
        totalLocked += cost;
        uint256 supply = DIEM.totalSupply() + diemOut;
        emit Minted(msg.sender, diemOut, cost, position.locked, position.outstanding, supply);
        DIEM.mint(msg.sender, diemOut);
    }

    function _takeRequest(uint256 id) private returns (Request memory request) {
        request = _requests[id];
        require(request.owner != address(0), UnknownRequest(id));
        require(request.owner == msg.sender, NotOwnRequest(id, request.owner, msg.sender));
        delete _requests[id];
    }

    // --- reward accounting ---

    /// @dev Brings the index to now, and the treasury's part with it. Must run before supply, locks, emission or treasury change.
    function _settleAll() private {
        (uint256 index, uint256 emitted) = _indexNow();
        _rewards[treasury].owed += _treasuryEarned(index);
        totalEmitted += uint128(emitted); // below 2^128: 80 bits of emission times 48 of seconds
        (_index, _settledAt) = (index, uint48(block.timestamp));
    }

    /// @dev Must run before the balance or the lock of `owner` changes.
    function _settle(address owner) private {
        _settleAll();
        Reward storage reward = _rewards[owner];
        reward.owed += _earned(owner, _index);
        reward.index = _index;
    }

    function _takeReward() private returns (uint256 amount) {
        _settle(msg.sender);
        amount = _rewards[msg.sender].owed;
        require(amount > 0, NothingToClaim(msg.sender));
        _rewards[msg.sender].owed = 0;
    }

    function _setTreasury(address newTreasury) private {
        require(newTreasury != address(0), ZeroAddress());
        emit TreasuryChanged(treasury, newTreasury);
        treasury = newTreasury;
    }

    /// @dev Seconds without any stake pass without emission.
    function _indexNow() private view returns (uint256 index, uint256 emitted) {
        uint256 shares = totalSupply();
        if (shares == 0) return (_index, 0);
        emitted = uint256(emissionPerSecond) * (block.timestamp - _settledAt);
        index = _index + Math.mulDiv(emitted, SCALE, shares);
    }

    /// @dev Rounded down. Unlocked shares earn five fifths, locked ones four.
    function _earned(address owner, uint256 index) private view returns (uint256) {
        uint256 fifths = 5 * balanceOf(owner) - (5 - LOCKED_FIFTHS) * _positions[owner].locked;
        return Math.mulDiv(index - _rewards[owner].index, fifths, 5 * SCALE);
    }

    /// @dev Rounded down: the fifth that locked shares don't get, since the last change.
    function _treasuryEarned(uint256 index) private view returns (uint256) {
        return Math.mulDiv(index - _index, (5 - LOCKED_FIFTHS) * totalLocked, 5 * SCALE);
    }
}
