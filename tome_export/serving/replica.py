"""The one deployment: a bundle's model, asked over HTTP and gRPC. One process of Ray's for each replica."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

from tome_export.serving import http, models
from tome_export.serving.grpc_messages import load_messages, read_request, write_answer
from tome_export.serving.metrics import Metrics
from tome_export.serving.options import ModelOptions
from tome_export.serving.refusal import FAILED, Refusal
from tome_export.serving.service import Service


class Replica:
    """Methods named as the protocol's gRPC service names them; `__call__` is HTTP.

    options: of ModelOptions. max_body: bytes, of an HTTP body. Raises what Service does.
    """

    def __init__(self, options: dict[str, Any], max_body: int):
        chosen = ModelOptions.from_dict(options)
        self._messages = load_messages()
        self._metrics = Metrics(chosen.name)
        self._service = Service(chosen, self._ran)
        self._max_body = max_body
        self._version = version("tome-export")

    def check_health(self) -> None:
        """Ray asks from time to time, and replaces a replica that raises."""
        self._service.check()

    def __del__(self) -> None:
        if hasattr(self, "_service"):
            self._service.close()

    async def __call__(self, request: Any) -> Any:
        start = time.perf_counter()
        try:
            response = await http.answer(self._service, request, self._version, self._max_body)
        except Refusal as refusal:
            response = http.error_response(refusal)
        except asyncio.CancelledError:
            self._metrics.answered("http", "gone", time.perf_counter() - start)
            raise
        except Exception as error:
            response = http.error_response(_failed(error))
        if not request.url.path.startswith("/v2/health"):
            self._metrics.answered("http", str(response.status_code), time.perf_counter() - start)
        return response

    async def ServerLive(self, request: Any) -> Any:  # noqa: N802
        return self._messages.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any) -> Any:  # noqa: N802
        return self._messages.ServerReadyResponse(ready=True)

    async def ModelReady(self, request: Any) -> Any:  # noqa: N802
        there = request.name in self._service.models and request.version in ("", models.VERSION)
        return self._messages.ModelReadyResponse(ready=there)

    async def ServerMetadata(self, request: Any) -> Any:  # noqa: N802
        return self._messages.ServerMetadataResponse(**http.server_metadata(self._version))

    async def ModelMetadata(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        async def metadata() -> Any:
            model = models.find(self._service.models, request.name, request.version)
            return self._messages.ModelMetadataResponse(**model.metadata())

        return await self._over_grpc(grpc_context, metadata)

    async def ModelInfer(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        async def infer() -> Any:
            model = models.find(self._service.models, request.model_name, request.model_version)
            asked = read_request(model, request)
            return write_answer(self._messages, asked, await self._service.infer(asked))

        return await self._over_grpc(grpc_context, infer)

    async def _over_grpc(self, context: Any, work: Callable[[], Awaitable[Any]]) -> Any:
        """The work's message. What it raises becomes the context's status, and is raised so that Ray heeds
        it."""
        import grpc

        start = time.perf_counter()
        status = "OK"
        try:
            return await work()
        except asyncio.CancelledError:
            status = "CANCELLED"
            raise
        except Exception as error:
            refusal = error if isinstance(error, Refusal) else _failed(error)
            status = refusal.code
            context.set_code(getattr(grpc.StatusCode, status))
            context.set_details(refusal.message)
            raise refusal from None
        finally:
            self._metrics.answered("grpc", status, time.perf_counter() - start)

    def _ran(self, rows: int, seconds: float) -> None:
        self._metrics.ran(rows, seconds)
        self._metrics.waiting(len(self._service.batcher))


def _failed(error: Exception) -> Refusal:
    """What the client is told of a fault of ours; Ray's log has the rest."""
    import logging

    logging.getLogger("ray.serve").exception("a request failed", exc_info=error)
    return Refusal(500, FAILED)
