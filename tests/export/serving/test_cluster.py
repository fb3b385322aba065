"""The printed configuration file, deployed by Ray's own command on a cluster of two simulated machines."""

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from benchmarks.serving.server import free_ports
from tests.export import small
from tests.export.serving import cluster
from tests.export.serving.server import COMMAND
from tome_export.parity.limits import limits
from tome_export.runtimes import open_runtime

ROOT = Path(__file__).resolve().parents[3]
LIMIT = limits("fp32", 2).logits


@pytest.fixture(scope="module")
def environment():
    folder = tempfile.mkdtemp(prefix="tome-test-", dir="/tmp")  # Ray's sockets need a short path
    yield os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TMPDIR": folder,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_metrics_report_interval_ms": "1000",
    }
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def dashboard(environment):
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, cluster.__file__, str(port)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline().strip() == "ready"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stdin.close()
        process.wait(timeout=60)


def test_two_machines_with_a_replica_each_answer_right(
    dashboard, environment, served_bundle, details, tmp_path
):
    http, grpc = free_ports(2)
    options = ["--replicas", "2", "--threads", "1", "--max-batch", "4", "--port", http, "--grpc-port", grpc]
    config = tmp_path / "tome.yaml"
    with open(config, "w") as file:
        command = [COMMAND, "serve", str(served_bundle.path), *map(str, options), "--print-config"]
        subprocess.run(command, stdout=file, check=True, timeout=60)
    deploy = [COMMAND.with_name("serve"), "deploy", str(config), "--address", dashboard]
    done = subprocess.run(deploy, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    wait_until(lambda: fetch(http, "/v2/health/ready") is not None)

    images = served_bundle.manifest.preprocess.apply(details)
    with open_runtime("onnx", served_bundle, threads=1) as runtime:
        right = runtime.run(images)["logits"]
    ran: dict[str, float] = {}

    def both_ran():
        for module, port in ((tritonclient.http, http), (tritonclient.grpc, grpc)):
            for _ in range(4):  # a client each, since a connection stays with the machine that took it
                client = module.InferenceServerClient(f"127.0.0.1:{port}")
                tensor = module.InferInput("image", [2, *images.shape[1:]], "FP32")
                row = np.random.default_rng().integers(len(images) - 1)
                tensor.set_data_from_numpy(images[row : row + 2])
                found = client.infer("tiny", [tensor]).as_numpy("logits")
                assert small.relative(found, right[row : row + 2]) < LIMIT
                client.close()
        text = fetch(http, "/metrics") or ""
        pattern = r'^ray_tome_images_total\{.*WorkerId="(\w+)".*\} (\S+)$'
        ran.update({worker: float(count) for worker, count in re.findall(pattern, text, re.M)})
        return len(ran) == 2 and min(ran.values()) > 0

    wait_until(both_ran)


def fetch(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return None


def wait_until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)
