"""What the command line refuses, and the configuration file that it prints."""

import socket
import subprocess

import pytest
import yaml

from benchmarks.serving.server import free_ports
from tests.export.serving.server import COMMAND
from tome_export.errors import RequestError
from tome_export.serving.app import DEPLOYMENT
from tome_export.serving.options import Scale, divided_threads
from tome_export.serving.proxy import SETTINGS, Settings


def run(*arguments):
    return subprocess.run(
        [COMMAND, "serve", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-batch", 0], "--max-batch should be 1 to 4096, not 0"),
        (["--max-delay-ms", -1], "--max-delay-ms should be 0 to 10000 milliseconds"),
        (["--name", "a/b"], "is not a model name"),
        (["--replicas", 0], "--replicas should be at least 1"),
        (["--replicas", 2, "--autoscale", "1:2"], "contradict one another"),
        (["--autoscale", "3:1"], "no range of replicas"),
        (["--autoscale", "many"], "is not MIN:MAX"),
        (["--threads", 0], "--threads should be at least 1"),
        (["--port", 8001], "are both 8001"),
        (["--port", 99999], "--port should be 1 to 65535"),
        (["--device", "cuda:1"], "Ray gives each replica a GPU"),
        (["--runtime", "abacus"], "no runtime 'abacus'"),
        (["--precision", "int8"], "holds no onnx model in int8|holds no paddle model in int8"),
        (["--max-body-mb", 0], "--max-body-mb should be 1 to 1024"),
        (["--body-timeout", 0], "--body-timeout should be above 0"),
    ],
)
def test_a_bad_request_is_one_line_and_status_2(served_bundle, arguments, message):
    done = run(served_bundle.path, *arguments)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert any(each in line for each in message.split("|")), line


def test_a_port_in_use_is_said_before_anything_starts(served_bundle):
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        done = run(served_bundle.path, "--port", port)
    assert done.returncode == 2 and f"cannot listen on 127.0.0.1:{port}" in done.stderr


def test_a_folder_that_is_no_bundle(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 2 and "manifest.json" in done.stderr


def test_without_its_packages_it_names_the_extra(bare_child):
    done = bare_child("from tome_export.serving.needs import check_installed; check_installed()")
    assert 'pip install "tome-export[serve]"' in done.stderr and "ray" in done.stderr


def test_cores_are_divided_among_replicas():
    assert divided_threads(8, Scale()) == 8
    assert divided_threads(8, Scale(3, 3)) == 2
    assert divided_threads(8, Scale(1, 4)) == 2
    assert divided_threads(2, Scale(5, 5)) == 1
    with pytest.raises(RequestError):
        Scale(0, 2)


def printed(served_bundle, *arguments):
    done = run(served_bundle.path, "--print-config", *arguments)
    assert done.returncode == 0 and done.stderr == ""
    return yaml.safe_load(done.stdout)


def test_the_printed_file_is_what_ray_serve_deploys(served_bundle):
    from ray.serve.schema import ServeDeploySchema

    options = ("--replicas", 3, "--threads", 2, "--max-batch", 4, "--host", "0.0.0.0", "--max-body-mb", 2)
    values = printed(served_bundle, *options, "--port", 8080, "--max-requests", 9)
    schema = ServeDeploySchema(**values)
    (application,) = schema.applications
    (deployment,) = application.deployments
    assert deployment.name == DEPLOYMENT and deployment.num_replicas == 3
    assert deployment.ray_actor_options.num_cpus == 2
    assert deployment.max_queued_requests == 9
    assert application.args["model"]["max_batch"] == 4
    assert application.args["model"]["bundle"] == str(served_bundle.path.resolve())
    assert (schema.http_options.host, schema.http_options.port) == ("0.0.0.0", 8080)
    assert not set(values) - set(ServeDeploySchema.model_fields)


def test_its_environment_is_what_the_proxies_read(served_bundle, monkeypatch):
    values = printed(served_bundle, "--max-body-mb", 2, "--answer-timeout", 7, "--autoscale", "1:3")
    environment = values["controller_options"]["runtime_env"]["env_vars"]
    monkeypatch.setenv(SETTINGS, environment[SETTINGS])
    found = Settings.read()
    assert (found.limits.body_mb, found.limits.answer_seconds, found.host) == (2, 7.0, "127.0.0.1")
    assert found.secret == ""
    (deployment,) = values["applications"][0]["deployments"]
    assert deployment["autoscaling_config"]["max_replicas"] == 3 and "num_replicas" not in deployment
