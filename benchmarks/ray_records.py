"""A benchmark's record on a Ray cluster, against that of processes on this machine: figure by figure.

    python benchmarks/ray_records.py --out /tmp/ray --record records/ray.json

It takes three CPU minutes, and needs `pip install 'unweave[ray]'`.

It starts a cluster of two nodes with one core each on the loopback interface, and stops it at the end. Every
figure of the records is compared but those that time decides.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rows import write_json

from unweave.record.record import environment

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "node_ip_address": "127.0.0.2"}
"""A node on the loopback interface; Ray replaces 127.0.0.1 by the address of the machine."""

TIMED = ("seconds", "cost", "peak_mib", "digest")
"""What time decides, and the digest of the whole record."""


def bench(recipe: str, methods: str, seeds: int, out: Path, *flags: str) -> dict[str, object]:
    """Runs the benchmark by the command line; returns its record."""
    words = ["bench", recipe, "--methods", methods, "--seeds", str(seeds), "--out", str(out), "--quiet"]
    subprocess.run([sys.executable, "-m", "unweave", *words, *flags], check=True, stdout=subprocess.DEVNULL)
    return json.loads((out / "record.json").read_text())


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """The figures of a record by their paths, but the timed ones."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not isinstance(value, dict | list):
        yield path, value
    for key, part in parts:
        if key not in TIMED:
            yield from leaves(part, f"{path}/{key}")


def main() -> None:
    """The command: runs both and prints the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipe", default="digits-clean")
    parser.add_argument("--methods", default="lur,joint,salun")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True, help="a folder for both runs")
    parser.add_argument("--record", type=Path, help="the file to keep the result in, as JSON")
    arguments = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    run = (arguments.recipe, arguments.methods, arguments.seeds)
    local_figures = dict(leaves(bench(*run, arguments.out / "jobs", "--jobs", "2")))
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        os.environ["RAY_ADDRESS"] = cluster.address
        ray_figures = dict(leaves(bench(*run, arguments.out / "ray", "--ray", "auto")))
    finally:
        cluster.shutdown()
    differ = sorted(
        path
        for path in local_figures.keys() | ray_figures.keys()
        if local_figures.get(path) != ray_figures.get(path)
    )
    print(f"{len(local_figures)} figures, {len(differ)} differ")
    if arguments.record:
        request = {
            "recipe": arguments.recipe,
            "methods": arguments.methods.split(","),
            "seeds": arguments.seeds,
        }
        comparison = {"nodes": 2, "figures": len(local_figures), "differ": differ}
        write_json(arguments.record, {**request, **comparison, "environment": environment()})
    print(
        "\n".join(
            f"{path}: {local_figures.get(path)} here, {ray_figures.get(path)} on Ray" for path in differ
        )
    )


if __name__ == "__main__":
    main()
