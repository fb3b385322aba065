"""The application, for `serve.run` here and for the configuration file of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tome_export.serving.options import Limits, ModelOptions, Scale

NAME = "tome"
"""Of the application in Ray."""
DEPLOYMENT = "model"
_AHEAD = 3  # batches at a replica: one runs, one is ready to, one is on its way


def build(args: Mapping[str, Any]) -> Any:
    """A Ray Serve application. args: `model`, the fields of ModelOptions, and `max_body_mb`.

    Named `tome_export.serving.app:build` in configuration files, where how many replicas there are is in
    `deployments`. Raises RequestError.
    """
    from ray import serve

    from tome_export.serving.replica import Replica

    options = ModelOptions.from_dict(dict(args["model"]))
    limits = Limits(body_mb=int(args.get("max_body_mb", Limits.body_mb)))
    deployment = serve.deployment(Replica).options(**deployment_options(options, Scale(), limits))
    return deployment.bind(options.as_dict(), limits.body_bytes)


def build_here(options: ModelOptions, scale: Scale, limits: Limits) -> Any:
    """The same application, with everything said in Python."""
    from ray import serve

    from tome_export.serving.replica import Replica

    deployment = serve.deployment(Replica).options(**deployment_options(options, scale, limits))
    return deployment.bind(options.as_dict(), limits.body_bytes)


def deployment_options(options: ModelOptions, scale: Scale, limits: Limits) -> dict[str, Any]:
    """How Ray is to run the deployment: the same words in Python and in a configuration file."""
    ongoing = _AHEAD * options.max_batch
    found: dict[str, Any] = {
        "name": DEPLOYMENT,
        "max_ongoing_requests": ongoing,
        "max_queued_requests": limits.requests,
        "health_check_period_s": 5.0,
        "health_check_timeout_s": 30.0,
        "graceful_shutdown_timeout_s": limits.drain_seconds,
        "graceful_shutdown_wait_loop_s": 0.2,
        "ray_actor_options": _resources(options),
    }
    if scale.fixed:
        return found | {"num_replicas": scale.least}
    autoscaling = {
        "min_replicas": scale.least,
        "max_replicas": scale.most,
        "target_ongoing_requests": float(options.max_batch),
    }
    return found | {"autoscaling_config": autoscaling}


def _resources(options: ModelOptions) -> dict[str, Any]:
    if options.device == "cpu":
        return {"num_cpus": options.threads}
    return {"num_cpus": options.threads, "num_gpus": 1}
