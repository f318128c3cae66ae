// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CapacityVault} from "src/CapacityVault.sol";
import {Diem} from "src/Diem.sol";
import {Staking} from "src/Staking.sol";
import {Strip} from "src/Strip.sol";
import {Strips} from "src/Strips.sol";

interface Vm {
    function assume(bool condition) external pure;
    function warp(uint256 timestamp) external;
}

/// @notice Stands where Staking does: it creates DIEM and mints it.
contract Mint {
    Diem public immutable DIEM = new Diem("Diem", "DIEM");

    function mint(address to, uint256 amount) external {
        DIEM.mint(to, amount);
    }

    function committedOf(address) external pure returns (uint256) {
        return type(uint256).max;
    }
}

/// @notice For every amount, and with every number of months: what a split gives a merge takes back, nothing is left and
/// nothing is made. Halmos runs each `check_` function with all values of its arguments at once.
contract StripsProof {
    Vm private constant VM = Vm(0x7109709ECfa91a80626fF3989D68f67F5b1DD12D);
    address private constant OTHER = address(0xB0B);
    /// 2027-12-31 12:00 UTC: a month's last day, with a leap day among the months that follow.
    uint256 private constant NOW = 1_830_254_400;
    uint256 private constant MONTH = 695; // December 2027

    Mint private mintage;
    Diem private diem;
    Strips private strips;

    function setUp() public {
        VM.warp(NOW);
        mintage = new Mint();
        diem = mintage.DIEM();
        strips = new Strips(Staking(address(mintage)));
        diem.approve(address(strips), type(uint256).max);
        (uint256 first, uint256 last) = strips.months();
        assert(first == MONTH && last == MONTH + 35);
    }

    // The proof is the vault, too.
    function operatorOf(address) external pure returns (string memory url, address receiptSigner) {
        return ("", address(1));
    }

    function stakedTo(address) external pure returns (uint256) {
        return 0;
    }

    function check_splitAndMergeOfOneMonth(uint256 had, uint256 amount, uint256 merged) external {
        _splitAndMerge(0, had, amount, merged);
    }

    function check_splitAndMergeOfTwoMonths(uint256 had, uint256 amount, uint256 merged) external {
        _splitAndMerge(1, had, amount, merged);
    }

    function check_splitAndMergeOfThreeMonths(uint256 had, uint256 amount, uint256 merged) external {
        _splitAndMerge(2, had, amount, merged);
    }

    function check_splitAndMergeOfThirtySixMonths(uint256 had, uint256 amount, uint256 merged) external {
        _splitAndMerge(35, had, amount, merged);
    }

    /// @notice After its month a principal is paid out whole, and not a second before.
    function check_redeemPaysOneToOneAfterTheMonth(uint256 amount, uint256 redeemed) external {
        _split(1, amount, amount);
        VM.assume(redeemed > 0 && redeemed <= amount);
        VM.warp(strips.endOf(MONTH + 1) - 1);
        assert(!_tries(abi.encodeCall(strips.redeem, (MONTH + 1, redeemed, OTHER))));
        VM.warp(strips.endOf(MONTH + 1));
        strips.redeem(MONTH + 1, redeemed, OTHER);
        assert(diem.balanceOf(OTHER) == redeemed);
        assert(diem.balanceOf(address(strips)) == _supply(MONTH + 1, true));
        assert(!_tries(abi.encodeCall(strips.redeem, (MONTH + 1, amount - redeemed + 1, OTHER))));
    }

    /// @notice Strips and activated of each month are the principals of that month and later, whatever part is activated.
    function check_activatedCountsWithStrips(uint256 amount, uint256 part) external {
        _split(1, amount, amount);
        VM.assume(part > 0 && part <= amount && amount < 2 ** 200);
        strips.activate(MONTH + 1, part, address(1), OTHER);
        assert(_supply(MONTH + 1, false) + strips.activatedOf(MONTH + 1) == _supply(MONTH + 1, true));
        assert(_supply(MONTH, false) + strips.activatedOf(MONTH) == _supply(MONTH + 1, true));
        assert(!_tries(abi.encodeCall(strips.merge, (MONTH + 1, amount, OTHER))));
        strips.activate(MONTH, part, address(1), OTHER);
        assert(_supply(MONTH, false) + strips.activatedOf(MONTH) == _supply(MONTH + 1, true));
        assert(diem.balanceOf(address(strips)) == amount);
    }

    function _splitAndMerge(uint256 ahead, uint256 had, uint256 amount, uint256 merged) private {
        _split(ahead, had, amount);
        uint256 month = MONTH + ahead;
        assert(diem.balanceOf(address(this)) == had - amount);
        for (uint256 m = MONTH; m <= month; ++m) assert(_balance(m, false) == amount && _supply(m, false) == amount);
        assert(_balance(month, true) == amount && diem.balanceOf(address(strips)) == amount);

        VM.assume(merged > 0);
        bool done = _tries(abi.encodeCall(strips.merge, (month, merged, OTHER)));
        assert(done == (merged <= amount));
        uint256 left = done ? amount - merged : amount;
        for (uint256 m = MONTH; m <= month; ++m) assert(_balance(m, false) == left && _supply(m, false) == left);
        assert(_balance(month, true) == left && _supply(month, true) == left);
        assert(diem.balanceOf(address(strips)) == left && diem.balanceOf(OTHER) == amount - left);
        assert(diem.totalSupply() == had);
    }

    function _split(uint256 ahead, uint256 had, uint256 amount) private {
        VM.assume(amount > 0 && amount <= had);
        mintage.mint(address(this), had);
        strips.split(MONTH + ahead, amount, address(this));
    }

    function _tries(bytes memory call) private returns (bool done) {
        (done,) = address(strips).call(call);
    }

    function _balance(uint256 month, bool isPrincipal) private view returns (uint256) {
        return _token(month, isPrincipal).balanceOf(address(this));
    }

    function _supply(uint256 month, bool isPrincipal) private view returns (uint256) {
        return _token(month, isPrincipal).totalSupply();
    }

    function _token(uint256 month, bool isPrincipal) private view returns (Strip) {
        (address strip, address principal) = strips.seriesOf(month);
        return Strip(isPrincipal ? principal : strip);
    }
}
