"""Paths and methods of HTTP -> what a service does. Starlette's requests in, its responses out."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import Response

from tome_export.predict import Prediction
from tome_export.serving import models, protocol
from tome_export.serving.refusal import Refusal, malformed
from tome_export.serving.service import Service

BODY = "tome_export.body"
"""Where the guard puts the body that it has read, in the scope: it then travels with the request."""
_MODEL = re.compile(r"/v2/models/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?(?P<what>/infer|/ready)?")
_PICTURES = ("image/", "application/octet-stream", "application/x-www-form-urlencoded", "binary/")
_JSON = "application/json"


def error_response(refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
    """The protocol's form of an error."""
    return json_response({"error": refusal.message}, refusal.status, headers)


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(protocol.to_json(value), status, headers, media_type=_JSON)


async def answer(service: Service, request: Request, version: str, max_body: int) -> Response:
    """The response to a request. max_body: bytes, also after decompression. Raises Refusal."""
    path = request.url.path.rstrip("/") or "/"
    if path == "/predict":
        _allow(request, "POST")
        return await _predict(service, request, max_body)
    if path in ("/v2", "/v2/health/live", "/v2/health/ready"):
        _allow(request, "GET")
        return json_response(server_metadata(version)) if path == "/v2" else Response()
    match = _MODEL.fullmatch(path)
    if match is None:
        raise Refusal(404, f"no such path: {path[:100]}")
    model = models.find(service.models, match["name"], match["version"] or "")
    if match["what"] == "/infer":
        _allow(request, "POST")
        return await _infer(service, model, request, max_body)
    _allow(request, "GET")
    return Response() if match["what"] else json_response(model.metadata())


def server_metadata(version: str) -> dict[str, Any]:
    return {"name": "tome-export", "version": version, "extensions": ["binary_tensor_data"]}


def _allow(request: Request, method: str) -> None:
    if request.method != method and not (method == "GET" and request.method == "HEAD"):
        raise Refusal(405, f"{request.method[:20]} is not for {request.url.path[:100]}; use {method}")


async def _infer(service: Service, model: models.Model, request: Request, max_body: int) -> Response:
    body = await _body(request, max_body)
    length = request.headers.get(protocol.HEADER_LENGTH)
    asked = await service.aside(protocol.read_request, model, body, length)
    outputs = await service.infer(asked)
    found = protocol.write_answer(asked, outputs)
    if found.json_length is None:
        return Response(found.body, media_type=_JSON)
    headers = {protocol.HEADER_LENGTH: str(found.json_length)}
    return Response(found.body, headers=headers, media_type="application/octet-stream")


async def _predict(service: Service, request: Request, max_body: int) -> Response:
    kind = request.headers.get("content-type", "application/octet-stream").lower()
    body = await _body(request, max_body)
    if kind.startswith("multipart/form-data"):
        names, contents = await _parts(request, body, service.options.max_batch)
        found = await service.classify(contents, names)
        pictures = [
            {"file": name, "classes": _shown(classes)} for name, classes in zip(names, found, strict=True)
        ]
        return json_response({"model": service.options.name, "pictures": pictures})
    if not kind.startswith(_PICTURES):
        raise Refusal(
            415, f"a body of type {kind[:60]!r}; send the bytes of a picture, or multipart/form-data"
        )
    (classes,) = await service.classify([body], ["the picture"])
    return json_response({"model": service.options.name, "classes": _shown(classes)})


def _shown(classes: list[Prediction]) -> list[dict[str, Any]]:
    return [
        {"label": each.label, "class": each.index, "probability": round(each.probability, 6)}
        for each in classes
    ]


async def _parts(request: Request, body: bytes, most: int) -> tuple[list[str], list[bytes]]:
    """Names and contents of the files in a multipart body."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        async with Request(request.scope, receive).form(max_files=most, max_fields=16) as form:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            contents = [await each.read() for each in files]
            names = [(each.filename or f"picture {index + 1}")[:100] for index, each in enumerate(files)]
    except (MultiPartException, ValueError, KeyError) as error:  # ValueError: bad UTF-8 in a name
        raise malformed(f"the multipart body cannot be read ({getattr(error, 'message', error)})") from None
    except Exception as error:
        if type(error).__name__ != "HTTPException":  # Starlette's own wrapping, inside an application
            raise
        raise malformed(f"the multipart body cannot be read ({error.detail})") from None
    if not contents:
        raise malformed("the multipart body holds no file; curl: -F picture=@photo.jpg")
    return names, contents


async def _body(request: Request, most: int) -> bytes:
    """The whole body, decompressed. Raises Refusal: 413 beyond `most` bytes, 415 for an unknown encoding."""
    body = request.scope.get(BODY)
    if body is None:  # no guard in front
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise too_large(most)
            parts.append(part)
        body = b"".join(parts)
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        return body
    if encoding not in ("gzip", "deflate"):
        raise Refusal(415, f"content-encoding {encoding[:40]!r}; there is gzip, deflate and identity")
    return _inflate(body, most)


def too_large(most: int) -> Refusal:
    return Refusal(413, f"the body is larger than the {most >> 20} MiB that this server takes")


def _inflate(body: bytes, most: int) -> bytes:
    """gzip or zlib, which tell themselves apart; never more than `most` bytes are made."""
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        found = stream.decompress(body, most + 1)
    except zlib.error as error:
        raise malformed(f"the body cannot be decompressed ({error})") from None
    if len(found) > most:
        raise too_large(most)
    if not stream.eof:
        raise malformed("the compressed body is cut short")
    return found
