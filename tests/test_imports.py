"""The arrow of imports, and how light the base is (design, section 3)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("manifests", "datagen", "filters", "annotators", "bernini", "pipelines", "tests")
ALLOWED = {
    "manifests": {"manifests"}, "datagen": {"datagen", "manifests"}, "filters": {"filters", "manifests"},
    "annotators": {"annotators", "manifests"}, "bernini": {"bernini", "manifests"},
    "pipelines": {"pipelines", "datagen", "filters", "annotators", "bernini", "manifests"},
}
ONLY_PIPELINES = {"ray"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_lies_below_them(package):
    for path in (ROOT / package).rglob("*.py"):
        wrong = (imported(path) & set(OURS)) - ALLOWED[package]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"
        if package != "pipelines":
            assert not imported(path) & ONLY_PIPELINES, f"{path.relative_to(ROOT)} imports ray"


def modules_after(code: str) -> set[str]:
    run = subprocess.run([sys.executable, "-c", f"{code}\nimport sys; print(' '.join(sys.modules))"],
                         capture_output=True, text=True, cwd=ROOT, check=True)
    return {name.split(".")[0] for name in run.stdout.split()}


@pytest.mark.parametrize("code", [
    "import manifests, filters, annotators, datagen, bernini, pipelines",
    "import manifests.inspect, manifests.why, manifests.export, manifests.report",
    "import filters.rules, filters.balance, pipelines.decide, pipelines.run",
    "import pipelines.pairs.video_pairs",
    "import pipelines.measure, pipelines.dedupe, pipelines.mix, pipelines.datasets.command",
])
def test_manifest_work_needs_neither_torch_nor_ray(code):
    assert not modules_after(code) & {"torch", "ray", "transformers", "vllm", "faiss"}


def test_help_loads_nothing_heavy():
    code = "from pipelines.__main__ import main; main(['--help'])"
    assert not modules_after(code) & {"torch", "ray", "numpy", "pyarrow", "cv2", "av", "pandas"}
