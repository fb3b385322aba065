"""`manifest.json`: what an exported bundle says about itself.

The dataclasses below *are* the schema: field names are JSON keys, annotations are what `from_json` enforces.
Later versions may add fields, which this one skips, with defaults, which they use for this one's files. A
change that would make an old reader wrong raises `SCHEMA_VERSION`.
"""

from __future__ import annotations

import json
import platform as _platform
import re
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import PurePosixPath

from tome_export.errors import BundleError
from tome_export.parity.result import ParityResult
from tome_export.precision.result import PrecisionResult
from tome_export.preprocess import Preprocess
from tome_export.strict_json import bad, read, shown

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
_DTYPES = ("float32", "float16", "bfloat16", "int64", "int32", "uint8", "int8", "bool")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelInfo:
    """The architecture. `image_size` and `patch_size` in pixels."""

    name: str
    family: str
    image_size: int
    patch_size: int
    num_classes: int
    depth: int
    embed_dim: int
    num_heads: int


@dataclass(frozen=True)
class WeightsInfo:
    """Where the weights came from: a file (`sha256` of it, `layout` as recognised, `notes` on the loading), a
    random initialisation (`seed`), or a model object."""

    source: str
    sha256: str | None = None
    seed: int | None = None
    layout: str | None = None
    notes: tuple[str, ...] = ()
    reset_head: bool = False  # the file's classifier was replaced by a random one


@dataclass(frozen=True)
class Macs:
    """Multiply-adds per image: whole model, and per block, without merging (`base`) and with it (`tome`)."""

    base: int
    tome: int
    base_blocks: tuple[int, ...]
    tome_blocks: tuple[int, ...]


@dataclass(frozen=True)
class TomeInfo:
    """The merging schedule. `r`: tokens merged away per block, as applied; `tokens`: entering block 0, then
    leaving each block, so `depth + 1` counts."""

    r: tuple[int, ...]
    prop_attn: bool
    tokens: tuple[int, ...]
    macs: Macs


@dataclass(frozen=True)
class TensorInfo:
    """A graph input or output; -1 in `shape` is the batch."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Artifact:
    """One form of the model. `files` maps each file's path inside the bundle (with /) to its SHA-256, which
    may be "" until `BundleWriter.commit` fills it in. `opset` is for ONNX. `debug`: like `files`, what else
    it takes to run the variant that shows the tensors inside (`Bundle.taps`)."""

    format: str
    precision: str
    files: dict[str, str]
    opset: int | None = None
    debug: dict[str, str] = field(default_factory=dict)

    def file(self, suffix: str) -> str:
        """The one file whose name ends in `suffix`, such as ".onnx". Raises BundleError."""
        found = [path for path in self.files if path.endswith(suffix)]
        if len(found) != 1:
            raise BundleError(
                f"the {self.format} {self.precision} artifact lists {len(found)} files ending "
                f"in {suffix}, expected one; export the bundle again"
            )
        return found[0]


@dataclass(frozen=True)
class Versions:
    """What the bundle was made with; None for a package that was not there."""

    tome_export: str
    python: str
    platform: str
    paddle: str | None = None
    paddle2onnx: str | None = None
    onnx: str | None = None
    onnxruntime: str | None = None

    @classmethod
    def installed(cls) -> Versions:
        """The versions in this environment, read from package metadata: nothing is imported."""
        return cls(
            tome_export=installed_version("tome-export") or "unknown",
            python=_platform.python_version(),
            platform=_platform.platform(),
            paddle=installed_version("paddlepaddle", "paddlepaddle-gpu"),
            paddle2onnx=installed_version("paddle2onnx"),
            onnx=installed_version("onnx"),
            onnxruntime=installed_version("onnxruntime", "onnxruntime-gpu"),
        )


@dataclass(frozen=True)
class Manifest:
    """The whole file. Building one checks that its parts fit together. Raises BundleError."""

    model: ModelInfo
    weights: WeightsInfo
    tome: TomeInfo
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    preprocess: Preprocess
    artifacts: tuple[Artifact, ...]
    versions: Versions
    created: str
    labels: tuple[str, ...] | None = None
    parity: tuple[ParityResult, ...] = ()
    parity_samples: tuple[str, ...] = ()  # what parity was measured on: `tome_export.parity.samples`
    preset: str | None = None  # name of the published recipe that `preprocess` follows
    linted: tuple[str, ...] = ()  # targets that `tome_export.lint` found nothing red for, at the export
    precisions: tuple[PrecisionResult, ...] = ()  # how artifacts below fp32 were made and judged
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        _check(self)

    @property
    def special_tokens(self) -> int:
        """Class and distillation tokens, which come first."""
        return self.tome.tokens[0] - (self.model.image_size // self.model.patch_size) ** 2

    def to_json(self) -> str:
        """The file's text. Raises BundleError for a hash not filled in or a number JSON cannot hold."""
        _check_hashes(self)
        first = {"schema_version": self.schema_version}
        try:
            text = json.dumps(first | asdict(self), indent=2, ensure_ascii=False, allow_nan=False)
        except ValueError as error:
            raise BundleError(f"{MANIFEST_NAME}: a figure is not finite, which JSON cannot hold") from error
        return text + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read `to_json`'s text back. Raises BundleError, one line that names the field at fault."""
        try:
            data = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{MANIFEST_NAME} is not valid JSON ({error})") from None
        if not isinstance(data, dict):
            raise BundleError(f"{MANIFEST_NAME} should be a JSON object")
        version = read(int, data.get("schema_version"), "schema_version")
        if version > SCHEMA_VERSION:
            raise bad(
                "schema_version",
                f"is {version}, newer than this program reads ({SCHEMA_VERSION}); upgrade tome-export",
            )
        if version != SCHEMA_VERSION:
            raise bad("schema_version", f"is {version}, expected {SCHEMA_VERSION}")
        manifest = read(cls, data, "")
        _check_hashes(manifest)
        return manifest


def utc_now() -> str:
    """Now, for `Manifest.created`: ISO 8601, UTC, whole seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def installed_version(*distributions: str) -> str | None:
    """Version of the first of these distributions that is installed, else None."""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")


def _check(manifest: Manifest) -> None:
    """What types cannot say: lengths, ranges, and fields that must agree with one another."""
    for name, value in vars(manifest.model).items():
        if isinstance(value, int) and value < 1:
            raise bad(f"model.{name}", f"should be at least 1, not {value}")
    _check_tome(manifest.tome, manifest.model.depth)
    for where in ("inputs", "outputs"):
        _check_tensors(getattr(manifest, where), where)
    labels, classes = manifest.labels, manifest.model.num_classes
    if labels is not None and len(labels) != classes:
        raise bad("labels", f"should name {classes} classes, not {len(labels)}")
    if manifest.weights.sha256 is not None and not _SHA256.fullmatch(manifest.weights.sha256):
        raise bad("weights.sha256", "should be 64 lower-case hexadecimal digits or null")
    seen = set()
    for i, artifact in enumerate(manifest.artifacts):
        if (artifact.format, artifact.precision) in seen:
            raise bad(f"artifacts[{i}]", f"repeats {artifact.format} {artifact.precision}")
        seen.add((artifact.format, artifact.precision))
        for where in ("files", "debug"):
            for path in getattr(artifact, where):
                _check_relative(path, f"artifacts[{i}].{where}")
    try:
        created = datetime.fromisoformat(manifest.created.replace("Z", "+00:00"))
    except ValueError:
        created = None
    if created is None or created.utcoffset() is None or created.utcoffset().total_seconds() != 0:
        raise bad("created", f"should be an ISO 8601 time in UTC, not {shown(manifest.created)}")


def _check_tome(tome: TomeInfo, depth: int) -> None:
    lengths = {
        "r": (tome.r, depth),
        "tokens": (tome.tokens, depth + 1),
        "macs.base_blocks": (tome.macs.base_blocks, depth),
        "macs.tome_blocks": (tome.macs.tome_blocks, depth),
    }
    for name, (values, expected) in lengths.items():
        if len(values) != expected:
            raise bad(f"tome.{name}", f"should have {expected} entries, not {len(values)}")
        if any(value < 0 for value in values):
            raise bad(f"tome.{name}", "should hold no negative number")
    for block, merged in enumerate(tome.r):
        if tome.tokens[block + 1] != tome.tokens[block] - merged:
            raise bad(
                f"tome.tokens[{block + 1}]",
                f"is {tome.tokens[block + 1]}, but block {block} merges "
                f"{merged} of {tome.tokens[block]} tokens",
            )


def _check_tensors(tensors: tuple[TensorInfo, ...], where: str) -> None:
    if not tensors or len({tensor.name for tensor in tensors}) != len(tensors):
        raise bad(where, "should hold at least one tensor, each with a name of its own")
    for i, tensor in enumerate(tensors):
        if tensor.dtype not in _DTYPES:
            raise bad(f"{where}[{i}].dtype", f"is {tensor.dtype!r}, expected one of {', '.join(_DTYPES)}")
        if tensor.shape[:1] != (-1,) or any(size < 1 for size in tensor.shape[1:]):
            raise bad(f"{where}[{i}].shape", "should be -1 (the batch) and then positive sizes")


def _check_relative(path: str, where: str) -> None:
    """A bundle may come from a stranger: no path in it may lead out of its folder."""
    parts = PurePosixPath(path).parts
    wrong = not parts or path.startswith("/") or ".." in parts or "\\" in path or ":" in path or "\0" in path
    if wrong or path == MANIFEST_NAME or str(PurePosixPath(path)) != path:
        raise bad(where, f"holds {shown(path)}, which is not the path of a file inside the bundle")


def _check_hashes(manifest: Manifest) -> None:
    for i, artifact in enumerate(manifest.artifacts):
        if not artifact.files:
            raise bad(f"artifacts[{i}].files", "is empty")
        for path, digest in (artifact.files | artifact.debug).items():
            if not _SHA256.fullmatch(digest):
                raise bad(f"artifacts[{i}].files", f"holds no SHA-256 for {shown(path)}")
