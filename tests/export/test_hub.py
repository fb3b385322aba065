"""hf: addresses, through the real huggingface_hub, to a server on this machine that talks like the Hub."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from tests.core.checkpoints.foreign import safetensors_file, torch_file
from tests.export.web import hub_pages, refused, serving
from tome_export import hub
from tome_export.errors import RequestError

WEIGHTS = safetensors_file({"head.bias": np.arange(7, dtype="f4")})
PICKLE = torch_file({"head.bias": np.arange(7, dtype="f4")})
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "hf:owner/vit.b16"

FETCH = """
import json, sys
from tome_export.errors import RequestError
from tome_export.fetch import fetch
from tome_export.quiet import quiet

answers = {}
with quiet() as session:
    for address in sys.argv[1:]:
        try:
            fetched = fetch(*address.split(" "))
            answers[address] = [fetched.source, fetched.path.read_bytes().hex()]
        except RequestError as error:
            answers[address] = str(error)
    print(json.dumps(answers), file=session.stdout)
"""


@pytest.fixture(scope="module")
def hub_server():
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    with serving() as server:
        files = {
            "README.md": b"# A model",
            "model.safetensors": WEIGHTS,
            "pytorch_model.bin": PICKLE,
            "other/model.pdparams": PICKLE,
        }
        shards = {f"model-0000{i}-of-00002.safetensors": WEIGHTS for i in (1, 2)}
        server.pages = {
            **hub_pages("owner/vit.b16", files, COMMIT, ("main", "v1.0", "refs%2Fpr%2F1")),
            **hub_pages("owner/split", {**shards, "model.safetensors.index.json": b"{}"}, COMMIT),
            **hub_pages("owner/several", {"a.safetensors": WEIGHTS, "b.safetensors": WEIGHTS}, COMMIT),
            "/owner/vit.b16/resolve/v9/model.safetensors": refused(404, "RevisionNotFound"),
            "/owner/vit.b16/resolve/main/absent.bin": refused(404, "EntryNotFound"),
        }
        for name, status, code in (
            ("gated", 403, "GatedRepo"),
            ("none", 404, "RepoNotFound"),
            ("vit.b16", 404, "RevisionNotFound"),
        ):
            for kind in ("revision", "tree"):
                revision = "v9" if code == "RevisionNotFound" else "main"
                server.pages[f"/api/models/owner/{name}/{kind}/{revision}"] = refused(status, code)
            if revision == "main":
                server.pages[f"/api/models/owner/{name}"] = refused(status, code)
        yield server


@pytest.fixture
def ask(child, tmp_path, monkeypatch):
    """Fetch addresses in a process of its own, since huggingface_hub reads its environment when imported."""

    def run(endpoint, *addresses, **environment):
        for name, value in {"HF_HOME": tmp_path, "HF_ENDPOINT": endpoint, **environment}.items():
            monkeypatch.setenv(name, str(value))
        done = child(FETCH, *addresses)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    return run


def test_files_and_refusals(hub_server, ask):
    wrong, right = "1" * 64, hashlib.sha256(PICKLE).hexdigest()
    found = ask(
        hub_server.url,
        REPO,
        f"{REPO}@v1.0",
        f"{REPO}@refs/pr/1",
        f"{REPO}@{COMMIT}",
        f"{REPO}:other/model.pdparams",
        f"{REPO}:pytorch_model.bin {right}",
        f"{REPO}:pytorch_model.bin {wrong}",
        f"{REPO}@v9",
        f"{REPO}@v9:model.safetensors",
        f"{REPO}:absent.bin",
        "hf:owner/split",
        "hf:owner/split:model.safetensors.index.json",
        "hf:owner/several",
        "hf:owner/gated",
        "hf:owner/none",
    )
    chosen = [f"{REPO}@{COMMIT}:model.safetensors", WEIGHTS.hex()]
    assert found[REPO] == found[f"{REPO}@v1.0"] == found[f"{REPO}@refs/pr/1"] == chosen
    assert found[f"{REPO}@{COMMIT}"] == chosen
    source = f"{REPO}@{COMMIT}:other/model.pdparams"
    assert found[f"{REPO}:other/model.pdparams"] == [source, PICKLE.hex()]
    assert found[f"{REPO}:pytorch_model.bin {right}"] == [f"{REPO}@{COMMIT}:pytorch_model.bin", PICKLE.hex()]
    for address, words in {
        f"{REPO}:pytorch_model.bin {wrong}": f"its sha256 is {right}, not {wrong}",
        f"{REPO}@v9": "no such revision",
        f"{REPO}@v9:model.safetensors": "no such revision",
        f"{REPO}:absent.bin": "no such file",
        "hf:owner/split": "split over several files (model.safetensors.index.json)",
        "hf:owner/split:model.safetensors.index.json": "split over several files",
        "hf:owner/several": "which of a.safetensors, b.safetensors? Add :FILE",
        "hf:owner/gated": "its owner must let you in",
        "hf:owner/none": "no such model on the Hub, or a private one",
    }.items():
        assert words in found[address] and "\n" not in found[address], address
        assert found[address].startswith(address.split(" ")[0])


def test_the_cache_answers_where_the_hub_does_not(hub_server, ask):
    chosen = [f"{REPO}@{COMMIT}:model.safetensors", WEIGHTS.hex()]
    assert ask(hub_server.url, REPO, f"{REPO}@v1.0") == {REPO: chosen, f"{REPO}@v1.0": chosen}
    asked = (REPO, f"{REPO}@v1.0", f"{REPO}:model.safetensors", "hf:owner/split", f"{REPO}:pytorch_model.bin")
    before = len(hub_server.asked)
    offline = ask(hub_server.url, *asked, HF_HUB_OFFLINE="1")
    assert len(hub_server.asked) == before
    unreachable = ask("http://127.0.0.1:9", *asked, HF_HUB_OFFLINE="0")
    for found in (offline, unreachable):
        assert found[REPO] == found[f"{REPO}@v1.0"] == found[f"{REPO}:model.safetensors"] == chosen
    for absent in asked[3:]:
        assert "not in the Hub's cache" in offline[absent] and offline[absent] == unreachable[absent]


def test_the_program_lets_the_hubs_chatter_through_to_nobody(hub_server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", hub_server.url)
    done = subprocess.run(
        [sys.executable, "-c", "from tome_export.cli import main; main()", "--model", "vit_ti16"]
        + ["--weights", f"{REPO}:model.safetensors", "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    step, error = done.stdout, done.stderr
    assert (
        done.returncode == 2 and step.split()[:3] == ["download", "the", "weights"] and step.count("\n") == 1
    )
    assert error.startswith("error: ") and error.count("\n") == 1 and "known layout" in error
    assert not (tmp_path / "out").exists()


def test_without_the_extra(bare_child):
    done = bare_child("""
from tome_export.errors import MissingExtraError
from tome_export.fetch import fetch
try:
    fetch("hf:owner/name")
except MissingExtraError as error:
    print(error)
""")
    assert done.stdout == 'the huggingface_hub package is not installed: pip install "tome-export[hf]"\n'


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["config.json", "model.safetensors", "pytorch_model.bin", "x.safetensors"], "model.safetensors"),
        (["vit.safetensors", "pytorch_model.bin", "onnx/model.safetensors"], "vit.safetensors"),
        (["pytorch_model.bin", "vit.pth", "model_state.pdparams"], "pytorch_model.bin"),
        (["vit.pth", "README.md", "labels.txt"], "vit.pth"),
        (["model_state.pdparams", "model_config.json"], "model_state.pdparams"),
        (["B_16.npz"], "B_16.npz"),
        (["model.safetensors", "model.safetensors.index.json"], "model.safetensors"),
        (["pytorch_model.bin", "model-00001-of-00002.safetensors"], "pytorch_model.bin"),
    ],
)
def test_the_one_weights_file(files, chosen):
    assert hub.pick(files, "hf:a/b") == hub.pick(files[::-1], "hf:a/b") == chosen


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            ["a.safetensors", "b.safetensors", "pytorch_model.bin"],
            "which of a.safetensors, b.safetensors, py",
        ),
        (["a.pth", "b.pdparams"], "which of a.pth, b.pdparams"),
        (["fold/a.pth"], "which of fold/a.pth"),
        ([f"{i}.pth" for i in range(9)], "5.pth and 3 more"),
        (["README.md", "config.json"], "no weights file"),
        ([], "no weights file"),
        (
            ["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"],
            "pytorch_model.bin.index.json",
        ),
        (["model-00001-of-00001.safetensors"], "split over several files (model-00001-of-00001.safetensors)"),
    ],
)
def test_no_one_weights_file(files, words):
    with pytest.raises(RequestError) as caught:
        hub.pick(files, "hf:a/b")
    assert words in str(caught.value) and str(caught.value).startswith("hf:a/b: ")


def test_addresses():
    assert hub.parse("hf:a/b") == hub.HubFile("a/b")
    assert hub.parse("hf:a/b.c-d_e@refs/pr/1:f/g.bin") == hub.HubFile("a/b.c-d_e", "refs/pr/1", "f/g.bin")
    assert str(hub.parse("hf:a/b@v1:c.npz")) == "hf:a/b@v1:c.npz"


@pytest.mark.parametrize(
    "address",
    [
        "hf:",
        "hf:a",
        "hf:a/b/c",
        "hf://a/b",
        "hf:a/b@",
        "hf:a/b:",
        "hf:a/b@../x",
        "hf:a/b:../x",
        "hf:../b",
        "hf:a b/c",
    ],
)
def test_addresses_that_are_none(address):
    with pytest.raises(RequestError, match="is not of the form"):
        hub.parse(address)
