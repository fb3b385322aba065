"""Accuracies that are known beforehand, found by `evaluate` on real runtimes."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.export.evaluation.conftest import LABELS
from tome_export.bundle import Bundle
from tome_export.errors import EvaluationError, RequestError
from tome_export.evaluate import Contender, evaluate
from tome_export.evaluation.classes import BY_LABEL, BY_NUMBER, BY_ORDER
from tome_export.evaluation.outcomes import Watch

RUNTIMES = ["onnx", "paddle"]


@pytest.mark.parametrize("workers", [2, 0])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_exactly_the_pictures_that_were_labelled_right_are_right(
    bundle, labelled, direct, pictures, runtime, workers
):
    result = evaluate(Contender.open(bundle.path, runtime), labelled, threads=2, workers=workers, batch=4)
    (score,) = result.scores
    assert (score.top1, score.top5) == (13 / 21, 18 / 21)
    assert score.top1_interval[0] < 13 / 21 < score.top1_interval[1]
    assert (score.runtime, score.precision, score.device, score.not_numbers) == (runtime, "fp32", "cpu", 0)
    assert (result.images, result.evaluated, result.unreadable) == (21, 21, ())
    assert result.classes == BY_NUMBER and result.comparison is None and not result.interrupted
    assert 0 <= result.waiting <= 1 and result.images_per_second > 0

    logits = direct(bundle, pictures).astype(np.float64)
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    answers = result.outcomes.answers[0]
    for i, sample in enumerate(result.dataset.samples):
        number = int(sample.path.removesuffix(".png").split()[-1])
        order = np.argsort(-logits[number])[:5]
        assert answers.classes[i].tolist() == order.tolist()
        np.testing.assert_allclose(answers.probabilities[i], probability[number][order], atol=1e-4)


def test_all_three_rules_and_a_list_find_the_same(bundle, other, labelled, tmp_path):
    """The same pictures in folders named by number, by label, in sorted order, and in a list."""
    names = {"by label": LABELS, "by order": [f"{letter}{letter}" for letter in "ABCDEFGHIJK"]}
    named = Bundle(bundle.path, replace(bundle.manifest, labels=tuple(LABELS)))
    for key, folders in names.items():
        for index, name in enumerate(folders):
            (tmp_path / key / name).mkdir(parents=True)
            for path in sorted((labelled / str(index)).glob("*.png")):
                shutil.copy(path, tmp_path / key / name)
    paths = sorted(labelled.glob("*/*.png"))
    listed = [(str(path.relative_to(labelled)), int(path.parent.name)) for path in paths]
    (tmp_path / "words.txt").write_text("".join(f"{path} {label}\n" for path, label in listed))
    (tmp_path / "tabs.txt").write_text("".join(f"{path}\t{LABELS[label]}\n" for path, label in listed))
    for model, data, file, rule in [
        (named, tmp_path / "by label", None, BY_LABEL),
        (bundle, tmp_path / "by order", None, BY_ORDER),
        (bundle, labelled, tmp_path / "words.txt", BY_NUMBER),
        (named, labelled, tmp_path / "tabs.txt", BY_LABEL),
    ]:
        result = evaluate(Contender.open(model, "onnx"), data, file, workers=1)
        assert (result.scores[0].top1, result.scores[0].top5) == (13 / 21, 18 / 21)
        assert result.classes == rule and result.images == 21


def test_two_bundles_get_the_same_pictures(bundle, other, labelled, direct, pictures):
    assert bundle.manifest.preprocess != other.manifest.preprocess
    contenders = [Contender.open(bundle, "onnx"), Contender.open(other, "paddle")]
    result = evaluate(contenders, labelled, batch=8, workers=2)
    order = [int(sample.path.removesuffix(".png").split()[-1]) for sample in result.dataset.samples]
    labels = np.array([sample.label for sample in result.dataset.samples])
    first, second = (direct(each, pictures).argmax(1)[order] for each in (bundle, other))
    one, two = first == labels, second == labels
    assert [score.top1 for score in result.scores] == [np.mean(one), np.mean(two)]
    assert [score.runtime for score in result.scores] == RUNTIMES
    found = result.comparison
    assert found.agreement == np.mean(first == second)
    assert (found.both, found.neither) == ((one & two).sum(), (~one & ~two).sum())
    assert (found.only_first, found.only_second) == ((one & ~two).sum(), (two & ~one).sum())
    stats = pytest.importorskip("scipy.stats")
    discordant = found.only_first + found.only_second
    assert discordant > 0
    assert found.p_value == pytest.approx(stats.binomtest(found.only_first, discordant, 0.5).pvalue)


def test_a_folder_alone_is_enough(bundle, labelled):
    result = evaluate(str(bundle.path), labelled, workers=0)
    assert result.scores[0].top1 == 13 / 21 and result.scores[0].runtime == "paddle"
    pair = evaluate([bundle.path, Contender(bundle)], labelled, limit=5, workers=0)
    assert [score.runtime for score in pair.scores] == ["paddle", "paddle"]


def test_a_bundle_agrees_with_itself(bundle, labelled):
    found = evaluate([Contender.open(bundle, name) for name in RUNTIMES], labelled, workers=1).comparison
    assert (found.agreement, found.only_first, found.only_second, found.p_value) == (1, 0, 0, 1)
    assert (found.both, found.neither) == (13, 8)


def test_pictures_that_cannot_be_read_are_left_out_and_named(bundle, labelled, tmp_path):
    paths = sorted(str(path.relative_to(labelled)) for path in labelled.glob("*/*.png"))
    (tmp_path / "cut.png").write_bytes((labelled / paths[0]).read_bytes()[:900])
    lines = [f"{labelled / path} {path.split('/')[0]}" for path in paths]
    lines[3:3] = ["cut.png 1", "absent.png 2"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    result = evaluate(Contender.open(bundle, "onnx"), tmp_path, tmp_path / "list.txt", workers=2, batch=5)
    assert (result.images, result.evaluated) == (23, 21)
    assert (result.scores[0].top1, result.scores[0].top5) == (13 / 21, 18 / 21)
    assert [path for path, _ in result.unreadable] == ["cut.png", "absent.png"]
    assert "cannot be read as an image" in result.unreadable[0][1]
    assert result.unreadable[1][1] == "no such file"
    assert result.outcomes.read.tolist() == [True] * 3 + [False] * 2 + [True] * 18

    (tmp_path / "list.txt").write_text("cut.png 1\nabsent.png 2")
    with pytest.raises(EvaluationError, match="none of 2 pictures could be read; the first: cut.png: cannot"):
        evaluate(Contender.open(bundle, "onnx"), tmp_path, tmp_path / "list.txt", workers=1)


def test_answers_that_are_not_numbers_count_as_wrong(bundle, labelled, tmp_path):
    """A bundle whose recipe divides by almost nothing: its logits are NaN."""
    broken = replace(bundle.manifest.preprocess, std=(1e-45, 1e-45, 1e-45))
    sick = Bundle(bundle.path, replace(bundle.manifest, preprocess=broken))
    with np.errstate(all="ignore"):
        result = evaluate(Contender.open(sick, "onnx"), labelled, workers=0)
    assert (result.scores[0].not_numbers, result.scores[0].top1, result.evaluated) == (21, 0, 21)


def test_a_limit_and_a_stop(bundle, labelled):
    limited = evaluate(Contender.open(bundle, "onnx"), labelled, limit=7, workers=1)
    assert limited.images == limited.evaluated == 7 and not limited.interrupted

    class StopAfterTwo(Watch):
        batches = 0

        def advanced(self, outcomes, start, stop):
            self.batches += 1

        def stopped(self):
            return self.batches == 2

    stopped = evaluate(Contender.open(bundle, "onnx"), labelled, batch=4, workers=1, watch=StopAfterTwo())
    assert stopped.interrupted and (stopped.images, stopped.evaluated) == (21, 8)
    right = stopped.outcomes.correct(0)
    assert stopped.scores[0].top1 == right[:8].mean() and not right[8:].any()

    class StopAtOnce(Watch):
        def stopped(self):
            return True

    nothing = evaluate(Contender.open(bundle, "onnx"), labelled, workers=1, watch=StopAtOnce())
    assert nothing.interrupted and nothing.scores == () and nothing.evaluated == 0


def test_bundles_that_cannot_be_compared(bundle, other, labelled, tiny_bundle):
    with pytest.raises(RequestError, match="cannot be compared: 11 and 5 classes"):
        evaluate([Contender.open(bundle), Contender.open(tiny_bundle)], labelled)
    shuffled = Bundle(other.path, replace(other.manifest, labels=tuple(reversed(LABELS))))
    with pytest.raises(RequestError, match="their labels differ"):
        evaluate([Contender.open(other), Contender.open(shuffled)], labelled)
    with pytest.raises(RequestError, match="one or two bundles, not 3"):
        evaluate([Contender.open(bundle)] * 3, labelled)
