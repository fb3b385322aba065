"""What is asked of a server, checked before anything starts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from tome_export import served
from tome_export.errors import RequestError

_AUTOSCALE = re.compile(r"(\d{1,4}):(\d{1,4})")


@dataclass(frozen=True)
class Limits:
    """What a request may cost. `body_mb`: MiB of a body or message. `body_seconds`: for a body to arrive.
    `answer_seconds`: from there to the answer. `requests`: at once, in all, on a machine; the next one is
    told to come back. `drain_seconds`: for what is under way when the server is told to stop. Raises
    RequestError."""

    body_mb: int = 32
    body_seconds: float = 20.0
    answer_seconds: float = 60.0
    requests: int = 256
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        if not 1 <= self.body_mb <= 1024:
            raise RequestError(f"--max-body-mb should be 1 to 1024, not {self.body_mb}")
        if not 1 <= self.requests <= 100_000:
            raise RequestError(f"--max-requests should be 1 to 100000, not {self.requests}")
        for option in ("body", "answer", "drain"):
            seconds = getattr(self, f"{option}_seconds")
            if not 0 < seconds <= 3600:
                raise RequestError(f"--{option}-timeout should be above 0 and at most 3600 seconds")

    @property
    def body_bytes(self) -> int:
        return self.body_mb << 20


@dataclass(frozen=True)
class ModelOptions:
    """What a replica runs, and how. Raises RequestError for values that make no sense.

    bundle: its folder, which every machine that runs a replica must have under this path. name: of the tensor
    model; NAME_jpeg takes picture files. runtime: of `tome_export.runtimes.RUNTIMES`. threads: CPU threads of
    a replica, which reserves as many of Ray's CPUs. max_batch: images in a run. max_delay_ms: how long a
    request may wait for others to join. top: classes in an answer about a picture. max_megapixels: of a
    picture, in millions.
    """

    bundle: str
    name: str
    runtime: str
    precision: str = "fp32"
    device: str = "cpu"
    threads: int = 1
    max_batch: int = 16
    max_delay_ms: float = 5.0
    top: int = 5
    max_megapixels: int = 40

    def __post_init__(self) -> None:
        for message in self._wrong():
            raise RequestError(message)

    def _wrong(self) -> Iterator[str]:
        yield from served.wrong(self.name, self.max_batch)
        if not 0 <= self.max_delay_ms <= 10_000:
            yield f"--max-delay-ms should be 0 to 10000 milliseconds, not {self.max_delay_ms:g}"
        if not 1 <= self.max_megapixels <= 178:
            yield f"--max-megapixels should be 1 to 178, not {self.max_megapixels}"
        for option in ("threads", "top"):
            if getattr(self, option) < 1:
                yield f"--{option} should be at least 1, not {getattr(self, option)}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelOptions:
        """Of a configuration file's `args`. Raises RequestError."""
        unknown = values.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise RequestError(f"no such option: {', '.join(sorted(unknown))}")
        try:
            return cls(**values)
        except TypeError as error:
            raise RequestError(f"the options of the model are wrong: {error}") from None


@dataclass(frozen=True)
class Scale:
    """How many replicas: `least` to `most`, the same for a fixed number. Raises RequestError."""

    least: int = 1
    most: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise RequestError(f"{self.least}:{self.most} is no range of replicas, such as 1:4")

    @property
    def fixed(self) -> bool:
        return self.least == self.most

    @classmethod
    def parse(cls, replicas: int | None, autoscale: str | None) -> Scale:
        """Of --replicas and --autoscale, of which one may be given. Raises RequestError."""
        if replicas is not None and autoscale is not None:
            raise RequestError("--replicas and --autoscale contradict one another; give one")
        if autoscale is None:
            replicas = 1 if replicas is None else replicas
            if replicas < 1:
                raise RequestError(f"--replicas should be at least 1, not {replicas}")
            return cls(replicas, replicas)
        match = _AUTOSCALE.fullmatch(autoscale)
        if match is None:
            raise RequestError(f"--autoscale {autoscale!r} is not MIN:MAX, such as 1:4")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return str(self.least) if self.fixed else f"{self.least} to {self.most}"


@dataclass(frozen=True)
class Listen:
    """Where: `host` for both ports. Raises RequestError."""

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int = 8001

    def __post_init__(self) -> None:
        for option, port in (("port", self.port), ("grpc-port", self.grpc_port)):
            if not 1 <= port <= 65535:
                raise RequestError(f"--{option} should be 1 to 65535, not {port}")
        if self.port == self.grpc_port:
            raise RequestError(f"--port and --grpc-port are both {self.port}; they need to differ")


def divided_threads(cores: int, scale: Scale) -> int:
    """CPU threads of each replica when all share `cores`."""
    return max(1, cores // scale.most)
