"""What Ray runs, run without it."""

from dataclasses import replace

import numpy as np
import pytest

from tome_export.errors import RequestError, WorkerError
from tome_export.offline.listing import take_listing
from tome_export.offline.request import make_request
from tome_export.offline.stages import NOT_A_NUMBER, Job, Predictor, prepare, raise_trouble


@pytest.fixture
def job(tiny_bundle, details, fill, tmp_path):
    fill(tmp_path / "photos", details, 1)
    request = make_request(tiny_bundle, tmp_path / "photos", "onnx", "fp32", "cpu", 3)
    listing = take_listing(tmp_path / "photos", tmp_path)
    recipe = tiny_bundle.manifest.preprocess
    return Job(listing, np.array([1, 2], np.int32), 10, 4, str(tiny_bundle.path), request, recipe, 1)


def test_a_shard_is_prepared_in_batches(job, details):
    batches = list(prepare({"id": np.array([1])}, job))  # the last shard: 20 to 23 of 24 files
    assert [batch["position"].tolist() for batch in batches] == [[0, 1, 2, 3]]
    assert [len(batch["position"]) for batch in prepare({"id": np.array([0])}, job)] == [4, 4, 2]
    assert {int(shard) for shard in batches[0]["shard"]} == {2}


def test_a_source_that_goes_away_is_no_folder_of_broken_files(job, tmp_path):
    (tmp_path / "photos").rename(tmp_path / "gone")
    with pytest.raises(RequestError, match="photos: not seen on .*; every machine needs it"):
        list(prepare({"id": np.array([0])}, job))
    (tmp_path / "files").unlink()
    with pytest.raises(RequestError, match="not seen on"):
        list(prepare({"id": np.array([0])}, job))


def answered(job, images):
    count = len(images)
    batch = {
        "shard": np.zeros(count, np.int32),
        "position": np.arange(count, dtype=np.int32),
        "error": np.array([""] * count, object),
        "image": images,
    }
    return Predictor(job)(batch)


def test_an_answer_that_is_no_number_is_an_error_of_its_row(job):
    images = np.zeros((3, 3, job.recipe.crop, job.recipe.crop), np.float32)
    images[1] = np.nan
    found = answered(job, images)
    raise_trouble(found)
    assert found["error"].tolist() == ["", NOT_A_NUMBER, ""]
    assert (found["classes"][1] == -1).all() and (found["classes"][0] >= 0).all()


def test_trouble_with_the_model_ends_the_run_with_its_own_words(job):
    tensorrt = replace(job, request=replace(job.request, runtime="tensorrt"))
    with pytest.raises(RequestError):
        raise_trouble(answered(tensorrt, np.zeros((1, 3, job.recipe.crop, job.recipe.crop), np.float32)))
    with pytest.raises(RequestError, match="this model takes float32"):
        raise_trouble(answered(job, np.zeros((1, 3, 5, 5), np.float32)))
    told = {"trouble": np.array(["", "1 the model failed (ValueError: broken)"], object)}
    with pytest.raises(WorkerError, match=r"^the model failed \(ValueError: broken\)$"):
        raise_trouble(told)
