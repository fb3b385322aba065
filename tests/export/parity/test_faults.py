"""Twelve planted faults, and some relatives: each is caught, and named by the part that it is in.

The short form plants one in each part of a block; `-m slow` plants the others.
"""

import json

import pytest

from tests.export import small
from tests.export.parity import faults
from tome_export.parity.verify import verify_bundle
from tome_export.quiet import quiet

# fault: (part, block of the first finding, words, parts that may be named besides).
PLANTED = {
    "epsilon": ("norm", faults.BLOCK, "epsilon", set()),
    "scale_dropped": ("attention", faults.BLOCK, "given the same input", set()),
    "transposed": ("attention", faults.BLOCK, "given the same input", set()),
    "class_token_unprotected": ("selection", 0, "class token is not protected", set()),
    "split_swapped": ("selection", 0, "odd tokens merge into even ones", {"similarity"}),
    "second_best": ("selection", 0, "its own similarities", set()),
    "size_forgotten": ("size", 1, "given the same input", {"merge"}),
    "log_size_missing": ("attention", 1, "given the same input", set()),
    "overwritten": ("merge", 0, "given the same input", set()),
    "tokens_out_of_order": ("size", 0, "given the same input", {"merge", "sources"}),
    "batch_leak": ("batch", 0, "of 3 different inputs", set()),
}


ONE_OF_EACH = (
    "epsilon",
    "scale_dropped",
    "split_swapped",
    "second_best",
    "size_forgotten",
    "overwritten",
    "batch_leak",
)


@pytest.fixture(
    scope="module",
    params=[pytest.param(fault, marks=() if fault in ONE_OF_EACH else pytest.mark.slow) for fault in PLANTED],
)
def planted(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        out = tmp_path_factory.mktemp(request.param) / "out"
        fault = getattr(faults, request.param)
        return PLANTED[request.param], faults.export_with(fault, "small_vit", out, monkeypatch)


def test_a_planted_fault_is_caught_and_named_in_both_runtimes(planted):
    (part, block, words, besides), verification = planted
    assert not verification.passed and not verification.findings
    assert [result.runtime for result in verification.results] == ["paddle", "onnx"]
    for result in verification.results:
        assert not result.passed
        first = result.findings[0]
        assert (first.part, first.block) == (part, block), result.findings
        assert words in first.what
        assert {finding.part for finding in result.findings} <= {part} | besides


def test_a_fault_in_one_block_is_named_in_that_block_only(planted):
    (part, block, *_), verification = planted
    if block == faults.BLOCK:
        for result in verification.results:
            assert [(finding.part, finding.block) for finding in result.findings] == [(part, block)]


def test_outputs_in_the_wrong_order(tmp_path, monkeypatch):
    found = faults.export_with(faults.outputs_swapped, "small_vit", tmp_path / "out", monkeypatch)
    for result in found.results:
        (finding,) = result.findings
        assert finding.part == "outputs" and "wrong order" in finding.what
        assert "logits is int32 [1, 65] instead of float32 [1, 11]" in finding.what


def test_the_mean_and_deviation_of_another_recipe(tmp_path):
    """ImageNet's instead of 0.5, as the deployment files of two Paddle repositories have it."""
    small.export_small("small_vit", tmp_path / "out", r=8)
    manifest = tmp_path / "out" / "manifest.json"
    data = json.loads(manifest.read_text())
    data["preprocess"] |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    manifest.write_text(json.dumps(data))
    with quiet(), small.registered():
        found = verify_bundle(tmp_path / "out", samples=1, batch_sizes=(1,))
    (finding,) = found.findings
    assert finding.part == "preprocess"
    assert "mean is (0.485, 0.456, 0.406) instead of (0.5, 0.5, 0.5)" in finding.what
    assert all(result.passed for result in found.results) and not found.passed


def test_without_a_fault_nothing_is_found(tmp_path, monkeypatch):
    found = faults.export_with(
        lambda model: faults.changed(model, "r", 8), "small_vit", tmp_path / "out", monkeypatch
    )
    assert found.passed and not any(result.findings for result in found.results)
