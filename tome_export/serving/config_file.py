"""The configuration file that `serve deploy` takes, for a Ray cluster."""

from __future__ import annotations

from typing import Any

from tome_export.serving.app import NAME, deployment_options
from tome_export.serving.options import Limits, Listen, ModelOptions, Scale
from tome_export.serving.proxy import Settings, add_services

_HEAD = """\
# serve deploy THIS_FILE, on a Ray cluster whose machines all have tome-export[serve], and the bundle at the
# path below.
"""


def config(options: ModelOptions, scale: Scale, limits: Limits, listen: Listen) -> dict[str, Any]:
    """As `ray.serve.schema.ServeDeploySchema` has it."""
    environment = Settings(limits, listen.host).environment()
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": listen.host, "port": listen.port},
        "grpc_options": {"port": listen.grpc_port, "grpc_servicer_functions": [import_path(add_services)]},
        "controller_options": {"runtime_env": {"env_vars": environment}},
        "logging_config": {"enable_access_log": False},
        "applications": [
            {
                "name": NAME,
                "route_prefix": "/",
                "import_path": "tome_export.serving.app:build",
                "args": {"model": options.as_dict(), "max_body_mb": limits.body_mb},
                "deployments": [deployment_options(options, scale, limits)],
            }
        ],
    }


def as_yaml(values: dict[str, Any]) -> str:
    """With a line on what to do with it."""
    import yaml

    return _HEAD + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def import_path(function: Any) -> str:
    return f"{function.__module__}:{function.__name__}"
