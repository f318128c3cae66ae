"""Members of an account, by the command line."""

from tests.cli.conftest import Server

HOLDER = "0x000000000000000000000000000000000000dEaD"


def test_members_are_added_changed_listed_and_removed(server: Server) -> None:
    server.json("login", "--from", "carol")
    try:
        added = server.json("members", "add", HOLDER, "--name", "Sam")
        assert (added["role"], added["address"], added["name"]) == ("member", HOLDER, "Sam")
        assert server.json("members", "add", HOLDER, "--role", "viewer")["role"] == "viewer"
        listed = server.json("members", "list")["data"]
        assert [row["role"] for row in listed] == ["owner", "viewer"]
        assert "Sam" in server.run("members", "list").stdout
        left = server.json("members", "remove", "sam")["data"]
        assert [row["role"] for row in left] == ["owner"]
        assert "is no member of this account" in server.refused("members", "remove", "Sam")
        assert "keeps at least one owner" in server.refused("members", "remove", str(left[0]["user_id"]))
    finally:
        server.json("logout", "--from", "carol")


def test_an_account_of_the_operators_has_no_members(server: Server) -> None:
    assert "Nobody has a part" in server.run("members", "list").stdout


def test_who_never_signed_in_is_told_so_by_logout(server: Server) -> None:
    assert server.refused("logout").startswith(f"You are not signed in at {server.url}")
    assert "dave is not signed in" in server.refused("logout", "--from", "dave")
