"""One contract for every op that adds columns: typed, ordered, pure, honest about what it cannot measure."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pytest

from annotators import ANNOTATORS
from filters import FILTERS
from filters.rules import Rule
from manifests.columns import ACCOUNT
from pipelines.local import build
from pipelines.scan import measure_classes
from pipelines.stage import Stage, check

VIDEO_OPS = {"scan": Stage(op="pipelines.scan:ScanVideos", kwargs={"measures": tuple(FILTERS)})}


@pytest.fixture(scope="module")
def video_table(tmp_path_factory) -> pa.Table:
    from manifests.schema import VIDEOS
    from manifests.video_writer import write_video
    from tests.conftest import moving_frames

    folder, rows = tmp_path_factory.mktemp("contract"), []
    for i, name in enumerate(("a.mp4", "broken.mp4", "c.mp4")):
        path = folder / name
        if name == "broken.mp4":
            path.write_bytes(b"not a video")
        else:
            write_video(str(path), moving_frames(60, seed=i), fps=25)
        rows.append({"video_id": f"v-{i}", "path": str(path), "num_bytes": path.stat().st_size, "issues": []})
    return pa.Table.from_pylist(rows, VIDEOS.schema)


def run(stage: Stage, table: pa.Table) -> pa.Table:
    return build(stage)(table)


@pytest.mark.parametrize("name", VIDEO_OPS)
def test_an_op_keeps_the_contract(name, video_table):
    stage = VIDEO_OPS[name]
    before = video_table.to_pylist()
    out = run(pickle.loads(pickle.dumps(stage)), video_table)
    assert video_table.to_pylist() == before  # nothing is mutated
    assert out.schema.equals(check((stage,), video_table.schema))  # declared columns and types, in order
    assert out["video_id"].to_pylist() == video_table["video_id"].to_pylist()
    assert out.equals(run(stage, video_table))  # two runs are equal
    assert run(stage, video_table.slice(0, 0)).schema.equals(out.schema)  # an empty table is a table
    alone = pa.concat_tables([run(stage, video_table.slice(i, 1)) for i in range(3)])
    assert out.equals(alone.combine_chunks().cast(out.schema)) or out.to_pylist() == alone.to_pylist()


def test_an_unreadable_file_is_null_with_an_issue_and_leaves_its_neighbours_alone(video_table):
    rows = run(VIDEO_OPS["scan"], video_table).to_pylist()
    assert rows[1]["clips"] is None and "cannot open" in rows[1]["issues"][0]
    assert rows[0]["issues"] == rows[2]["issues"] == [] and rows[0]["clips"] and rows[2]["clips"]


def test_rules_keep_the_contract(video_table):
    stage = Stage(op="filters.rules:ApplyRules", kwargs={"rules": (Rule(column="num_bytes", min=100),)})
    out = run(pickle.loads(pickle.dumps(stage)), video_table)
    assert out.schema.equals(check((stage,), video_table.schema))
    assert out["drop_reason"].to_pylist() == [None, "num_bytes<100", None]


@pytest.mark.parametrize("name", FILTERS)
def test_a_measure_documents_its_columns(name):
    (cls,) = measure_classes([name])
    assert cls.__doc__ or __import__(cls.__module__, fromlist=["x"]).__doc__
    for field in cls.adds:
        assert field.metadata[b"doc"], field.name


def test_no_two_filters_or_account_columns_share_a_name():
    names = [f.name for n in FILTERS for f in measure_classes([n])[0].adds] + [f.name for f in ACCOUNT]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ANNOTATORS)
def test_an_annotator_has_a_static_contract(name):
    asked = {"backend": "openai", "urls": ("http://127.0.0.1:9/v1",), "model": "m"}  # some cannot be measured
    reads, adds, _ = Stage(op=ANNOTATORS[name], kwargs=asked).contract()
    assert reads and all(field.metadata[b"doc"] for field in adds)
