"""A server under load: right answers, and each fault its due, whatever happens beside them.

The short form of `python -m benchmarks.serving`, with its code. One server for all; the last test stops it.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.serving import clients, drills, hostile
from benchmarks.serving.load import Load
from benchmarks.serving.server import served, sorted_thirds

ROOT = Path(__file__).resolve().parents[3]
CLIENTS, BODY_MB, BODY_SECONDS, MAX_BATCH = 16, 1, 1.5, 8


@pytest.fixture(scope="module")
def server(tiny_bundle):
    options = ("--max-batch", MAX_BATCH, "--max-body-mb", BODY_MB, "--body-timeout", BODY_SECONDS)
    with served(tiny_bundle.path, *options, "--threads", 1) as server:
        yield server


@pytest.fixture(scope="module")
def questions(tiny_bundle):
    return clients.questions(tiny_bundle.path, "onnx", "fp32", 1, clients.photographs())


@pytest.fixture(scope="module")
def enemies(server, questions):
    return hostile.Enemies(server, questions, BODY_MB, BODY_SECONDS)


def test_a_wrong_answer_would_be_seen(server, questions):
    """The clients' own check: another picture's answer is not taken for the right one."""
    for protocol in clients.PROTOCOLS:
        asked = clients.open_client(protocol, questions, server.http, server.grpc)
        asked.ask(0)
        questions.logits[[0, 1]] = questions.logits[[1, 0]]
        try:
            with pytest.raises(clients.Wrong):
                asked.ask(0)
        finally:
            questions.logits[[0, 1]] = questions.logits[[1, 0]]
            asked.close()


def test_each_fault_is_told_what_it_is(enemies):
    told = hostile.each_once(enemies)
    assert {name: found for name, (found, _) in told.items()} == {
        name: expected for name, (_, expected) in told.items()
    }


def test_faults_beside_the_load_harm_nobody(server, questions, enemies):
    """Every good request is answered rightly, in batches; every bad one is told what it is."""
    images, runs = server.counts()
    with Load(server, questions, CLIENTS, clients.PROTOCOLS) as load:
        with hostile.Attack(enemies, threads=3) as attack:
            load.ask_for(4)
    assert not load.record.lost and not attack.told.wrong
    assert all(len(load.record.seconds(protocol)) > CLIENTS for protocol in clients.PROTOCOLS)
    deadline = time.monotonic() + 30
    while (now := server.counts())[0] - images < len(load.record.answered):
        assert time.monotonic() < deadline, (now, images)
        time.sleep(0.5)
    assert (now[0] - images) / (now[1] - runs) > 1.2


def test_a_killed_replica_loses_nothing_that_is_asked_once_more(server, questions):
    before = server.replicas()
    killed = drills.kill_a_replica(server, questions, CLIENTS, 3, clients.PROTOCOLS)
    assert not killed.record.lost
    assert len(server.replicas()) == len(before) == 1 and server.replicas() != before
    answers = [moment for _, moment, _ in killed.record.answered]
    assert max(answers) - min(answers) > killed.back  # by the new one too


def test_told_to_stop_it_answers_what_it_has_taken(server, questions):
    stopped = drills.terminate(server, questions, CLIENTS, 1, clients.PROTOCOLS)
    assert not stopped.record.lost and stopped.status == 0
    assert stopped.record.refused == CLIENTS and stopped.after > 0


@pytest.mark.slow
def test_a_minute_of_everything(small_bundles, tmp_path):
    """The whole command, on a model that merges."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving", str(small_bundles["small_vit", "r8"].path)]
        + ["--faults", "--kill-replica", "--sigterm", "--json", str(tmp_path / "found.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["throughput"]["mean_batch"] > 1
    _, middle, last = sorted_thirds([every for _, every, _ in found["memory_under_faults"]])
    assert last - middle < 20e6
