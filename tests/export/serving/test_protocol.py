"""What the real client writes is read, what is written the real client reads, and the rest is refused."""

import base64
import gzip
import json
import zlib

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.export import tiny
from tome_export.serving import http, models, protocol
from tome_export.serving.refusal import Refusal

MODELS = models.models_of(tiny.make_manifest(), "tiny", "onnx", 3)
TENSOR, JPEG = MODELS["tiny"], MODELS["tiny_jpeg"]
SHAPE = [3, tiny.SIZE, tiny.SIZE]
IMAGES = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
OUTPUTS = {
    "logits": np.arange(10, dtype=np.float32).reshape(2, 5) / 3,
    "sources": np.arange(32, dtype=np.int32).reshape(2, 16),
}


def body(model, array, outputs, binary=True):
    """By tritonclient: the body, and the header with the length of its JSON."""
    tensor = triton.InferInput(model.input.name, list(array.shape), model.input.datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    content, length = triton.InferenceServerClient.generate_request_body([tensor], outputs=outputs)
    return content, None if length is None else str(length)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_what_the_client_writes_is_read_and_the_answer_is_read_by_it(binary):
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("sources", "logits")]
    asked = protocol.read_request(TENSOR, *body(TENSOR, IMAGES, wanted, binary))
    np.testing.assert_array_equal(asked.input, IMAGES)
    assert asked.outputs == ("sources", "logits")
    answer = protocol.write_answer(asked, OUTPUTS)
    read = triton.InferenceServerClient.parse_response_body(answer.body, header_length=answer.json_length)
    for name, array in OUTPUTS.items():
        np.testing.assert_array_equal(read.as_numpy(name), array)
        assert read.as_numpy(name).dtype == array.dtype
    assert read.get_response()["model_version"] == "1"


def test_without_a_list_of_outputs_all_come():
    asked = protocol.read_request(TENSOR, *body(TENSOR, IMAGES, None))
    assert asked.outputs == ("logits", "sources")
    assert (
        protocol.write_answer(asked, OUTPUTS).json_length is not None
    )  # the client asks for bytes by itself


def test_pictures_come_as_bytes_as_base64_and_bare():
    contents = [b"\xff\xd8 one", b"", b"three" * 100]
    array = np.array(contents, object).reshape(3, 1)
    assert protocol.read_request(JPEG, *body(JPEG, array, None)).input.ravel().tolist() == contents
    entry = {"name": "jpeg", "datatype": "BYTES", "shape": [3, 1]}
    entry["data"] = [[base64.b64encode(each).decode()] for each in contents]
    text = json.dumps({"inputs": [entry]}).encode()
    assert protocol.read_request(JPEG, text, None).input.ravel().tolist() == contents
    assert protocol.read_request(JPEG, b"\xff\xd8 bare", "0").input.tolist() == [[b"\xff\xd8 bare"]]
    assert protocol.read_request(TENSOR, IMAGES[:1].tobytes(), "0").input.shape == (1, *SHAPE)


def request(**changes):
    entry = {"name": "image", "datatype": "FP32", "shape": [1, *SHAPE], "data": IMAGES[0].tolist()}
    return json.dumps({"inputs": [entry | changes]}).encode()


WRONG = {
    "empty": (b"", None, "not JSON"),
    "no JSON": (b"{", None, "not JSON"),
    "not UTF-8": (b'{"id": "\xff"}', None, "not JSON"),
    "a list": (b"[]", None, "should be a JSON object"),
    "nested without end": (b"[" * 100_000, None, "nested too deeply|not JSON"),
    "no inputs": (b"{}", None, "a list of one"),
    "inputs that are numbers": (b'{"inputs": [7]}', None, "should be a JSON object"),
    "an id that is a number": (b'{"id": 7}', None, "id should be a string"),
    "another name": (request(name="x"), None, "no input 'x'"),
    "another datatype": (request(datatype="FP64"), None, "is FP64; this model takes FP32"),
    "another rank": (request(shape=SHAPE), None, r"takes \[n, 3, 32, 32\]"),
    "another size": (request(shape=[1, 3, 32, 31]), None, r"has shape \[1, 3, 32, 31\]"),
    "no rows": (request(shape=[0, *SHAPE]), None, "n >= 1"),
    "a negative size": (request(shape=[-1, *SHAPE]), None, "whole numbers from 0 on"),
    "true for a size": (request(shape=[True, *SHAPE]), None, "whole numbers"),
    "sizes beyond reason": (request(shape=[1 << 40, *SHAPE]), None, "too large"),
    "too few data": (request(data=[1, 2]), None, "should be 3072 numbers"),
    "ragged data": (request(data=[[1], [2, 3]]), None, "rows of one length"),
    "words for data": (request(data=["a"] * 3072), None, "should be 3072 numbers"),
    "data beyond float32": (request(data=[1e300] * 3072), None, "not finite"),
    "NaN in JSON": (request(data=[float("nan")] * 3072), None, "NaN is no number"),
    "no data": (request(data=None).replace(b', "data": null', b""), None, "has no data"),
    "shared memory": (request(parameters={"shared_memory_region": "a"}), None, "shared memory"),
    "bytes that are not there": (request(parameters={"binary_data_size": 9}), None, "both data and binary"),
    "a length that is a word": (request(), "ten", "is not a length"),
    "a length beyond the body": (request(), "999999999", "is not a length"),
    "a negative length": (request(), "-1", "is not a length"),
    "bytes that nobody claims": (request() + b"tail", str(len(request())), "no input says"),
    "a bare body too short": (b"1234", "0", "has 4 bytes; its shape takes 12288"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused_in_one_line(case):
    content, length, message = WRONG[case]
    with pytest.raises(Refusal, match=message) as caught:
        protocol.read_request(TENSOR, content, length)
    assert caught.value.status == 400 and "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_number_that_is_not_finite_is_refused_in_bytes_too():
    for value in (np.nan, np.inf):
        images = IMAGES.copy()
        images[1, 0, 0, 0] = value
        with pytest.raises(Refusal, match="not finite"):
            protocol.read_request(TENSOR, *body(TENSOR, images, None))


@pytest.mark.parametrize(
    "content", [b"\x05\0\0\0abc", b"\x01\0", b"\xff\xff\xff\xffabc", b"", b"\x01\0\0\0a\x01\0\0\0b"]
)
def test_byte_strings_whose_lengths_lie_are_refused(content):
    entry = {"name": "jpeg", "datatype": "BYTES", "shape": [1, 1]}
    entry["parameters"] = {"binary_data_size": len(content)}
    text = json.dumps({"inputs": [entry]}).encode()
    with pytest.raises(Refusal):
        protocol.read_request(JPEG, text + content, str(len(text)))


def test_outputs_that_are_not_there_are_refused():
    for names in (["x"], ["logits", "logits"], ["logits", "sources", "logits"]):
        wanted = [triton.InferRequestedOutput(name) for name in names]
        with pytest.raises(Refusal, match="no output|some of"):
            protocol.read_request(TENSOR, *body(TENSOR, IMAGES, wanted))
    classes = [triton.InferRequestedOutput("logits", class_count=2)]
    with pytest.raises(Refusal, match="classification"):
        protocol.read_request(TENSOR, *body(TENSOR, IMAGES, classes))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_comes_is_read_or_refused(data):
    """A good request with bytes changed, cut or put in: never another error, never numbers from elsewhere."""
    content, length = body(TENSOR, IMAGES[:1], None)
    content = bytearray(content[: int(length) + 64])  # where it can break
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    for model in (TENSOR, JPEG):
        try:
            asked = protocol.read_request(
                model, bytes(content), data.draw(st.sampled_from([length, None, "0"]))
            )
        except Refusal as refusal:
            assert refusal.status == 400
        else:
            assert len(asked.input) == 1


def test_compressed_bodies_stop_at_the_limit():
    plain = b"a" * 100_000
    for packed in (gzip.compress(plain), zlib.compress(plain)):
        assert http._inflate(packed, 100_000) == plain
        with pytest.raises(Refusal) as caught:
            http._inflate(packed, 99_999)
        assert caught.value.status == 413
        with pytest.raises(Refusal, match="cut short"):
            http._inflate(packed[:-5], 100_000)
    with pytest.raises(Refusal, match="cannot be decompressed"):
        http._inflate(b"plain", 100_000)
