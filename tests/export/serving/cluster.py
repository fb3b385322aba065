"""A Ray cluster of two simulated machines with one CPU each, until the standard input closes.

    python cluster.py DASHBOARD_PORT

Says "ready" when both are there. A process of its own, because Ray is one in a process.
"""

import sys


def main(port):
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "object_store_memory": 100 << 20}
    head = options | {
        "include_dashboard": True,
        "dashboard_host": "127.0.0.1",
        "dashboard_port": int(port),
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(**options)
        cluster.wait_for_nodes(60)
        print("ready", flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
