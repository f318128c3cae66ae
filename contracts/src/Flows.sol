// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";

/// @notice An amount a day, by the first day that it holds from, and what single days grant on top.
library Flows {
    using SafeCast for uint256;
    using Checkpoints for Checkpoints.Trace208;

    struct Flow {
        Checkpoints.Trace208 full;
        mapping(uint256 day => uint256) extra;
    }

    /// @dev What `day` grants.
    function on(Flow storage self, uint256 day) internal view returns (uint256) {
        return self.full.upperLookupRecent(day.toUint48()) + self.extra[day];
    }

    /// @dev What each day from the newest change on grants, but for extras.
    function latest(Flow storage self) internal view returns (uint256) {
        return self.full.latest();
    }

    /// @dev From `day` on, which is never before that of an earlier change.
    function add(Flow storage self, uint256 day, uint256 amount) internal {
        self.full.push(day.toUint48(), (self.full.latest() + amount).toUint208());
    }

    /// @dev From `day` on, which is never before that of an earlier change.
    function subtract(Flow storage self, uint256 day, uint256 amount) internal {
        self.full.push(day.toUint48(), (self.full.latest() - amount).toUint208());
    }
}
