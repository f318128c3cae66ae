// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {TickMath} from "vendor/TickMath.sol";

/// @notice The part of a Uniswap v3 pool that is used here.
interface IUniswapV3Pool {
    function token0() external view returns (address);
    function token1() external view returns (address);
    function observe(uint32[] calldata secondsAgos)
        external
        view
        returns (int56[] memory tickCumulatives, uint160[] memory secondsPerLiquidityCumulativeX128s);
}

/// @notice Morpho's oracle of one Uniswap v3 pool: what the base token was worth in the quote token over the last half hour,
/// as the geometric mean. No limit on moves: clamping makes bad debt, and reverting blocks liquidations in a crash.
contract TwapOracle {
    /// @notice Seconds that the mean is over.
    uint32 public constant WINDOW = 30 minutes;

    IUniswapV3Pool public immutable POOL;
    address public immutable BASE;
    address public immutable QUOTE;
    bool private immutable BASE_IS_TOKEN0;

    error NotInPool(address base, address quote, address token0, address token1);
    error HistoryTooShort(uint256 window);

    constructor(IUniswapV3Pool pool, address base, address quote) {
        (address token0, address token1) = (pool.token0(), pool.token1());
        bool baseFirst = base == token0;
        require(
            (baseFirst && quote == token1) || (base == token1 && quote == token0),
            NotInPool(base, quote, token0, token1)
        );
        (POOL, BASE, QUOTE, BASE_IS_TOKEN0) = (pool, base, quote, baseFirst);
    }

    /// @notice What 10^36 base units of the base token are worth, in base units of the quote token: for 18 decimals against
    /// 6, a price of 183 is 183 · 10^24. Rounded down from a whole tick, so within a basis point.
    function price() external view returns (uint256) {
        uint256 root = TickMath.getSqrtPriceAtTick(meanTick());
        // root² is the price of token0 in token1, times 2^192; above 2^128 it is reckoned with 64 digits less.
        (uint256 square, uint256 one) =
            root <= type(uint128).max ? (root * root, 1 << 192) : (Math.mulDiv(root, root, 1 << 64), 1 << 128);
        return BASE_IS_TOKEN0 ? Math.mulDiv(1e36, square, one) : Math.mulDiv(1e36, one, square);
    }

    /// @notice The mean tick of the window, rounded to −∞. Reverts when the pool's observations don't reach back so far.
    function meanTick() public view returns (int24 tick) {
        uint32[] memory ago = new uint32[](2);
        ago[0] = WINDOW;
        try POOL.observe(ago) returns (int56[] memory cumulatives, uint160[] memory) {
            int56 moved = cumulatives[1] - cumulatives[0];
            int56 window = int56(uint56(WINDOW));
            tick = int24(moved / window);
            if (moved < 0 && moved % window != 0) --tick;
        } catch {
            revert HistoryTooShort(WINDOW);
        }
    }
}
