"""A manifest as its reader meets it: written last, counted, versioned, streamable."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from manifests import manifest as module
from manifests.errors import ManifestError
from manifests.manifest import Manifest, ManifestWriter, find_manifests
from manifests.schema import STOPS

PAIRS = STOPS["pairs"]


def rows(num: int, drop=lambda i: None) -> pa.Table:
    return pa.Table.from_pylist([{"pair_id": f"p-{i:016x}", "video_id": f"v-{i // 10}", "drop_reason": drop(i),
                                  "num_attempts": 1} for i in range(num)], PAIRS.schema)


def write(path, table: pa.Table) -> Manifest:
    with ManifestWriter(str(path), PAIRS, table.schema) as writer:
        writer.append(table)
        return writer.commit(name="test", parents=[], config={"a": 1}, versions={"python": "3"})


def test_rows_come_back_with_their_types_docs_and_counts(tmp_path):
    table = rows(10, lambda i: "too short" if i % 2 else None)
    m = write(tmp_path / "m", table)
    assert m.table().equals(table)
    assert (m.num_rows, m.header["accepted"], m.header["drops"]) == (10, 5, {"too short": 5})
    assert m.schema.field("source_start_s").metadata[b"unit"] == b"s"
    assert m.header["columns"]["drop_reason"]["doc"].startswith("first rule broken")
    assert m.table(["pair_id"], pc.field("drop_reason") == "too short").num_rows == 5


def test_a_folder_without_header_is_not_trusted_and_says_so(tmp_path):
    writer = ManifestWriter(str(tmp_path / "m"), PAIRS, PAIRS.schema)
    writer.append(rows(3))
    with pytest.raises(ManifestError, match="not a manifest, or its run has not finished"):
        Manifest.open(str(tmp_path / "m"))


def test_another_schema_version_is_refused_with_what_to_do(tmp_path):
    m = write(tmp_path / "m", rows(1))
    header = json.loads((tmp_path / "m" / "manifest.json").read_text()) | {"schema_version": 99}
    (tmp_path / "m" / "manifest.json").write_text(json.dumps(header))
    with pytest.raises(ManifestError, match="schema version 99, this code reads version 1: use the matching release"):
        Manifest.open(m.path)


def test_equal_rows_give_equal_bytes_however_they_arrive(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS_PER_GROUP", 7)
    monkeypatch.setattr(module, "GROUPS_PER_PART", 2)
    table = rows(40)
    write(tmp_path / "whole", table)
    with ManifestWriter(str(tmp_path / "pieces"), PAIRS, table.schema) as writer:
        for start, size in ((0, 1), (1, 20), (21, 3), (24, 16)):
            writer.append(table.slice(start, size))
        pieces = writer.commit(name="test", parents=[], config={"a": 1}, versions={"python": "3"})
    names = sorted(p.name for p in (tmp_path / "whole").iterdir())
    assert names == ["manifest.json", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "pieces" / name).read_bytes()
    assert [b.num_rows for b in pieces.batches()] == [7, 7, 7, 7, 7, 5]


@pytest.mark.parametrize("damage, words", [
    (lambda f: (f / "part-00000.parquet").unlink(), "part-00000.parquet is missing"),
    (lambda f: (f / "part-00000.parquet").write_bytes(b"x"), "has 1 bytes"),
    (lambda f: (f / "manifest.json").write_text((f / "manifest.json").read_text().replace('"rows": 4', '"rows": 5')),
     "counts 5 rows"),
])
def test_validate_names_the_damage(tmp_path, damage, words):
    m = write(tmp_path / "m", rows(4))
    assert m.validate() == []
    damage(tmp_path / "m")
    problems = Manifest.open(m.path).validate()
    assert len(problems) == 1 and words in problems[0]


def test_validate_finds_repeated_and_missing_keys(tmp_path):
    table = pa.concat_tables([rows(3), rows(1), PAIRS.schema.empty_table()])
    assert "1 rows repeat a pair_id" in write(tmp_path / "m", table).validate()


def test_an_unknown_column_lists_the_known_ones(tmp_path):
    with pytest.raises(ManifestError, match="no column 'similarity'; it has pair_id, video_id"):
        write(tmp_path / "m", rows(1)).table(["similarity"])


def test_an_output_root_is_searched_for_its_manifests(tmp_path):
    m = write(tmp_path / "pairs" / "video-pairs-01234567", rows(1))
    assert find_manifests(str(tmp_path)) == [m.path]
    with pytest.raises(ManifestError, match="name one of: .*video-pairs-01234567"):
        Manifest.open(str(tmp_path))


def test_a_broken_write_leaves_no_part_behind(tmp_path):
    with pytest.raises(RuntimeError), ManifestWriter(str(tmp_path / "m"), PAIRS, PAIRS.schema) as writer:
        for _ in range(module.GROUPS_PER_PART):
            writer.append(rows(module.ROWS_PER_GROUP // 16))
        raise RuntimeError
    assert not list((tmp_path / "m").glob("*")) if (tmp_path / "m").exists() else True


def condition(path: str | None) -> dict:
    return {"role": "reference", "kind": "image", "path": path, "start_s": None, "end_s": None}


def with_media(root: str) -> pa.Table:
    """Media below the output folder, beside it, elsewhere and in a store; nulls and empty lists at every level."""
    own, other = f"{root}/media/ä 1.mp4", f"{root}er/media/2.mp4"
    table = rows(5).to_pylist()
    for row, source, target, conditions in zip(
            table, (own, None, "s3://bucket/a.mp4", other, own), (other, own, None, own, "/raw/v.mp4"),
            ([condition(own), None, condition(None)], None, [], [condition("/raw/v.mp4"), condition(own)], None), strict=True):
        row |= {"source_path": source, "target_path": target, "conditions": conditions}
    return pa.Table.from_pylist(table, PAIRS.schema)


def test_media_of_an_output_folder_are_stored_relative_and_found_where_it_was_moved(tmp_path):
    old, new = tmp_path / "out", tmp_path / "elsewhere" / "new name"
    m = write(old / "pairs" / "m", with_media(str(old)))
    assert m.table().equals(with_media(str(old)))
    stored = pq.read_table(old / "pairs" / "m" / "part-00000.parquet").to_pylist()
    assert [r["source_path"] for r in stored] == ["../../media/ä 1.mp4", None, "s3://bucket/a.mp4",
                                                  f"{old}er/media/2.mp4", "../../media/ä 1.mp4"]
    assert [c and c["path"] for c in stored[0]["conditions"]] == ["../../media/ä 1.mp4", None, None]
    new.parent.mkdir()
    old.rename(new)
    moved, expected = Manifest.open(new / "pairs" / "m"), with_media(str(new)).to_pylist()
    expected[0]["target_path"] = expected[3]["source_path"] = f"{old}er/media/2.mp4"  # was never below the output
    assert moved.table().to_pylist() == expected
    assert pa.concat_tables(moved.batches(["conditions"])).to_pylist() == [{"conditions": r["conditions"]} for r in expected]
    found = moved.table(["pair_id"], pc.field("source_path") == f"{new}/media/ä 1.mp4")
    assert found.num_rows == 2


def test_a_manifest_outside_the_layout_keeps_its_paths(tmp_path):
    m = write(tmp_path / "m", with_media(str(tmp_path.parent)))
    assert m.table().equals(with_media(str(tmp_path.parent)))
    assert pq.read_table(m.parts[0]).replace_schema_metadata(None).equals(m.table())


def test_names_that_a_document_gives_are_not_taken_for_media_of_ours(tmp_path):
    names = ["../../secret.jpg", "../secret.jpg", "a.jpg", f"{tmp_path}/out/media/1.png"]
    row = {"document_id": "d-1", "images": names, "order": ["image"] * 4, "texts": [], "num_attempts": 1}
    with ManifestWriter(str(tmp_path / "out" / "documents" / "m"), STOPS["documents"], STOPS["documents"].schema) as writer:
        writer.append(pa.Table.from_pylist([row], STOPS["documents"].schema))
        m = writer.commit(name="test", parents=[], config={}, versions={})
    assert m.table()["images"][0].as_py() == ["./../../secret.jpg", *names[1:]]


def test_what_is_written_beside_the_stops_of_an_output_folder_moves_with_it(tmp_path):
    write(tmp_path / "out" / "pairs" / "m", rows(1))
    write(tmp_path / "out" / "kept", with_media(str(tmp_path / "out")))
    (tmp_path / "out").rename(tmp_path / "moved")
    moved = Manifest.open(tmp_path / "moved" / "kept").table()
    assert moved["source_path"][0].as_py() == f"{tmp_path}/moved/media/ä 1.mp4"
    assert moved["conditions"][0][0]["path"].as_py() == f"{tmp_path}/moved/media/ä 1.mp4"
    assert moved["source_path"][3].as_py() == f"{tmp_path}/outer/media/2.mp4"
