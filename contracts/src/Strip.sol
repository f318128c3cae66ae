// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {Months} from "./Months.sol";

interface IHasDiem {
    function DIEM() external view returns (ERC20);
}

/// @notice The token of one series: the strip of a month (1 USD of inference on each of its days), or its principal (1 DIEM
/// after its end). A plain ERC-20 with 18 decimals; each series is a clone with its month in its code.
contract Strip is ERC20 {
    /// @notice The only minter and burner, for good: the contract that created the series.
    address public immutable STRIPS;

    error NotStrips(address caller);

    constructor() ERC20("", "") {
        STRIPS = msg.sender;
    }

    modifier onlyStrips() {
        require(msg.sender == STRIPS, NotStrips(msg.sender));
        _;
    }

    function mint(address to, uint256 amount) external onlyStrips {
        _mint(to, amount);
    }

    function burn(address from, uint256 amount) external onlyStrips {
        _burn(from, amount);
    }

    /// @notice Months since 1970-01, and whether this is the principal.
    function series() public view returns (uint256 month, bool isPrincipal) {
        bytes memory args = Clones.fetchCloneArgs(address(this));
        return (uint32(bytes4(args)), args[4] != 0);
    }

    /// @notice Such as "DIEM strip 2026-12" or "DIEM principal 2026-12".
    function name() public view override returns (string memory) {
        (uint256 month, bool isPrincipal) = series();
        return string.concat(_diem(), isPrincipal ? " principal " : " strip ", Months.label(month));
    }

    /// @notice Such as "DIEM-2026-12" or "pDIEM-2026-12".
    function symbol() public view override returns (string memory) {
        (uint256 month, bool isPrincipal) = series();
        return string.concat(isPrincipal ? "p" : "", _diem(), "-", Months.label(month));
    }

    function _diem() private view returns (string memory) {
        return IHasDiem(STRIPS).DIEM().symbol();
    }
}
