"""What an export in reduced precision may be asked, and what it is calibrated and judged on."""

from dataclasses import replace

import numpy as np
import pytest

from tests.export import tiny
from tome_export.errors import MissingExtraError, RequestError
from tome_export.manifest import Manifest, WeightsInfo
from tome_export.parity.result import Figures
from tome_export.precision import int8
from tome_export.precision.gate import MIN_AGREEMENT, floor
from tome_export.precision.keep import parse_keep
from tome_export.precision.pictures import Pictures, choose, picture_files, prepare, spread
from tome_export.precision.result import PrecisionResult
from tome_export.preprocess import preset
from tome_export.request import ExportRequest

BOTH = ("fp32", "int8")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"precisions": ("fp8",)}, "no precision 'fp8'; choose from fp32, bf16, fp16, int8"),
        ({"precisions": BOTH, "formats": ("paddle",)}, "add onnx to the formats"),
        (
            {"precisions": BOTH, "keep_float": ("12",)},
            "no block 12 to keep in float: the model's are 0 to 11",
        ),
        ({"precisions": BOTH, "keep_float": ("mlp",)}, "nothing called 'mlp' to keep in float"),
        ({"precisions": BOTH, "keep_float": range(12)}, "leaves nothing to reduce"),
        ({"precisions": BOTH, "min_agreement": 99}, "a share from 0 to 1, not 99"),
        ({"precisions": BOTH, "calibration": "nowhere"}, "nowhere: no such folder of pictures"),
        ({"precisions": BOTH, "images": "nowhere"}, "nowhere: no such folder of pictures"),
        ({"calibration": "nowhere"}, "calibration goes with the precision int8"),
        (
            {"min_agreement": 0.5},
            "min_agreement goes with the precision int8 or fp16 or bf16; ask for it too",
        ),
        (
            {"keep_float": ("0",), "precisions": ("fp32", "bf16")},
            "keep_float goes with the precision int8 or fp16",
        ),
        (
            {"calibration": "nowhere", "precisions": ("fp32", "fp16")},
            "calibration goes with the precision int8",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_built(asked, said):
    with pytest.raises(RequestError, match="^[^\n]*$") as caught:
        ExportRequest("vit_ti16", r=8, **asked)
    assert said in str(caught.value)


def test_blocks_are_named_by_number_and_what_is_float_anyway_may_be_named():
    assert parse_keep(["11", " 0", 3, "head", "embed", "0"]) == (0, 3, 11)


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setattr(int8, "_NEEDS", ("onnx", "no_such_package"))
    with pytest.raises(MissingExtraError, match=r"no_such_package package: .*tome-export\[int8\]"):
        int8.check()


def test_pictures_are_found_below_and_unreadable_ones_are_passed_over(photo_folder):
    found = picture_files(photo_folder)
    assert len(found) == 22 and list(found) == sorted(found)
    recipe = preset("vit", 32)
    ready = list(prepare(Pictures(found, "pictures"), recipe))
    assert len(ready) == 21 and {image.shape for image in ready} == {(1, 3, 32, 32)}
    broken = Pictures((str(photo_folder / "broken.png"),), "pictures")
    with pytest.raises(RequestError, match="none of 1 pictures can be read.*broken.png"):
        list(prepare(broken, recipe))


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(RequestError, match="holds no picture"):
        choose(tmp_path, None)


def test_many_pictures_are_thinned_evenly():
    names = [str(number) for number in range(1000)]
    for most in (1, 7, 128, 999):
        chosen = [int(name) for name in spread(names, most)]
        assert len(chosen) == most and chosen[0] == 0
        assert max(np.diff([*chosen, 1000])) - min(np.diff([*chosen, 1000])) <= 1
    assert spread(names, 1000) == tuple(names) == spread(names, 5000)


def test_it_is_judged_on_other_pictures_than_it_was_calibrated_on_where_there_are_enough(tmp_path):
    few, many = tmp_path / "few", tmp_path / "many"
    for folder, count in ((few, 5), (many, 300)):
        folder.mkdir()
        for index in range(count):
            (folder / f"{index:03}.png").write_bytes(b"")
    calibration, judged = choose(many, None)
    assert len(calibration) == 128 and len(judged) == 172 and not {*calibration} & {*judged}
    calibration, judged = choose(few, None)
    assert calibration.names == judged.names and len(judged) == 5
    calibration, judged = choose(few, many)
    assert len(calibration) == 5 and len(judged) == 300
    assert choose(None, few)[0] is None and len(choose(None, few)[1]) == 5
    assert choose(None, None)[1].source == "samples"


def test_random_weights_are_held_to_no_floor_unless_asked():
    random = tiny.make_manifest()
    trained = replace(random, weights=WeightsInfo("file.pdparams", sha256="0" * 64))
    assert floor(random, None) is None and floor(random, 0.9) == 0.9
    assert floor(trained, None) == MIN_AGREEMENT and floor(trained, 0.5) == 0.5
    reset = replace(trained, weights=replace(trained.weights, reset_head=True))
    assert floor(reset, None) is None


def test_the_manifest_keeps_the_result_and_reads_files_without():
    figures = Figures(0.1, 0.01, 0.02, 0.99, 40.0, 0.98, 0.97)
    result = PrecisionResult(
        "onnx", "int8", "static", 128, 48, (0, 11), "onnx fp32", 500, "pictures", figures, 0.99
    )
    assert not result.passed and replace(result, min_agreement=0.98).passed
    artifacts = tuple(
        replace(each, files=dict.fromkeys(each.files, "0" * 64)) for each in tiny.make_manifest().artifacts
    )
    manifest = tiny.make_manifest(precisions=(result,), artifacts=artifacts)
    assert Manifest.from_json(manifest.to_json()).precisions == (result,)
    import json

    older = json.loads(manifest.to_json())
    del older["precisions"]
    assert Manifest.from_json(json.dumps(older)).precisions == ()
