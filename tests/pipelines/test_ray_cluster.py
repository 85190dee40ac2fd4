"""On an existing cluster without a change of code: two nodes on one machine, and a submitted job."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from .test_video_pairs import command, tree

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.slow]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def without_config(files: dict[str, bytes]) -> dict[str, object]:
    """Manifests name the engine and output they were made with; everything else must be equal."""
    out: dict[str, object] = dict(files)
    for name in files:
        if name.endswith("manifest.json"):
            out[name] = {k: v for k, v in json.loads(files[name]).items() if k != "config"}
    return out


TWO_NODES = """
import sys, ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def test_two_nodes_give_the_same_tables(film, film_run, tmp_path):
    with subprocess.Popen([sys.executable, "-c", TWO_NODES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.DEVNULL) as cluster:
        address = cluster.stdout.readline().strip()
        assert address
        done = subprocess.run(command(film, tmp_path / "out"), cwd=ROOT, capture_output=True, text=True,
                              env=os.environ | {"RAY_ADDRESS": address})
        assert done.returncode == 0, done.stderr
        cluster.stdin.close()  # the cluster ends with its input
    local = Path(film_run["videos"].path).parents[1]
    assert without_config(tree(tmp_path / "out")) == without_config(tree(local))


def test_a_submitted_job_runs_and_its_exit_code_comes_back(film, film_run, tmp_path):
    bin_folder, port = Path(sys.executable).parent, free_port()
    short = tempfile.mkdtemp(prefix="ray-")  # Ray's sockets lie in it, and their paths have at most 107 bytes
    head = subprocess.Popen(
        [bin_folder / "ray", "start", "--head", "--block", "--num-cpus=2", f"--port={free_port()}",
         f"--dashboard-port={port}", "--dashboard-host=127.0.0.1", "--disable-usage-stats", f"--temp-dir={short}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/api/version")
        submit = [bin_folder / "ray", "job", "submit", "--address", f"http://127.0.0.1:{port}", "--",
                  bin_folder / "bernini", *command(film, tmp_path / "out")[3:]]
        deadline = time.time() + 90
        while True:  # the dashboard answers some seconds before a node can take a job
            done = subprocess.run(submit, cwd=tmp_path, capture_output=True, text=True)
            if "No available agent" not in done.stderr or time.time() > deadline:
                break
            time.sleep(2)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "accepted" in done.stdout  # the funnel reaches who submitted
        failed = subprocess.run([*submit[:-1], "--similarity-min=0.99"], cwd=tmp_path, capture_output=True)
        assert failed.returncode != 0
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()
    local = Path(film_run["videos"].path).parents[1]
    assert without_config(tree(tmp_path / "out")) == without_config(tree(local))


def wait_for(url: str) -> None:
    deadline = time.time() + 90
    while time.time() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise TimeoutError(f"no dashboard at {url}")


def test_an_address_without_a_cluster_is_one_clear_error(film, tmp_path):
    done = subprocess.run(command(film, tmp_path / "out"), cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"RAY_ADDRESS": f"127.0.0.1:{free_port()}"}, timeout=60)
    assert done.returncode == 2
    assert "no Ray cluster answers at RAY_ADDRESS=127.0.0.1:" in done.stderr
