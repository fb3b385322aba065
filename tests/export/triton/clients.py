"""Real Triton clients, run by the Python of the server's environment.

tritonclient.grpc does not share a process with other users of gRPC.

    python clients.py TASK HTTP_PORT GRPC_PORT FOLDER

Inputs and answers are files in FOLDER.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np


def open_client(protocol, port):
    if protocol == "http":
        import tritonclient.http as module
    else:
        import tritonclient.grpc as module
    return module, module.InferenceServerClient(f"127.0.0.1:{port}")


def ask(module, client, model, name, array, datatype, outputs):
    tensor = module.InferInput(name, array.shape, datatype)
    tensor.set_data_from_numpy(array)
    wanted = [module.InferRequestedOutput(each) for each in outputs]
    answer = client.infer(model, [tensor], outputs=wanted)
    return {each: answer.as_numpy(each) for each in outputs}


def classify(module, client, files):
    """The answer to one request of several picture files, or what was wrong with it."""
    contents = np.array([[Path(file).read_bytes()] for file in files], dtype=object)
    try:
        found = ask(
            module, client, "vit_jpeg", "jpeg", contents, "BYTES", ["labels", "probabilities", "classes"]
        )
    except module.InferenceServerException as error:
        return str(error)
    return {
        "labels": [[label.decode() for label in row] for row in found["labels"]],
        "probabilities": found["probabilities"].tolist(),
        "classes": found["classes"].tolist(),
    }


def logits(ports, folder):
    """The tensor model, over both protocols."""
    images = np.load(folder / "images.npy")
    for protocol, port in ports.items():
        module, client = open_client(protocol, port)
        for count in (1, 5):
            found = ask(module, client, "vit", "image", images[:count], "FP32", ["logits", "sources"])
            np.savez(folder / f"{protocol}-{count}.npz", **found)


def crowd(ports, folder):
    """Many clients at once, each with an image of its own, and what the server says it did."""
    images = np.load(folder / "images.npy")
    module, client = open_client("http", ports["http"])
    before = client.get_inference_statistics("vit")["model_stats"][0]

    def one(index):
        own = module.InferenceServerClient(f"127.0.0.1:{ports['http']}")
        rows = [
            ask(module, own, "vit", "image", images[index : index + 1], "FP32", ["logits"]) for _ in range(4)
        ]
        return [row["logits"][0] for row in rows]

    with ThreadPoolExecutor(len(images)) as pool:
        np.save(folder / "crowd.npy", np.array(list(pool.map(one, range(len(images))))))
    after = client.get_inference_statistics("vit")["model_stats"][0]
    counts = {key: after[key] - before[key] for key in ("inference_count", "execution_count")}
    (folder / "crowd.json").write_text(json.dumps(counts))


def jpegs(ports, folder):
    """Each request of requests.json, a list of picture files: all over HTTP at once, then each over gRPC."""
    requests = json.loads((folder / "requests.json").read_text())
    module, client = open_client("http", ports["http"])

    def one(files):
        return classify(module, module.InferenceServerClient(f"127.0.0.1:{ports['http']}"), files)

    with ThreadPoolExecutor(len(requests)) as pool:
        found = {"http": list(pool.map(one, requests))}
    module, client = open_client("grpc", ports["grpc"])
    found["grpc"] = [classify(module, client, files) for files in requests]
    (folder / "answers.json").write_text(json.dumps(found))


def named(ports, folder):
    """Triton's own classification of the tensor model's logits, and a request of a wrong shape."""
    images = np.load(folder / "images.npy")
    module, client = open_client("grpc", ports["grpc"])
    tensor = module.InferInput("image", images[:1].shape, "FP32")
    tensor.set_data_from_numpy(images[:1])
    wanted = [module.InferRequestedOutput("logits", class_count=3)]
    rows = client.infer("vit", [tensor], outputs=wanted).as_numpy("logits")
    found = {"best": [row.decode() for row in rows[0]], "wrong": ""}
    try:
        ask(module, client, "vit", "image", np.zeros((1, 3, 64, 63), np.float32), "FP32", ["logits"])
    except module.InferenceServerException as error:
        found["wrong"] = str(error)
    found["config"] = client.get_model_config("vit", as_json=True)["config"]
    (folder / "named.json").write_text(json.dumps(found))


def parse(ports, folder):
    """Every config.pbtxt below the folder, as Triton's own schema reads it."""
    from google.protobuf import json_format, text_format
    from tritonclient.grpc import model_config_pb2

    found = {}
    for path in sorted(folder.glob("*/config.pbtxt")):
        message = text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
        found[path.parent.name] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    (folder / "parsed.json").write_text(json.dumps(found))


if __name__ == "__main__":
    task, http, grpc, where = sys.argv[1:]
    globals()[task]({"http": int(http), "grpc": int(grpc)}, Path(where))
