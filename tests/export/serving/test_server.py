"""A real server and its real clients: right answers, each fault its status, and nothing left behind.

One server for all, so that the tests that hurt it show whether it recovers. The last one stops it.
"""

import json
import os
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from geventhttpclient.response import HTTPConnectionClosed

from tests.export import small, tiny
from tests.export.serving.server import Server
from tome_export.parity.limits import limits
from tome_export.predict import predict_files
from tome_export.runtimes import open_runtime

CLIENTS = {"http": tritonclient.http, "grpc": tritonclient.grpc}
MAX_BATCH, BODY_SECONDS = 8, 2
LIMIT = limits("fp32", 2).logits


@pytest.fixture(scope="module")
def server(served_bundle, tmp_path_factory):
    options = ("--max-batch", MAX_BATCH, "--max-body-mb", 1, "--body-timeout", BODY_SECONDS, "--top", 3)
    with Server(served_bundle, tmp_path_factory.mktemp("server"), *options, "--max-megapixels", 50) as server:
        yield server


@pytest.fixture(scope="module")
def images(served_bundle, details):
    return served_bundle.manifest.preprocess.apply(details)


@pytest.fixture(scope="module")
def right(served_bundle, images, tiny_layer):
    """What the bundle's own runtime answers, which is what the Python model does."""
    import paddle

    with open_runtime("onnx", served_bundle, threads=1) as runtime:
        outputs = runtime.run(images)
    with paddle.no_grad():
        logits, _ = tiny_layer(paddle.to_tensor(images))
    assert small.relative(outputs["logits"], logits.numpy()) < LIMIT
    return outputs


def client(server, protocol):
    return CLIENTS[protocol].InferenceServerClient(f"127.0.0.1:{getattr(server, protocol)}")


def tensor(protocol, name, array, datatype):
    made = CLIENTS[protocol].InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def infer(opened, protocol, images, model="tiny"):
    return opened.infer(model, [tensor(protocol, "image", images, "FP32")])


def predict(server, content, kind="image/jpeg"):
    return server.ask("/predict", content, {"Content-Type": kind})


def error(answer):
    """Status and message of an answer in the protocol's form."""
    status, content, headers = answer
    assert headers["content-type"] == "application/json"
    (message,) = json.loads(content).values()
    assert "\n" not in message and "Traceback" not in message
    return status, message


# ---------------------------------------------------------------- what works


@pytest.mark.parametrize("protocol", CLIENTS)
def test_the_server_says_what_it_has(server, protocol):
    opened = client(server, protocol)
    assert opened.is_server_live() and opened.is_server_ready() and opened.is_model_ready("tiny")
    assert not opened.is_model_ready("giant")
    asked = {"as_json": True} if protocol == "grpc" else {}
    assert opened.get_server_metadata(**asked)["extensions"] == ["binary_tensor_data"]
    found = opened.get_model_metadata("tiny_jpeg", **asked)
    assert [each["name"] for each in found["outputs"]] == ["labels", "probabilities", "classes"]
    (image,) = opened.get_model_metadata("tiny", **asked)["inputs"]
    assert list(map(int, image["shape"])) == [-1, 3, tiny.SIZE, tiny.SIZE] and image["datatype"] == "FP32"


@pytest.mark.parametrize("protocol", CLIENTS)
def test_tensors_get_the_answer_of_the_bundles_own_runtime(server, protocol, images, right):
    opened = client(server, protocol)
    for count in (1, MAX_BATCH):
        found = infer(opened, protocol, images[:count])
        assert small.relative(found.as_numpy("logits"), right["logits"][:count]) < LIMIT
        np.testing.assert_array_equal(found.as_numpy("sources"), right["sources"][:count])


def test_tensors_in_json_get_the_same(server, images, right):
    entry = {"name": "image", "datatype": "FP32", "shape": [1, *images.shape[1:]], "data": images[0].tolist()}
    body = json.dumps({"id": "é7", "inputs": [entry], "outputs": [{"name": "logits"}]}).encode()
    status, content, _ = server.ask("/v2/models/tiny/versions/1/infer", body)
    answer = json.loads(content)
    assert status == 200 and answer["id"] == "é7" and len(answer["outputs"]) == 1
    logits = np.array(answer["outputs"][0]["data"], np.float32).reshape(1, -1)
    assert small.relative(logits, right["logits"][:1]) < LIMIT


@pytest.mark.parametrize("protocol", CLIENTS)
def test_pictures_become_the_labels_that_predict_gives(server, protocol, served_bundle, jpegs):
    _, wanted = predict_files(served_bundle.path, jpegs, "onnx", top=3)
    contents = np.array([[path.read_bytes()] for path in jpegs], object)
    found = client(server, protocol).infer("tiny_jpeg", [tensor(protocol, "jpeg", contents, "BYTES")])
    for row, classes in enumerate(wanted):
        labels = [label.decode() for label in found.as_numpy("labels")[row]]
        assert labels == [entry.label for entry in classes]
        assert found.as_numpy("classes")[row].tolist() == [entry.index for entry in classes]
        probabilities = [entry.probability for entry in classes]
        np.testing.assert_allclose(found.as_numpy("probabilities")[row], probabilities, atol=1e-5)


def test_predict_takes_a_picture_or_several_in_a_form(server, served_bundle, jpegs):
    _, wanted = predict_files(served_bundle.path, jpegs, "onnx", top=3)
    wanted = [[entry.label for entry in classes] for classes in wanted]
    for kind in ("image/jpeg", "application/x-www-form-urlencoded"):  # the latter is what curl says
        status, content, _ = predict(server, jpegs[0].read_bytes(), kind)
        assert status == 200 and [each["label"] for each in json.loads(content)["classes"]] == wanted[0]
    lines = [b'--cut\r\nContent-Disposition: form-data; name="words"\r\n\r\nnot a file']
    for path in jpegs:
        name = f'Content-Disposition: form-data; name="p"; filename="{path.name}"'.encode()
        lines.append(b"--cut\r\n" + name + b"\r\n\r\n" + path.read_bytes())
    form = b"\r\n".join([*lines, b"--cut--", b""])
    status, content, _ = predict(server, form, "multipart/form-data; boundary=cut")
    assert status == 200
    pictures = json.loads(content)["pictures"]
    assert [each["file"] for each in pictures] == [path.name for path in jpegs]
    assert [[entry["label"] for entry in each["classes"]] for each in pictures] == wanted


# ---------------------------------------------------------------- what does not, beside what does


def test_many_clients_with_a_few_bad_requests_among_them(server, images, right):
    """Every good request gets its own answer, every bad one its own error, and batches form."""
    bad = np.full_like(images[:1], np.nan)

    def ask(index):
        protocol = ("http", "grpc")[index % 2]
        opened = client(server, protocol)
        for turn in range(6):
            row = (index + turn) % len(images)
            if (index + turn) % 4 == 0:
                with pytest.raises(CLIENTS[protocol].InferenceServerException, match="not finite"):
                    infer(opened, protocol, bad)
            else:
                found = infer(opened, protocol, images[row : row + 1]).as_numpy("logits")
                assert small.relative(found, right["logits"][row : row + 1]) < LIMIT

    before = metrics(server)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(ask, range(12)))
    deadline = time.monotonic() + 30
    while (after := metrics(server))["images"] - before["images"] < 12 * 6 * 3 // 4:
        assert time.monotonic() < deadline, after
        time.sleep(0.5)
    assert after["runs"] - before["runs"] < after["images"] - before["images"]


def metrics(server):
    """Images and runs so far, as Prometheus would read them."""
    status, content, _ = server.ask("/metrics")
    assert status == 200
    found = {"images": 0.0, "runs": 0.0}
    for name, value in re.findall(r"^ray_tome_(images|runs)_total\{.*\} (\S+)$", content.decode(), re.M):
        found[name] += float(value)
    return found


def test_each_fault_has_its_status(server, images, jpegs, bomb):
    jpeg = jpegs[0].read_bytes()
    ask = server.ask
    json_kind = {"Content-Type": "application/json"}
    for answer, status, message in (
        (ask("/v2/models/tiny/infer", b"{"), 400, "not JSON"),
        (ask("/v2/models/giant/infer", b"{}"), 404, "no model 'giant'"),
        (ask("/v2/models/tiny/versions/2/infer", b"{}"), 404, "no version '2'"),
        (ask("/elsewhere"), 404, "no such path"),
        (ask("/v2/models/tiny/infer"), 405, "use POST"),
        (ask("/v2", b"{}"), 405, "use GET"),
        (ask("/predict", b"x" * ((1 << 20) + 1)), 413, "1 MiB"),
        (ask("/predict", b"{}", json_kind), 415, "multipart/form-data"),
        (ask("/predict", b"?", {"Content-Encoding": "br", "Content-Type": "image/png"}), 415, "gzip"),
        (predict(server, jpeg[: len(jpeg) // 2]), 400, "truncated"),
        (predict(server, b""), 400, "is empty"),
        (predict(server, b"hello"), 400, "not an image"),
        (predict(server, bomb), 413, "64000000 pixels|8000 x 8000 pixels is more than the 50,000,000"),
        (predict(server, b"--x\r\n", "multipart/form-data; boundary=y"), 400, "multipart"),
        (predict(server, b"", "multipart/form-data"), 400, "multipart"),
    ):
        found, text = error(answer)
        assert (found, bool(re.search(message, text))) == (status, True), (status, message, found, text)
    for protocol, code in (("http", "400"), ("grpc", "StatusCode.INVALID_ARGUMENT")):
        opened = client(server, protocol)
        too_many = np.repeat(images[:1], MAX_BATCH + 1, 0)
        for wrong in (images[:1, :, :-1], too_many):
            with pytest.raises(CLIENTS[protocol].InferenceServerException) as caught:
                infer(opened, protocol, np.ascontiguousarray(wrong))
            assert caught.value.status() == code
    for model, count, code in (("giant", 1, "NOT_FOUND"), ("tiny", 100, "RESOURCE_EXHAUSTED")):
        with pytest.raises(tritonclient.grpc.InferenceServerException) as caught:
            infer(client(server, "grpc"), "grpc", np.repeat(images[:1], count, 0), model)
        assert caught.value.status() == f"StatusCode.{code}"


def test_one_picture_of_several_that_is_none_is_named(server, jpegs):
    contents = np.array([[jpegs[0].read_bytes()], [b"hello"]], object)
    for protocol in CLIENTS:
        with pytest.raises(CLIENTS[protocol].InferenceServerException, match="picture 2 of 2: not an image"):
            client(server, protocol).infer("tiny_jpeg", [tensor(protocol, "jpeg", contents, "BYTES")])


def test_slow_and_broken_connections_do_not_hold_up_the_others(server, images):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\n"
    slow = [socket.create_connection(("127.0.0.1", server.http), timeout=30) for _ in range(5)]
    for connection in slow:
        connection.sendall(head + b"begun")
    gone = [socket.create_connection(("127.0.0.1", server.http)) for _ in range(5)]
    for connection in gone:
        connection.sendall(head + b"left in the middle")
        connection.close()
    start = time.monotonic()
    for protocol in CLIENTS:
        infer(client(server, protocol), protocol, images[:1])
    assert time.monotonic() - start < BODY_SECONDS  # they waited for nobody
    for connection in slow:
        with connection:
            said = b""
            while part := connection.recv(4096):
                said += part
        assert said.startswith(b"HTTP/1.1 408") and b"did not arrive" in said
    assert server.send(b"NONSENSE\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_it_listens_on_loopback_only(server):
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, and the same as IPv6 has it
    for port in (server.http, server.grpc):
        assert server.listening(port) and server.listening(port) <= loopback


# ---------------------------------------------------------------- what hurts


def test_a_killed_replica_loses_no_request_and_comes_back(server, images, right):
    stop, problems, answered = threading.Event(), [], []

    def ask(protocol):
        opened = client(server, protocol)
        while not stop.is_set():
            for chance in (1, 2):  # a client tries once more, if told that it may
                try:
                    found = infer(opened, protocol, images[:1]).as_numpy("logits")
                except CLIENTS[protocol].InferenceServerException as refused:
                    if chance == 2 or refused.status() not in ("503", "StatusCode.UNAVAILABLE"):
                        problems.append(str(refused))
                else:
                    assert small.relative(found, right["logits"][:1]) < LIMIT
                    answered.append(time.monotonic())
                    break

    with ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(ask, protocol) for protocol in ("http", "grpc") * 3]
        time.sleep(1)
        (before,) = server.replicas()
        os.kill(before, signal.SIGKILL)
        killed = time.monotonic()
        deadline = killed + 60
        while not answered or answered[-1] < killed + 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        stop.set()
        for each in clients:
            each.result(timeout=60)
    assert problems == []
    assert server.replicas() != [before]


def test_sigterm_answers_what_is_under_way_and_leaves_nothing(server, images, right):
    """Clients ask all the while: each request is answered right, or told to go elsewhere."""
    processes = set(server.processes())
    assert len(processes) > 4
    wrong, answered, unheard = [], [], []

    def ask(protocol):
        opened = client(server, protocol)
        while True:
            try:
                found = infer(opened, protocol, images[:1]).as_numpy("logits")
            except ConnectionRefusedError:
                return
            except (HTTPConnectionClosed, ConnectionResetError):
                # The connection was with the kernel still when the port closed: refused, too.
                unheard.append(protocol)
            except CLIENTS[protocol].InferenceServerException as refused:
                if refused.status() not in ("503", "StatusCode.UNAVAILABLE"):
                    wrong.append(str(refused))
                if server.process.poll() is not None or "refused" in str(refused):
                    return
            else:
                answered.append(small.relative(found, right["logits"][:1]))

    with ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(ask, protocol) for protocol in ("http", "grpc") * 3]
        time.sleep(1)
        assert server.stop() == 0
        for each in clients:
            each.result(timeout=60)
    assert wrong == [] and answered and max(answered) < LIMIT
    assert len(unheard) <= 3  # at most once for each client of HTTP: the next time it was refused
    assert server.said().endswith("stopped\n")
    assert not processes & {int(name) for name in os.listdir("/proc") if name.isdigit()}
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", server.http)) != 0
