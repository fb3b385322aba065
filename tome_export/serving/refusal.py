"""A request that is answered with an error: one exception, its HTTP status and its gRPC code."""

from __future__ import annotations

_CODES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


FAILED = "the server failed at this request"
"""Said of a fault of ours, by whom the guard of gRPC tells it from the loss of a replica."""


class Refusal(Exception):
    """`status`: of HTTP. The message is one line for the client and names nothing of the server's inside."""

    def __init__(self, status: int, message: str):
        super().__init__(status, message)  # both, so that it survives pickling
        self.status, self.message = status, message

    def __str__(self) -> str:
        return self.message

    @property
    def code(self) -> str:
        """Name of the gRPC status."""
        return _CODES.get(self.status, "INTERNAL")


def malformed(message: str) -> Refusal:
    """400."""
    return Refusal(400, message)
