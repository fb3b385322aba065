"""What runs in the processes that listen, which are Ray's own: the guard, in front of HTTP and of gRPC.

Ray's proxy calls `middlewares` because RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names it, and
`add_services` because the options of gRPC do. What they need to know comes in the environment (`Settings`).
Without the environment, as in a cluster that was started without it, Ray's proxy works as it is and replicas
check what they get by themselves.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from tome_export.serving.grpc_messages import load_messages
from tome_export.serving.guard import LOST, Gate, Guard
from tome_export.serving.options import Limits
from tome_export.serving.refusal import FAILED, Refusal

CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
GRPC_BYTES = "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE"
SETTINGS = "TOME_EXPORT_PROXY"
ANSWERED = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
_HEADROOM = 1 << 16  # of a message, beside its tensors


@dataclass(frozen=True)
class Settings:
    """host: to listen on for gRPC. secret: see Guard."""

    limits: Limits = field(default_factory=Limits)
    host: str = "127.0.0.1"
    secret: str = ""

    def environment(self) -> dict[str, str]:
        """The variables that a proxy needs."""
        return {
            CALLBACK: f"{__name__}:middlewares",
            GRPC_BYTES: str(self.limits.body_bytes + _HEADROOM),
            SETTINGS: json.dumps(asdict(self)),
        }

    @classmethod
    def read(cls) -> Settings:
        """Of this process's environment; what is not there is as it is by default."""
        values = json.loads(os.environ.get(SETTINGS, "{}"))
        return cls(**(values | {"limits": Limits(**values.get("limits", {}))}))


_gate: Gate | None = None


def middlewares() -> list[Any]:
    """For Ray's HTTP proxy."""
    from starlette.middleware import Middleware

    from tome_export.serving.metrics import exported

    settings = Settings.read()
    gate = _shared_gate(settings)
    _listen_on(settings.host)
    _remember_http_server(gate)
    return [Middleware(Guard, gate=gate, secret=settings.secret, metrics=exported)]


def add_services(servicer: Any, server: Any) -> None:
    """For Ray's gRPC proxy: the protocol's methods, as far as there are any, behind the same gate.

    server: Ray's, which makes every handler by its `service_handler_factory`.
    """
    load_messages()
    from tritonclient.grpc.service_pb2_grpc import add_GRPCInferenceServiceServicer_to_server

    plain = server.service_handler_factory
    if SETTINGS in os.environ:
        server.service_handler_factory = _guarded(plain, _shared_gate(Settings.read()))
    try:
        add_GRPCInferenceServiceServicer_to_server(servicer, server)
    finally:
        server.service_handler_factory = plain


def _shared_gate(settings: Settings) -> Gate:
    global _gate
    if _gate is None:
        _gate = Gate(settings.limits)
    return _gate


def _guarded(plain: Callable[..., Any], gate: Gate) -> Callable[..., Any]:
    def factory(service_method: str, streaming_type: Any) -> Any:
        asked = plain(service_method=service_method, streaming_type=streaming_type)
        name = service_method.rpartition("/")[2]
        if name not in ANSWERED:
            return _not_answered(name)

        async def unary(request: Any, context: Any) -> Any:
            import grpc

            if name == "ServerLive":
                return load_messages().ServerLiveResponse(live=True).SerializeToString()
            try:
                if name.endswith("Ready"):
                    if gate.draining:
                        raise Refusal(503, "the server is shutting down")
                    return await asked(request, context)
                with gate.pass_through():
                    deadline = time.monotonic() + gate.limits.answer_seconds
                    for _ in range(2):
                        answer = await asyncio.wait_for(asked(request, context), deadline - time.monotonic())
                        if context.code() != grpc.StatusCode.INTERNAL or context.details() == FAILED:
                            return answer
                        context.set_code(grpc.StatusCode.OK)  # Ray's INTERNAL is a lost replica: see Guard
                        context.set_details("")
                    raise Refusal(503, LOST)
            except asyncio.TimeoutError:
                refusal = Refusal(504, f"no answer within {gate.limits.answer_seconds:g} seconds")
            except Refusal as caught:
                refusal = caught
            context.set_code(getattr(grpc.StatusCode, refusal.code))
            context.set_details(refusal.message)
            return b""

        return unary

    return factory


def _not_answered(name: str) -> Any:
    async def refuse(request: Any, context: Any) -> None:
        import grpc

        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} is not supported")

    return refuse


def _listen_on(host: str) -> None:
    """Ray's gRPC proxy listens on all interfaces and has no option for another. Raises RuntimeError, which
    keeps the proxy from starting, if a version of Ray has no such function any more."""
    from ray.serve._private import default_impl, grpc_util

    add = getattr(default_impl, "add_grpc_address", None)
    if add is None or not hasattr(grpc_util, "gRPCGenericServer"):
        raise RuntimeError("this version of Ray Serve is not known: gRPC would listen on all interfaces")
    shown = f"[{host}]" if ":" in host else host

    def add_address(server: Any, address: str) -> None:
        add(server, f"{shown}:{address.rpartition(':')[2]}")

    default_impl.add_grpc_address = add_address


def _remember_http_server(gate: Gate) -> None:
    """So that it can be told to stop listening. Connections stay, and what comes over them is turned away."""
    import uvicorn

    serve = uvicorn.Server.serve

    async def remembered(self: Any, *arguments: Any, **named: Any) -> None:
        gate.closers.append(lambda: [each.close() for each in self.servers])
        await serve(self, *arguments, **named)

    uvicorn.Server.serve = remembered
