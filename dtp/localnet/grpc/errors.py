"""What goes back to a caller whose request can't be served: gRPC statuses, with words that say why."""

from __future__ import annotations

from dtp.errors import ChainError


class GrpcFailure(ChainError):
    """A request that is answered with a status other than OK. `status` is gRPC's name of it."""

    code = "grpc"
    status = "INTERNAL"


class BadRequest(GrpcFailure):
    """The request is malformed, or asks for what there is not; `field` names the part."""

    code = "bad-request"
    status = "INVALID_ARGUMENT"

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field and not message.startswith(field) else message)
        self.field = field


class Missing(GrpcFailure):
    """There is no such object, transaction, checkpoint, package or coin."""

    code = "missing"
    status = "NOT_FOUND"


class Unsupported(GrpcFailure):
    """A part of `sui.rpc.v2` that this node doesn't have; the message names it."""

    code = "unsupported"
    status = "UNIMPLEMENTED"


class TooSlow(GrpcFailure):
    """A subscriber doesn't read what it asked for."""

    code = "too-slow"
    status = "RESOURCE_EXHAUSTED"
