"""What can go wrong between this program and the chain, each with what to do about it.

Three questions decide the class: did anything reach the chain (`TransactionFailed` did, and cost gas), is it known
whether it did (`OutcomeUnknown` isn't), and may trying again help (`NodeUnavailable` may).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from dtp.errors import ChainError, ConfigError, LocalError

if TYPE_CHECKING:
    from dtp.chain.model import Executed

__all__ = [
    "MALFORMED",
    "ForeignPackage",
    "GasTooHigh",
    "HistoryPruned",
    "InsufficientFunds",
    "KeystoreError",
    "MalformedObject",
    "MoveAborted",
    "NetworkError",
    "NodeRefused",
    "NodeUnavailable",
    "NotFound",
    "ObjectMissing",
    "OutcomeUnknown",
    "PackageNotPublished",
    "ProgramError",
    "SignerError",
    "StaleObject",
    "TransactionFailed",
    "TransactionRefused",
    "UnknownMethod",
    "WrongNetwork",
    "WrongObjectType",
]


# ------------------------------------------------------------------------------------------ this program's fault


class NetworkError(ConfigError):
    """A network's name or URL can't be used."""

    code = "network"


class ProgramError(LocalError):
    """A transaction can't be built: an argument of a wrong type or size, a result of another program, a limit."""

    code = "program"


class SignerError(LocalError):
    """A signer can't sign: no key for the address, or an external command that failed."""

    code = "signer"


class KeystoreError(SignerError):
    """A file of keys can't be read or written."""

    code = "keystore"


class PackageNotPublished(LocalError):
    """A Move package isn't known on this network; publish it, or tell its id."""

    code = "package-not-published"


# ------------------------------------------------------------------------------------------------- the chain's


class NodeUnavailable(ChainError):
    """No endpoint of the network answered in time. Nothing was signed or sent that could count; try again."""

    code = "node-unavailable"


class ClientClosed(ChainError):
    """The client was closed, maybe while it was asked. `connect` opens it again."""

    code = "client-closed"


#: The `status` of `NodeRefused` when the node did answer, with what is not an answer.
MALFORMED = "MALFORMED"


class NodeRefused(ChainError):
    """A node answered that it won't: the request was malformed for it, or not allowed.

    `status` is gRPC's name of why, or `MALFORMED` for an answer that can't be read.
    """

    code = "node-refused"

    def __init__(self, message: str, status: str = "") -> None:
        super().__init__(message)
        self.status = status


class UnknownMethod(NodeRefused):
    """The node doesn't know this method of `sui.rpc.v2`."""

    code = "unknown-method"


class NotFound(NodeRefused):
    """The node knows no such object, transaction, checkpoint or coin."""

    code = "not-found"


class WrongNetwork(ChainError):
    """The node serves another chain than the network's name stands for."""

    code = "wrong-network"


class ObjectMissing(NotFound):
    """There is no such object: never was, was deleted, or is wrapped in another."""

    code = "object-missing"


class WrongObjectType(ChainError):
    """An object is there, but of another type."""

    code = "wrong-object-type"


class ForeignPackage(ChainError):
    """A package is there, but isn't the one that ships with this dtp."""

    code = "foreign-package"


class MalformedObject(ChainError):
    """An object or event has the right type and its bytes don't fit: it is of another version of the package."""

    code = "malformed-object"


class HistoryPruned(ChainError):
    """The node has thrown away the history that was to be read; ask an archive node, or start from now."""

    code = "history-pruned"


class InsufficientFunds(ChainError):
    """The account can't pay for the gas, or for what the transaction spends. `digest` as of `TransactionRefused`.

    `missing` is how much SUI it lacks (MIST), 0 where that isn't known.
    """

    code = "insufficient-funds"
    digest: str = ""
    missing: int = 0


class GasTooHigh(ChainError):
    """The gas of a transaction would be above what was agreed to (`GasAllowance`): it was not signed.

    `needed` is what all transactions would come to at most, `most` what they may (MIST); or, where the node's price
    of a unit is the reason, that price and the highest one.
    """

    code = "gas-too-high"

    def __init__(self, message: str, *, needed: int, most: int) -> None:
        super().__init__(message)
        self.needed, self.most = needed, most


class TransactionRefused(NodeRefused):
    """A node would not execute the transaction; it cost nothing and changed nothing.

    `digest` is empty when nothing was signed. Else it names what was signed, and that it wasn't executed is the
    node's word: look for it at another one before you pay once more.
    """

    code = "transaction-refused"
    digest: str = ""


class StaleObject(TransactionRefused):
    """An object was used at a version that is gone, or is in use by another transaction; build it anew."""

    code = "stale-object"


class OutcomeUnknown(ChainError):
    """It isn't known whether the transaction was executed: every answer was lost.

    `digest` names it: `ChainClient.wait_for(digest)` finds out, and `ChainClient.resubmit(error)` sends the identical
    bytes again, which is safe at any time. A new transaction over the same objects may be refused until then.
    """

    code = "outcome-unknown"

    def __init__(
        self, message: str, *, digest: str, transaction: bytes, signatures: tuple[bytes, ...]
    ) -> None:
        super().__init__(message)
        self.digest = digest
        self.transaction = transaction
        self.signatures = signatures


@dataclass(frozen=True)
class AbortPlace:
    """Where a Move program aborted. `package` is an id; `instruction` an offset in the function's bytecode."""

    package: str
    module: str
    function: str
    instruction: int


class TransactionFailed(ChainError):
    """The transaction ran and failed: everything but the gas is as it was.

    `kind` is the protocol's name of the failure (`MOVE_ABORT`, `INSUFFICIENT_GAS`, ...), `command` the index of the
    command. `executed` tells what it cost; it is None when the failure was found by simulation, which costs nothing.
    """

    code = "transaction-failed"

    def __init__(
        self, message: str, *, kind: str, command: int | None = None, executed: Executed | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.command = command
        self.executed = executed

    @property
    def simulated(self) -> bool:
        """True when nothing was sent."""
        return self.executed is None


class MoveAborted(TransactionFailed):
    """A Move function refused. `name` is the constant in the Move source (`ENotServer`; empty for a bare number).

    `error` is the member of the package's generated enum (`ChannelError.NOT_SERVER`) when the package is ours,
    `number` the N of `#[error(code = N)]` (or the bare number), `raw` the u64 as the chain reports it.
    """

    code = "move-abort"

    def __init__(
        self,
        message: str,
        *,
        place: AbortPlace,
        raw: int,
        number: int | None,
        name: str = "",
        error: IntEnum | None = None,
        command: int | None = None,
        executed: Executed | None = None,
    ) -> None:
        super().__init__(message, kind="MOVE_ABORT", command=command, executed=executed)
        self.place = place
        self.raw = raw
        self.number = number
        self.name = name
        self.error = error


def was_signed(fault: BaseException) -> bool:
    """Return whether a fault of a transaction came behind its signature: that nothing happened is then a node's
    word."""
    match fault:
        case OutcomeUnknown():
            return True
        case TransactionFailed():
            return not fault.simulated
        case TransactionRefused() | InsufficientFunds():
            return bool(fault.digest)
    return False
