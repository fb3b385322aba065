"""Judge one runtime: its outputs, its merge decisions, each part of each block, and its rows in a batch.

Three runs of the reference tell three kinds of disagreement apart. Run freely, it says what the logits
should be. Made to merge what the runtime merged, it says which decisions differ and why, and what numerical
error is left. Given everything the runtime computed, part by part, it says where an error arises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tome_export.bundle import Bundle
from tome_export.errors import BundleError
from tome_export.manifest import Manifest
from tome_export.parity.decisions import Agreement, Block, compare, label_problem, margin
from tome_export.parity.figures import compare as figures
from tome_export.parity.following import Follower, Run
from tome_export.parity.inputs import Inputs
from tome_export.parity.limits import limits
from tome_export.parity.result import BlockResult, Finding, ParityResult
from tome_export.parity.rows import wrong_logits, wrong_row
from tome_export.parity.samples import is_natural
from tome_export.parity.stages import find, similarity_error, stage_errors, where
from tome_export.runtimes import Runtime, open_runtime
from tome_export.sources import block_labels, sources_after_blocks
from tome_export.steps import release_memory

_FEW = 8  # inputs whose tensors may be kept in memory, all at once
_WORST = float(np.finfo(np.float32).max)  # JSON cannot hold infinity


def judge(
    name: str,
    bundle: Bundle,
    inputs: Inputs,
    reference: Follower,
    *,
    precision: str = "fp32",
    batch_sizes: Sequence[int] = (1, 3),
    device: str = "cpu",
    threads: int | None = None,
    follower: Follower | None = None,
    watch: Callable[[str, Run], None] = lambda name, run: None,
) -> ParityResult:
    """What `name`, a runtime, makes of `inputs` in the bundle's artifact of this precision.

    follower: where the reference cannot be told what to merge: this runtime as a model that can; it then
    follows the reference instead of the other way round. watch: gets each input's name and what the runtime
    made of it, once.

    Opens the artifact as it is shipped, then its debug variant. Raises RequestError and BundleError for a
    runtime or artifact that cannot be opened; what is wrong with its answers is in the result's findings.
    """
    judgement = Judgement(bundle, inputs, precision, batch_sizes)
    options = {"precision": precision, "device": device, "threads": threads}

    def look(input: str, run: Run) -> None:
        watch(input, run)
        judgement.look(input, run, reference, follower)

    _make_room(reference)
    with open_runtime(name, bundle, **options) as runtime:
        if not judgement.shipped(runtime):
            return judgement.result(name, reference.name)
    _make_room(reference)
    seen: dict[str, Run] = {}
    with open_runtime(name, bundle, taps=True, **options) as runtime:
        few = len(inputs.names) <= _FEW
        for input in judgement.batched:
            seen[input] = runtime.run(inputs.image(input))
        judgement.compare_rows(runtime, seen)
        for input in inputs.names:
            run = seen.pop(input, None) or runtime.run(inputs.image(input))
            if few:
                seen[input] = run
            else:
                look(input, run)
    release_memory()
    # A few inputs are looked at only now, so that runtime and reference are never in memory at once.
    for input in inputs.names if few else ():
        look(input, seen.pop(input))
    return judgement.result(name, reference.name)


def _make_room(reference: Follower) -> None:
    reference.rest()
    release_memory()


def merging_blocks(bundle: Bundle) -> dict[int, Block]:
    """The blocks that merge, by index."""
    tome, special = bundle.manifest.tome, bundle.manifest.special_tokens
    return {
        index: Block(tome.tokens[index], r, special > 0, special > 1)
        for index, r in enumerate(tome.r)
        if r > 0
    }


def final_groups(run: Run, manifest: Manifest) -> np.ndarray | None:
    """int32 [tokens], the final group of each input token by the decisions in `run`; None if some are
    invalid."""
    tokens, special = manifest.tome.tokens[0], manifest.special_tokens
    labels = block_labels(run, manifest.model.depth)
    try:
        return sources_after_blocks(labels, tokens, special > 0, special > 1)[-1][0]
    except BundleError:
        return None


class Judgement:
    """What is found out about one runtime, bit by bit."""

    def __init__(self, bundle: Bundle, inputs: Inputs, precision: str, batch_sizes: Sequence[int]) -> None:
        manifest = bundle.manifest
        self.inputs, self.precision, self.manifest = inputs, precision, manifest
        self.batch_sizes = tuple(batch_sizes)
        self.limits = limits(precision, manifest.model.depth)
        self.blocks = merging_blocks(bundle)
        self.findings: list[Finding] = []
        self.in_batches: list[Finding] = []  # of no account where something is wrong with an input alone
        self.logits: dict[str, np.ndarray] = {}  # the shipped graph's, each input alone
        self.rows: list[
            tuple[tuple[str, ...], np.ndarray]
        ] = []  # a batch's inputs, and the shipped graph's logits
        self.wanted: dict[str, np.ndarray] = {}  # the reference's
        self.pairs: dict[
            str, tuple[np.ndarray, np.ndarray]
        ] = {}  # with the same merges: the runtime's, the reference's
        self.close: set[str] = set()  # inputs where some decision hangs on rounding
        self.tally = {index: Agreement(0, 0, 0, ()) for index in self.blocks}
        self.natural = Agreement(0, 0, 0, ())
        self.noise = dict.fromkeys(self.blocks, 0.0)
        self.errors: dict[int, dict[str, float]] = {index: {} for index in range(manifest.model.depth)}

    # ------------------------------------------------------------ the artifact as it is shipped

    def shipped(self, runtime: Runtime) -> bool:
        """Run every input alone and in batches. False if the outputs are not of the form they should have."""
        for name in self.inputs.names:
            run = runtime.run(self.inputs.image(name))
            if not self._check_form(run, name):
                return False
            self.logits[name] = run["logits"]
        for names in self._batches():
            self.rows.append((names, runtime.run(self._batch(names))["logits"]))
        return True

    def _check_form(self, run: Run, name: str) -> bool:
        wrong = []
        for output in self.manifest.outputs:
            found, shape = run[output.name], [1, *output.shape[1:]]
            if str(found.dtype) != output.dtype or list(found.shape) != shape:
                wrong.append(
                    f"{output.name} is {found.dtype} {list(found.shape)} instead of {output.dtype} {shape}"
                )
        if wrong:
            order = ": are the outputs in the wrong order?" if len(wrong) > 1 else ""
            self.findings.append(Finding("outputs", None, name, "; ".join(wrong) + order))
        return not wrong

    @property
    def batched(self) -> list[str]:
        """The inputs that are in some batch, each once."""
        return list(dict.fromkeys(name for names in self._batches() for name in names))

    def _batches(self) -> list[tuple[str, ...]]:
        """For each batch size above 1: different inputs together, and one input at every position."""
        names = self.inputs.names
        together = [
            tuple(names[row % len(names)] for row in range(size)) for size in self.batch_sizes if size > 1
        ]
        return [batch for names in together for batch in (names, names[:1] * len(names))]

    def _batch(self, names: Sequence[str]) -> np.ndarray:
        return np.concatenate([self.inputs.image(name) for name in names])

    # ------------------------------------------------------------ its debug variant

    def compare_rows(self, runtime: Runtime, alone: Mapping[str, Run]) -> None:
        """Every batch against its inputs alone."""
        for name in self.batched:
            for index, block in self.blocks.items():
                scores = alone[name][f"block{index}.scores"][0]
                if margin(scores, block) <= 2 * self.limits.similarity:
                    self.close.add(name)
        rest = self.close, self.limits.logits
        for names in self._batches():
            self.in_batches += wrong_row(names, runtime.run(self._batch(names)), alone, *rest)
        for names, logits in self.rows:
            self.in_batches += wrong_logits(names, logits, self.logits, *rest)

    def look(self, name: str, run: Run, reference: Follower, follower: Follower | None) -> None:
        """One input's decisions and parts."""
        self.wanted[name] = self.inputs.free(name, reference)["logits"]
        if follower is None:
            self._one(name, run, reference)
        else:
            self._one(name, reference.run(self.inputs.image(name), {}), follower)
        if not self.findings:
            self._compare_variants(name, run)

    def _one(self, name: str, leader: Run, follower: Follower) -> None:
        """One input: `follower` goes on with what `leader` computed, in decisions only and then in
        everything."""
        image = self.inputs.image(name)
        own = follower.run(image, leader)
        found = [*find(own, leader, self.blocks, self.limits, name), *self._sources(name, leader)]
        self.findings += found
        for tensor, error in stage_errors(own, leader).items():
            block, part = where(tensor)
            if block is not None:
                self.errors[block][part] = max(self.errors[block].get(part, 0.0), min(error, _WORST))
        labels = {f"block{index}.label": leader[f"block{index}.label"] for index in self.blocks}
        if any(
            label_problem(labels[f"block{index}.label"][0], block) for index, block in self.blocks.items()
        ):
            return
        same = self.inputs.free(name, follower)
        if any((same[label] != value).any() for label, value in labels.items()):
            same = follower.run(image, labels)
        self.pairs[name] = leader["logits"], same["logits"]
        self._count(name, leader, same, blame=not found)
        error = figures(leader["logits"], same["logits"]).max_rel
        if error > self.limits.logits and not found:
            what = (
                f"differ by {error:.1e} of their range with the same merges, {self.limits.logits:.1e} allowed"
            )
            self.findings.append(Finding("logits", None, name, what))

    def _count(self, name: str, leader: Run, own: Run, blame: bool) -> None:
        """Decisions that agree, that hang on rounding, and that do not."""
        for index, block in self.blocks.items():
            theirs, mine = leader[f"block{index}.scores"], own[f"block{index}.scores"]
            noise = similarity_error(mine, theirs)
            self.noise[index] = max(self.noise[index], min(noise, _WORST))
            explained = min(noise, self.limits.similarity)
            label, wanted = (run[f"block{index}.label"][0] for run in (leader, own))
            agreement = compare(label, wanted, mine[0], explained, block)
            self.tally[index] = _sum(self.tally[index], agreement)
            if is_natural(name):
                self.natural = _sum(self.natural, agreement)
            if margin(theirs[0], block) <= 2 * self.limits.similarity:
                self.close.add(name)
            if blame and noise > self.limits.similarity:
                what = f"has a noise of {noise:.1e}, {self.limits.similarity:.1e} allowed"
                self.findings.append(Finding("similarity", index, name, what))
            elif blame and agreement.faults:
                self.findings.append(Finding("selection", index, name, agreement.faults[0]))

    def _sources(self, name: str, run: Run) -> list[Finding]:
        """The source map that the graph returns must be what its merges come to."""
        if "sources" not in run:
            return []
        wanted, found = final_groups(run, self.manifest), run["sources"][0]
        if wanted is None or np.array_equal(found, wanted):
            return []
        wrong = int((found != wanted).sum())
        return [
            Finding(
                "sources",
                None,
                name,
                f"{wrong} of {len(wanted)} tokens are in another group than they merged into",
            )
        ]

    def _compare_variants(self, name: str, run: Run) -> None:
        """The debug variant must be the shipped graph, or all that was seen in it means nothing."""
        error = figures(self.logits[name], run["logits"]).max_rel
        if error > self.limits.logits and name not in self.close:
            what = f"differ by {error:.1e} of their range from those of the debug variant"
            self.findings.append(Finding("outputs", None, name, f"the shipped graph's logits {what}"))

    # ------------------------------------------------------------ the sum of it

    def _count_near_ties(self) -> None:
        share = self.natural.near_ties / max(self.natural.decisions, 1)
        if share > self.limits.near_ties and not self.findings:
            what = f"{share:.1%} of the decisions hang on rounding, {self.limits.near_ties:.0%} allowed"
            self.findings.append(Finding("selection", None, None, what))

    def result(self, runtime: str, against: str) -> ParityResult:
        self.findings += self.in_batches if not self.findings else []
        self._count_near_ties()
        names = [name for name in self.inputs.names if name in self.logits and name in self.wanted]
        both = (
            [np.concatenate([of[name] for name in names]) for of in (self.logits, self.wanted)]
            if names
            else None
        )
        classes = self.manifest.model.num_classes
        free = figures(*both) if both else figures(np.full((1, classes), np.nan), np.zeros((1, classes)))
        pairs = [np.concatenate(side) for side in zip(*self.pairs.values(), strict=True)]
        total = Agreement(0, 0, 0, ())
        for agreement in self.tally.values():
            total = _sum(total, agreement)
        return ParityResult(
            runtime=runtime,
            precision=self.precision,
            against=against,
            inputs=len(self.inputs.names),
            batch_sizes=self.batch_sizes,
            **vars(free),
            forced=figures(*pairs) if pairs else None,
            merge_agreement=total.agreed / total.decisions if total.decisions else None,
            decisions=total.decisions,
            near_ties=total.near_ties,
            blocks=tuple(self._block(index) for index in self.errors),
            findings=_first_of_each(self.findings),
            limits=self.limits,
            tolerance=self.limits.logits,
            passed=not self.findings,
        )

    def _block(self, index: int) -> BlockResult:
        tome, tally = self.manifest.tome, self.tally.get(index, Agreement(0, 0, 0, ()))
        return BlockResult(
            block=index,
            tokens=tome.tokens[index],
            r=tome.r[index],
            decisions=tally.decisions,
            agreed=tally.agreed,
            near_ties=tally.near_ties,
            faults=len(tally.faults),
            noise=self.noise.get(index),
            errors=self.errors[index],
        )


def _sum(a: Agreement, b: Agreement) -> Agreement:
    return Agreement(
        a.decisions + b.decisions, a.agreed + b.agreed, a.near_ties + b.near_ties, a.faults + b.faults
    )


def _first_of_each(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """One finding for each part of each block, in the order of the graph; what lies outside the blocks last
    but for the embedding and the form of the outputs, which come first."""
    first: dict[tuple, Finding] = {}
    for finding in findings:
        first.setdefault((finding.part, finding.block), finding)
    before = ("outputs", "embed")
    depth = max((finding.block for finding in findings if finding.block is not None), default=0) + 1

    def place(finding: Finding) -> int:
        if finding.block is not None:
            return finding.block
        return -1 if finding.part in before else depth

    return tuple(sorted(first.values(), key=place))
