"""Why a receipt doesn't verify. Each is a sentence of its own."""

from freehold.problems import Problem


class ReceiptBroken(Problem):
    """The receipt can't be read: {reason}."""

    code = "receipt_broken"


class OtherChain(Problem):
    """The receipt is for chain {theirs}, and {file} pins chain {ours}: it proves nothing here."""

    code = "receipt_of_another_chain"


class OtherBook(Problem):
    """The receipt is for the book {theirs}, and {file} pins {ours}: it proves nothing here."""

    code = "receipt_of_another_book"


class OtherOperator(Problem):
    """The receipt is of operator {theirs}, and {file} pins {ours}: it proves nothing here."""

    code = "receipt_of_another_operator"


class NodeOfAnotherChain(Problem):
    """The node at {node} is on chain {theirs}, and {file} pins chain {ours}: give another --rpc."""

    code = "node_of_another_chain"


class BookOfAnother(Problem):
    """The contract {book} on the chain is not the book of operator {operator}: it says {theirs}."""

    code = "book_of_another_operator"


class Altered(Problem):
    """The receipt was changed: what it says hashes to {ours}, and it states {theirs}."""

    code = "receipt_altered"


class WronglySigned(Problem):
    """The receipt is not signed by operator {operator}: its signature is {theirs}, and the chain names {signer} as signer."""

    code = "receipt_not_signed"


class Unsigned(Problem):
    """The receipt carries no signature, so nobody answers for it."""

    code = "receipt_unsigned"


class NotClosed(Problem):
    """The receipt is signed, but carries no proof, because {day} wasn't closed when it was fetched: fetch it again after that day's end."""

    code = "day_not_closed"


class NotPublished(Problem):
    """The receipt is signed, but {day} isn't published on the chain: its root can't be compared."""

    code = "day_not_published"


class ForgedRoot(Problem):
    """The receipt states the root {theirs}, and the chain has {ours} for {day}."""

    code = "root_forged"


class NotInRoot(Problem):
    """The receipt's proof doesn't lead to its root: it comes to {ours}, and the root is {theirs}."""

    code = "receipt_not_in_root"


class Unproven(Problem):
    """The contract {book} doesn't find the receipt among those of {day}."""

    code = "receipt_not_in_book"


class BillDoesNotSum(Problem):
    """The receipts don't sum to the bill: {reason}."""

    code = "bill_does_not_sum"
