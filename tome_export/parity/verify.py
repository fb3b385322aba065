"""Judge every artifact of a bundle, while it is made or long after."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tome_export.bundle import Bundle
from tome_export.errors import BundleError, ParityError, RequestError
from tome_export.manifest import Artifact, Manifest
from tome_export.parity.following import Follower, OnnxFollower, RuntimeReference
from tome_export.parity.inputs import Inputs
from tome_export.parity.judge import final_groups, judge
from tome_export.parity.recipe import check_recipe
from tome_export.parity.result import Finding, ParityResult
from tome_export.parity.samples import image_files, is_natural, make_sample, sample_names
from tome_export.steps import Steps

BATCH_SIZES = (1, 3)
REFERENCES = ("dygraph", "paddle", "onnx")
_SAMPLES = 10


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
    steps: Steps | None = None,
    rebuild: Callable[[Manifest, str | None], Follower] | None = None,
) -> Verification:
    """Prove a finished bundle again: hashes, then every artifact against a reference.

    against: "dygraph" builds the Python model again, from its seed or from `weights`, the file that the
    bundle was made of; "paddle" or "onnx" takes that artifact's word. None: dygraph where it can be built,
    else onnx. images: a folder of pictures to use instead of `samples` synthetic inputs. batch_sizes: 1 is
    always among them. rebuild: `tome_export.parity.rebuild.rebuild`, where there may be a Python model.

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
    with steps("hashes"):
        bundle.verify_hashes()
    reference, followers, artifacts = _reference(bundle, against, weights, rebuild, steps)
    try:
        return judge_all(
            bundle,
            names,
            reference,
            followers=followers,
            artifacts=artifacts,
            batch_sizes=batch_sizes,
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
    artifacts: Sequence[Artifact] | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    steps: Steps | None = None,
) -> Verification:
    """Every artifact (or only some) on these inputs, one after the other; see `judge` for the rest.

    names: for `make_sample`.
    """
    steps = steps or Steps()
    inputs = Inputs(names, lambda name: make_sample(name, bundle.manifest.preprocess))
    picture = next(filter(is_natural, names), None)
    drawn, results = {}, []
    for artifact in bundle.manifest.artifacts if artifacts is None else artifacts:
        title = f"{artifact.format} {artifact.precision}"

        def watch(name, run, title=title):
            if name == picture:
                drawn[title] = final_groups(run, bundle.manifest)

        with steps(title):
            results.append(
                judge(
                    artifact.format,
                    bundle,
                    inputs,
                    reference,
                    precision=artifact.precision,
                    batch_sizes=batch_sizes,
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


def _reference(
    bundle: Bundle, against: str | None, weights: str | None, rebuild, steps: Steps
) -> tuple[Follower, dict[str, Follower], Sequence[Artifact]]:
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
            return rebuild(manifest, weights), {}, manifest.artifacts
    if weights is not None:
        raise RequestError("--weights builds the Python model again; it goes with --against dygraph")
    first = bundle.artifact(against)
    others = [artifact for artifact in manifest.artifacts if artifact is not first]
    if against == "onnx":
        return OnnxFollower(bundle), {}, others
    for artifact in others:
        if artifact.format != "onnx":
            raise RequestError(
                f"the {artifact.format} {artifact.precision} model cannot be told what to merge, and neither "
                "can its reference; use --against dygraph or onnx"
            )
    followers = {
        f"onnx {artifact.precision}": OnnxFollower(bundle, artifact.precision) for artifact in others
    }
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
