// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice UTC days and months, both counted from 1970-01: day 0 is 1970-01-01, month 0 is January 1970.
/// @dev The Gregorian calendar as an integer sum over years that begin in March, so that a leap day is a year's last.
library Months {
    /// @dev Days from 0000-03-01 to 1970-01-01.
    uint256 private constant EPOCH = 719_468;
    uint256 private constant ERA = 146_097; // days in 400 years

    /// @dev The month that `day` is in.
    function ofDay(uint256 day) internal pure returns (uint256 month) {
        uint256 z = day + EPOCH;
        uint256 dayOfEra = z % ERA;
        uint256 yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365;
        uint256 dayOfYear = dayOfEra - _daysBefore(yearOfEra);
        uint256 monthFromMarch = (5 * dayOfYear + 2) / 153;
        return 12 * (400 * (z / ERA) + yearOfEra) + monthFromMarch + 2 - 12 * 1970;
    }

    /// @dev The first day of `month`.
    function firstDay(uint256 month) internal pure returns (uint256 day) {
        uint256 fromMarch = month + 12 * 1970 - 2;
        uint256 year = fromMarch / 12;
        return ERA * (year / 400) + _daysBefore(year % 400) + (153 * (fromMarch % 12) + 2) / 5 - EPOCH;
    }

    /// @dev Year and month as text, such as "2026-12". Years up to 9999.
    function label(uint256 month) internal pure returns (string memory) {
        bytes memory text = "0000-00";
        (uint256 year, uint256 ofYear) = (1970 + month / 12, month % 12 + 1);
        for (uint256 i = 4; i > 0; year /= 10) text[--i] = bytes1(uint8(48 + year % 10));
        (text[5], text[6]) = (bytes1(uint8(48 + ofYear / 10)), bytes1(uint8(48 + ofYear % 10)));
        return string(text);
    }

    /// @dev Days of an era's years before `year`, which counts from 0 and begins in March.
    function _daysBefore(uint256 year) private pure returns (uint256) {
        return 365 * year + year / 4 - year / 100;
    }
}
