"""Clients that ask a server the same few things over and over and know the right answers.

Each has a connection of its own and is used in one thread. An answer that is not the bundle's own is a
`Wrong`."""

from __future__ import annotations

import http.client
import io
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tome_export.bundle import Bundle
from tome_export.parity.limits import limits
from tome_export.runtimes import open_runtime

PROTOCOLS = ("http", "grpc", "jpeg")


class Wrong(Exception):
    """An answer that came, and is not right."""


class Refused(Exception):
    """The server said in its own words that it does not answer now: 503, UNAVAILABLE, or nobody listens."""


@dataclass(frozen=True)
class Questions:
    """images: float32 `[n, 3, H, W]`; jpegs: the same pictures as files; logits: float32 `[n, classes]`, what
    the bundle answers in this process; allowed: how far an answer may be off, of the logits' range."""

    model: str
    images: np.ndarray
    jpegs: tuple[bytes, ...]
    logits: np.ndarray
    allowed: float

    def check(self, index: int, logits: np.ndarray) -> None:
        """Raises Wrong."""
        expected = self.logits[index]
        if logits.shape != (1, len(expected)):
            raise Wrong(f"logits of shape {logits.shape}")
        off = np.abs(logits[0] - expected).max() / np.ptp(self.logits)
        if not off <= self.allowed:
            raise Wrong(f"logits are off by {off:.1e} of their range, {self.allowed:.1e} allowed")

    def check_classes(self, index: int, classes: list[dict]) -> None:
        """Raises Wrong unless each class has its probability, within what the logits may be off by."""
        exponential = np.exp(self.logits[index].astype(np.float64) - self.logits[index].max())
        probability = exponential / exponential.sum()
        off = max(abs(entry["probability"] - probability[entry["class"]]) for entry in classes)
        if not off <= max(1e-5, self.allowed * np.ptp(self.logits)):
            raise Wrong(f"probabilities are off by {off:.1e}")


def questions(folder: Path, runtime: str, precision: str, threads: int, pictures: list) -> Questions:
    """pictures: PIL images; they become JPEGs first, so that tensors and files ask the same."""
    from PIL import Image

    bundle = Bundle.open(folder)
    files = []
    for picture in pictures:
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    images = bundle.manifest.preprocess.apply([Image.open(io.BytesIO(file)) for file in files])
    with open_runtime(runtime, bundle, precision=precision, threads=threads) as opened:
        logits = np.concatenate([opened.run(image[None])["logits"] for image in images])
    model = bundle.manifest.model
    return Questions(model.name, images, tuple(files), logits, limits(precision, model.depth).logits)


def photographs(side: int = 480) -> list:
    """Nine parts of three real photographs, which scikit-learn and matplotlib bring."""
    import matplotlib
    from PIL import Image
    from sklearn.datasets import load_sample_image

    hopper = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    photos = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    photos.append(Image.open(hopper).convert("RGB"))
    corners = [(left / 2, top / 2) for left, top in ((0, 0), (1, 0), (1, 1))]
    return [
        photo.crop(
            (round(photo.width * x / 2), round(photo.height * y / 2), photo.width, photo.height)
        ).resize((side, side * 3 // 4))
        for photo in photos
        for x, y in corners
    ]


class Client(ABC):
    """One connection. `ask(index)` raises Wrong, Refused, or whatever went wrong on the way."""

    def __init__(self, questions: Questions, port: int):
        self._questions, self._port = questions, port

    @abstractmethod
    def ask(self, index: int) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


class TensorOverHttp(Client):
    """tritonclient.http: a tensor in, logits out, both as bytes."""

    def __init__(self, questions: Questions, port: int):
        super().__init__(questions, port)
        import tritonclient.http as library

        self._library = library
        self._client = library.InferenceServerClient(
            f"127.0.0.1:{port}", connection_timeout=90, network_timeout=90
        )
        self._asked = _inputs(library, questions.images)
        self._wanted = [library.InferRequestedOutput("logits", binary_data=True)]

    def ask(self, index: int) -> None:
        try:
            answer = self._client.infer(
                self._questions.model, [self._asked[index]], outputs=self._wanted, request_id=str(index)
            )
        except self._library.InferenceServerException as error:
            raise (Refused(str(error)) if str(error.status()) == "503" else error) from None
        except ConnectionRefusedError as error:
            raise Refused(str(error)) from None
        self._questions.check(index, answer.as_numpy("logits"))

    def close(self) -> None:
        self._client.close()


class TensorOverGrpc(Client):
    """tritonclient.grpc."""

    def __init__(self, questions: Questions, port: int):
        super().__init__(questions, port)
        import tritonclient.grpc as library

        self._library = library
        # Channels of one process to one address share a connection unless they differ in an option.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        self._client = library.InferenceServerClient(f"127.0.0.1:{port}", channel_args=options)
        self._asked = _inputs(library, questions.images)
        self._wanted = [library.InferRequestedOutput("logits")]

    def ask(self, index: int) -> None:
        try:
            answer = self._client.infer(
                self._questions.model,
                [self._asked[index]],
                outputs=self._wanted,
                request_id=str(index),
                client_timeout=90,
            )
        except self._library.InferenceServerException as error:
            raise (Refused(str(error)) if "UNAVAILABLE" in str(error.status()) else error) from None
        self._questions.check(index, answer.as_numpy("logits"))

    def close(self) -> None:
        self._client.close()


class PictureOverHttp(Client):
    """POST /predict: the bytes of a JPEG in, classes out."""

    def __init__(self, questions: Questions, port: int):
        super().__init__(questions, port)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)

    def ask(self, index: int) -> None:
        try:
            self._connection.request(
                "POST", "/predict", self._questions.jpegs[index], {"Content-Type": "image/jpeg"}
            )
        except ConnectionRefusedError as error:
            self._connection.close()
            raise Refused(str(error)) from None
        try:
            answer = self._connection.getresponse()
            status, body = answer.status, answer.read()
        except Exception:
            self._connection.close()
            raise
        if status == 503:
            raise Refused(body.decode("utf-8", "replace"))
        if status != 200:
            raise RuntimeError(f"{status} {body[:200]!r}")
        self._questions.check_classes(index, json.loads(body)["classes"])

    def close(self) -> None:
        self._connection.close()


def open_client(protocol: str, questions: Questions, http_port: int, grpc_port: int) -> Client:
    """protocol: of PROTOCOLS."""
    kind = {"http": TensorOverHttp, "grpc": TensorOverGrpc, "jpeg": PictureOverHttp}[protocol]
    return kind(questions, grpc_port if protocol == "grpc" else http_port)


def _inputs(library, images: np.ndarray) -> list:
    made = []
    for image in images:
        tensor = library.InferInput("image", [1, *image.shape], "FP32")
        tensor.set_data_from_numpy(image[None])
        made.append(tensor)
    return made
