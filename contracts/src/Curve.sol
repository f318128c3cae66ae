// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @notice The mint rate as a table: straight lines between at most 256 points. A point is one word: supply (80 bits, wei
/// of DIEM), rate at that supply (80 bits, wei of HOLD for 1 DIEM), and what all DIEM up to there cost (96 bits, wei of HOLD).
/// @dev Every segment costs a whole number of wei, so `cost` is the exact integral, rounded up once. Widths: a product of
/// two supplies and a rate has at most 240 bits, and the scaled root 254.
library Curve {
    struct Point {
        uint80 supply;
        uint80 rate;
    }

    uint256 internal constant MAX_POINTS = 256;
    /// @dev 2 HOLD for 1 DIEM: from there on, no rounding is as large as what a wei of DIEM costs.
    uint256 internal constant LEAST_RATE = 2e18;
    uint256 private constant DIEM = 1e18;
    /// @dev Extra binary digits of the root: with supplies below 2^80 and rates above 2^60 it's then off by 2^-107 of
    /// itself, and the inverse by 2^-27 wei.
    uint256 private constant SCALE = 47;

    error CurveLength(uint256 points, uint256 most);
    error CurveStart(uint256 supply, uint256 rate);
    error CurveSupplyNotRising(uint256 index, uint256 supply, uint256 previous);
    error CurveRateFalling(uint256 index, uint256 rate, uint256 previous);
    error CurveSegmentNotWhole(uint256 index, uint256 doubledCost);
    error CurveTooCostly(uint256 index, uint256 cost, uint256 most);
    error BeyondCurve(uint256 supply, uint256 last);
    error LockBeyondCurve(uint256 cost, uint256 last);

    /// @dev Replaces the table. Reverts unless it starts at 0 with the least rate or more, its supplies rise and its rates never fall.
    function replace(uint256[] storage self, Point[] calldata points) internal {
        require(points.length >= 2 && points.length <= MAX_POINTS, CurveLength(points.length, MAX_POINTS));
        require(points[0].supply == 0 && points[0].rate >= LEAST_RATE, CurveStart(points[0].supply, points[0].rate));
        while (self.length > 0) self.pop();
        self.push(_word(0, points[0].rate, 0));
        uint256 sum = 0;
        for (uint256 i = 1; i < points.length; ++i) {
            (uint256 supply, uint256 rate) = (points[i].supply, points[i].rate);
            (uint256 supply0, uint256 rate0) = (points[i - 1].supply, points[i - 1].rate);
            require(supply > supply0, CurveSupplyNotRising(i, supply, supply0));
            require(rate >= rate0, CurveRateFalling(i, rate, rate0));
            uint256 doubled = (rate0 + rate) * (supply - supply0);
            require(doubled % (2 * DIEM) == 0, CurveSegmentNotWhole(i, doubled));
            sum += doubled / (2 * DIEM);
            require(sum <= type(uint96).max, CurveTooCostly(i, sum, type(uint96).max));
            self.push(_word(supply, rate, sum));
        }
    }

    /// @dev The last supply of the table: 0 without one.
    function end(uint256[] storage self) internal view returns (uint256 supply) {
        if (self.length > 0) (supply,,) = _read(self, self.length - 1);
    }

    /// @dev C(supply): what minting DIEM from nothing up to `supply` costs, in wei of HOLD, rounded up.
    function cost(uint256[] storage self, uint256 supply) internal view returns (uint256) {
        require(supply <= end(self), BeyondCurve(supply, end(self)));
        if (supply == 0) return 0;
        (uint256 low, uint256 high) = (0, self.length - 1);
        while (high - low > 1) {
            uint256 middle = (low + high) / 2;
            (uint256 reached,,) = _read(self, middle);
            if (reached <= supply) low = middle;
            else high = middle;
        }
        return _costFrom(self, low, supply);
    }

    /// @dev The largest supply whose cost is at most `target`.
    function supplyFor(uint256[] storage self, uint256 target) internal view returns (uint256 supply) {
        require(self.length > 0, LockBeyondCurve(target, 0));
        (uint256 low, uint256 high) = (0, self.length - 1);
        (,, uint256 last) = _read(self, high);
        require(target <= last, LockBeyondCurve(target, last));
        while (high - low > 1) {
            uint256 middle = (low + high) / 2;
            (,, uint256 reached) = _read(self, middle);
            if (reached <= target) low = middle;
            else high = middle;
        }
        (uint256 supply0, uint256 rate0, uint256 cost0) = _read(self, low);
        (uint256 supply1, uint256 rate1,) = _read(self, low + 1);
        uint256 area = (target - cost0) * DIEM;
        // x = 2A / (r + √(r² + 2kA)), k being the slope: the root that has no difference of near numbers in it.
        uint256 square = rate0 * rate0 + 2 * (rate1 - rate0) * area / (supply1 - supply0);
        supply = supply0 + ((2 * area) << SCALE) / ((rate0 << SCALE) + Math.sqrt(square << (2 * SCALE)));
        // The slope's term and the root are rounded down, which can only make it too much, and by less than 1 wei.
        if (_costFrom(self, low, supply) > target) --supply;
    }

    function _costFrom(uint256[] storage self, uint256 index, uint256 supply) private view returns (uint256) {
        (uint256 supply0, uint256 rate0, uint256 cost0) = _read(self, index);
        (uint256 supply1, uint256 rate1,) = _read(self, index + 1);
        (uint256 x, uint256 width) = (supply - supply0, supply1 - supply0);
        return cost0 + Math.ceilDiv(2 * rate0 * x * width + (rate1 - rate0) * x * x, 2 * width * DIEM);
    }

    function _read(uint256[] storage self, uint256 index)
        private
        view
        returns (uint256 supply, uint256 rate, uint256 cost0)
    {
        uint256 word = self[index];
        return (word >> 176, uint80(word >> 96), uint96(word));
    }

    function _word(uint256 supply, uint256 rate, uint256 cost0) private pure returns (uint256) {
        return (supply << 176) | (rate << 96) | cost0;
    }
}
