"""Judge every artifact of a bundle, while it is made or long after."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tome_export.bundle import Bundle
from tome_export.errors import BundleError, ParityError, RequestError
from tome_export.manifest import Manifest
from tome_export.parity.following import Follower, OnnxFollower, RuntimeReference
from tome_export.parity.inputs import Inputs
from tome_export.parity.judge import final_groups, judge
from tome_export.parity.limits import limits
from tome_export.parity.recipe import check_recipe
from tome_export.parity.result import Finding, ParityResult
from tome_export.parity.samples import image_files, is_natural, make_sample, sample_names
from tome_export.runtimes import RUNTIMES, artifact_of, check_name
from tome_export.steps import Steps

BATCH_SIZES = (1, 3)
REFERENCES = ("dygraph", "paddle", "onnx")
_SAMPLES = 10

Pair = tuple[str, str]
"""A runtime and a precision."""


@dataclass(frozen=True)
class Verification:
    """What is to be said about a bundle.

    against: the reference. findings: what is wrong with the bundle as a whole. groups: for `picture`, one
    of the inputs, who merged what: "dygraph" or "RUNTIME PRECISION" -> int32 [tokens], the final group of
    each token.
    """

    bundle: Bundle
    against: str
    inputs: tuple[str, ...]
    findings: tuple[Finding, ...]
    results: tuple[ParityResult, ...]
    picture: str | None
    groups: dict[str, np.ndarray]

    @property
    def passed(self) -> bool:
        return not self.findings and all(result.passed for result in self.results)

    def to_json(self) -> str:
        """All of it but the pictures, for a program to read."""
        fields = {
            "bundle": str(self.bundle.path),
            "against": self.against,
            "passed": self.passed,
            "inputs": self.inputs,
            "findings": [asdict(finding) for finding in self.findings],
            "results": [asdict(result) for result in self.results],
        }
        return json.dumps(fields, indent=2)

    def require(self) -> None:
        """Raises ParityError that names the first thing wrong with the bundle and with each runtime."""
        wrong = [in_words(finding) for finding in self.findings]
        wrong += [describe(result) for result in self.results if not result.passed]
        if wrong:
            raise ParityError("; ".join(wrong))


def verify_bundle(
    folder: Path,
    *,
    against: str | None = None,
    weights: str | None = None,
    images: Path | None = None,
    samples: int = _SAMPLES,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    runtimes: Sequence[str] | None = None,
    device: str = "cpu",
    steps: Steps | None = None,
    rebuild: Callable[[Manifest, str | None], Follower] | None = None,
) -> Verification:
    """Prove a finished bundle again: hashes, then every artifact against a reference.

    against: "dygraph" builds the Python model again, from its seed or from `weights`, the file that the
    bundle was made of; "paddle" or "onnx" takes that artifact's word. None: dygraph where it can be built,
    else onnx. images: a folder of pictures to use instead of `samples` synthetic inputs. batch_sizes: 1 is
    always among them. runtimes: what to judge, see `pairs_of`. device: of what is judged. rebuild:
    `tome_export.parity.rebuild.rebuild`, where there may be a Python model.

    Raises RequestError, BundleError for changed files, and what opening a runtime raises; what is wrong with
    the artifacts is in what it returns.
    """
    steps = steps or Steps()
    bundle = Bundle.open(folder)
    if against not in (None, *REFERENCES):
        raise RequestError(f"no reference {against!r}; choose one of {', '.join(REFERENCES)}")
    if any(size < 1 for size in batch_sizes):
        raise RequestError(f"a batch holds at least one image, not {min(batch_sizes)}")
    names = sample_names(samples) if images is None else image_files(images)
    if not bundle.manifest.artifacts:
        raise BundleError(f"{folder}: its manifest names no model; export it again")
    pairs = pairs_of(bundle, runtimes)
    with steps("hashes"):
        bundle.verify_hashes()
    reference, followers, pairs = _reference(bundle, against, weights, rebuild, steps, pairs)
    try:
        return judge_all(
            bundle,
            names,
            reference,
            followers=followers,
            pairs=pairs,
            batch_sizes=batch_sizes,
            device=device,
            steps=steps,
        )
    finally:
        for model in (reference, *followers.values()):
            model.close()


def judge_all(
    bundle: Bundle,
    names: Sequence[str],
    reference: Follower,
    *,
    followers: dict[str, Follower] | None = None,
    pairs: Sequence[Pair] | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    device: str = "cpu",
    steps: Steps | None = None,
) -> Verification:
    """Every artifact (or these runtimes) on these inputs, one after the other; see `judge` for the rest.

    names: for `make_sample`.
    """
    steps = steps or Steps()
    inputs = Inputs(names, lambda name: make_sample(name, bundle.manifest.preprocess))
    picture = next(filter(is_natural, names), None)
    drawn, results = {}, []
    for runtime, precision in pairs_of(bundle) if pairs is None else pairs:
        title = f"{runtime} {precision}"

        def watch(name, run, title=title):
            if name == picture:
                drawn[title] = final_groups(run, bundle.manifest)

        with steps(title):
            results.append(
                judge(
                    runtime,
                    bundle,
                    inputs,
                    reference,
                    precision=precision,
                    batch_sizes=batch_sizes,
                    device=device,
                    follower=(followers or {}).get(title),
                    watch=watch,
                )
            )
    if picture is not None:
        drawn = {reference.name: final_groups(inputs.free(picture, reference), bundle.manifest)} | drawn
    drawn = {who: its for who, its in drawn.items() if its is not None}
    return Verification(
        bundle, reference.name, tuple(names), check_recipe(bundle.manifest), tuple(results), picture, drawn
    )


def pairs_of(bundle: Bundle, runtimes: Sequence[str] | None = None) -> tuple[Pair, ...]:
    """What is to be judged. runtimes: "NAME" stands for every artifact that the runtime reads,
    "NAME:PRECISION" for one; None: every artifact, on the runtime of its format's name.

    Raises RequestError for a runtime there is not, BundleError for what the bundle does not hold.
    """
    artifacts = bundle.manifest.artifacts
    if runtimes is None:
        return tuple((artifact.format, artifact.precision) for artifact in artifacts)
    pairs = []
    for name, colon, precision in (asked.partition(":") for asked in runtimes):
        engine = RUNTIMES[check_name(name)]
        there = [artifact.precision for artifact in artifacts if artifact.format == engine.reads]
        there = [each for each in there if each not in engine.cannot]
        for each in [precision] if colon else there or ["fp32"]:
            artifact_of(name, bundle, each)
            limits(each, bundle.manifest.model.depth)
            pairs.append((name, each))
    return tuple(dict.fromkeys(pairs))


def _reference(
    bundle: Bundle, against: str | None, weights: str | None, rebuild, steps: Steps, pairs: Sequence[Pair]
) -> tuple[Follower, dict[str, Follower], Sequence[Pair]]:
    """The reference, what can follow it where it cannot follow, and what is to be judged."""
    manifest = bundle.manifest
    formats = [artifact.format for artifact in manifest.artifacts if artifact.precision == "fp32"]
    if against is None:
        possible = rebuild is not None and (weights is not None or manifest.weights.seed is not None)
        against = "dygraph" if possible else "onnx" if "onnx" in formats else formats[0]
    if against == "dygraph":
        if rebuild is None:
            raise RequestError("there is no Python model here to compare with; choose paddle or onnx")
        with steps("model"):
            return rebuild(manifest, weights), {}, pairs
    if weights is not None:
        raise RequestError("--weights builds the Python model again; it goes with --against dygraph")
    bundle.artifact(against)
    others = [pair for pair in pairs if pair != (against, "fp32")]
    if against == "onnx":
        return OnnxFollower(bundle), {}, others
    for runtime, precision in others:
        if runtime != "onnx":
            raise RequestError(
                f"{runtime} {precision} cannot be told what to merge, and neither can its reference; "
                "use --against dygraph or onnx"
            )
    followers = {f"onnx {precision}": OnnxFollower(bundle, precision) for _, precision in others}
    return RuntimeReference(against, bundle), followers, others


def describe(result: ParityResult) -> str:
    """A failed result in words."""
    more = len(result.findings) - 1
    also = f" (and {more} more)" if more else ""
    return f"{result.runtime} against {result.against}: {in_words(result.findings[0])}{also}"


def in_words(finding: Finding) -> str:
    """ "block 3, attention: differs by 2.1e-02 ... (on photo:0)"."""
    place = finding.part if finding.block is None else f"block {finding.block}, {finding.part}"
    return f"{place}: {finding.what}" + (f" (on {finding.input})" if finding.input else "")
