"""mix, as a user calls it."""

from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from manifests.manifest import Manifest, live

from .small_samples import SETS


def mixed(out: str) -> pa.Table:
    return Manifest.open(out.split()[-1]).table()


def test_weights_add_up_to_the_shares_and_stay_in_proportion(bernini, samples, tmp_path):
    code, out, err = bernini("mix", samples, "--stage", "IIa", "--output", tmp_path)
    assert code == 0, err
    table = mixed(out)
    total = {n: pc.sum(table.filter(pc.equal(table["source_name"], n))["weight"]).as_py() for n in SETS}
    shares = {"inhouse-t2v": 42, "video-pairs": 11, "pico-banana-400k": 4, "vace-hq": 0.4}
    assert total == pytest.approx({n: s / 57.4 for n, s in shares.items()})
    rows = [r for r in table.to_pylist() if r["source_name"] == "inhouse-t2v"]
    assert rows[0]["weight"] == 0.0 and rows[0]["drop_reason"] == "because"  # kept, not drawn
    assert rows[1]["weight"] == pytest.approx(2 * rows[2]["weight"])
    assert rows[1]["num_tokens"] == 17 * 1560 + 512 and rows[1]["licence_id"] == "MIT"  # 5 s: 65 of 80 frames
    assert "nothing is there of T2I 31, I2V 0.4, IV2V 0.3, I.P. 11" in out


def test_parents_of_one_name_are_told_apart(bernini, samples, tmp_path):
    """`--write` takes any name: two manifests of it are two mixtures, and one that was copied stays the same."""
    found = {}
    for rule in ("weight<=1.5", "weight>=1.5"):
        kept = tmp_path / rule[6] / "kept"
        assert bernini("filter", samples, "--keep", rule, "--write", kept)[0] == 0
        code, out, err = bernini("mix", kept, "--stage", "even", "--output", tmp_path / "m")
        assert code == 0, err
        found[rule] = out.split()[-1]
        assert pc.sum(pc.is_null(mixed(out)["drop_reason"])).as_py() == Manifest.open(str(kept)).header["accepted"]
    assert len(set(found.values())) == 2
    shutil.copytree(tmp_path / "<" / "kept", tmp_path / "copy" / "kept")
    assert bernini("mix", tmp_path / "copy/kept", "--stage", "even", "--output", tmp_path / "m")[1].split()[-1] == found[
        "weight<=1.5"]


def test_rows_that_come_twice_are_refused_and_mixtures_are_left_out(bernini, samples, tmp_path):
    for words in (("mix", samples, samples, "--stage", "even", "--output", tmp_path / "x"),
                  ("filter", samples, samples, "--keep", "weight<=1.5", "--write", tmp_path / "x")):
        code, _, err = bernini(*words)
        assert code == 2 and "share 125 rows (equal sample_id): name each one once" in err
    assert not (tmp_path / "x").exists()
    shutil.copytree(samples, tmp_path / "samples" / "own")
    first = bernini("mix", tmp_path / "samples/own", "--stage", "even", "--output", tmp_path)[1].split()[-1]
    code, out, err = bernini("mix", *sorted((tmp_path / "samples").iterdir()), "--stage", "even", "--output", tmp_path)
    assert code == 0 and f"left out: {first} is a mixture itself" in out and out.split()[-1] == first, err
    code, _, err = bernini("mix", first, "--stage", "even", "--output", tmp_path)
    assert code == 2 and "name the samples that it was made of" in err


def test_rights_leave_out_what_may_not_be_used(bernini, samples, tmp_path):
    code, out, _ = bernini("mix", samples, "--stage", "IIa", "--output", tmp_path, "--rights", "commercial")
    table = mixed(out)
    assert code == 0 and set(live(table)["source_name"].to_pylist()) == {"inhouse-t2v", "video-pairs"}
    reasons = dict(zip(table["source_name"].to_pylist(), table["drop_reason"].to_pylist(), strict=True))
    assert reasons["pico-banana-400k"] == "rights is non-commercial no-derivatives"
    assert reasons["vace-hq"] == "rights is unknown" and "left out: 19 rights is non-commercial" in out
    code, _, err = bernini("mix", samples, "--stage", "IIa", "--output", tmp_path, "--rights", "all")
    assert code == 2 and "no policy 'all' for --rights; known: any, known, research, commercial" in err


def test_sets_that_repeat_too_often_are_told(bernini, samples, tmp_path):
    call = ("mix", samples, "--stage", "even", "--output", tmp_path, "--weight", "vace-hq=100", "--samples-per-step", "2")
    code, out, _ = bernini(*call, "--steps", "30", "--max-repeat", "5")
    # 60 draws; 39 + 59 + 19 + 100 weights; vace-hq has 4 live samples
    assert code == 0 and f"vace-hq (v2v) would be drawn {60 * 100 / 217 / 4:.1f} times, more than 5" in out
    assert out.count("warning: each sample of") == 1
    assert "warning: each" not in bernini(*call, "--steps", "10", "--max-repeat", "5")[1]
    code, _, err = bernini("mix", samples, "--stage", "even", "--output", tmp_path, "--weight", "nobody=1")
    assert code == 2 and "a weight is given for 'nobody', but no samples are of it" in err
    code, _, err = bernini("mix", samples, "--stage", "even", "--output", tmp_path, "--steps", "5")
    assert code == 2 and "--steps needs --samples-per-step or --tokens-per-step" in err


@pytest.mark.parametrize("words, message", [
    (("--steps=-5",), "--steps is -5; it is a whole number, 0 or more"),
    (("--steps=5", "--samples-per-step=-4"), "--samples-per-step is -4; it is a finite number, 0 or more"),
    (("--steps=5", "--samples-per-step=nan"), "--samples-per-step is nan; it is a finite number, 0 or more"),
    (("--steps=5", "--tokens-per-step=inf"), "--tokens-per-step is inf; it is a finite number, 0 or more"),
    (("--max-repeat=-1",), "--max-repeat is -1; it is a finite number above 0"),
    (("--progress=nan",), "--progress is nan; it is the finished share of a stage, 0 to 1"),
    (("--weight=vace-hq=nan",), "--weight vace-hq=nan: a weight is a finite number, 0 or more"),
    (("--weight=vace-hq=inf",), "--weight vace-hq=inf: a weight is a finite number, 0 or more"),
])
def test_numbers_that_no_mixture_can_have_are_refused(bernini, samples, tmp_path, words, message):
    code, _, err = bernini("mix", samples, "--stage", "IIa", "--output", tmp_path, *words)
    assert code == 2 and message in err and not list(tmp_path.iterdir())


def test_what_a_mixture_does_not_draw_and_what_has_no_effect_is_told(bernini, samples, tmp_path):
    call = ("mix", samples, "--output", tmp_path)
    code, out, err = bernini(*call, "--stage", "IIa", "--progress", "1", "--steps", "100", "--samples-per-step", "64")
    assert code == 0 and "note: video-pairs (v2v) has no weight at this progress (1), only earlier in the stage" in out, err
    assert "will not be drawn" not in out and "warning: each sample of video-pairs (v2v) would be drawn" in out
    code, out, err = bernini(*call, "--stage", "IIb", "--weight", "video-pairs=3")
    assert code == 0 and "warning: --weight video-pairs has no effect: stage IIb draws nothing of V.P." in out, err
    assert "note: video-pairs (v2v) has no weight in this stage and will not be drawn" in out
    code, out, err = bernini(*call, "--stage", "IIa", "--weight", "video-pairs=3", "vace-hq=1")
    assert code == 0 and "--weight video-pairs has no effect: it is all there is of V.P., whose share the stage sets" in out
    assert "--weight vace-hq has no effect: it is all there is of V2V" in out
    assert "no effect" not in bernini(*call, "--stage", "even", "--weight", "video-pairs=3")[1]
    code, _, err = bernini(*call, "--stage", "propagation")  # none of the samples is a task of it
    assert code == 2 and "mixture propagation gives no weight to any of the data sets" in err


def test_the_steps_that_are_advised_do_not_repeat_too_often(bernini, samples, tmp_path):
    """Of 4 samples with a share of 100 / 217: 400 / 217 / 4 = 0.46 repeats a step of four samples."""
    call = ("mix", samples, "--stage", "even", "--output", tmp_path, "--weight", "vace-hq=100", "--steps", "100")
    for size, advice in (("4", "or at most 8 steps"), ("20", "or at most 1 step\n"), ("400", "or a lower --weight\n")):
        code, out, err = bernini(*call, "--samples-per-step", size)
        warning = next(line + "\n" for line in out.splitlines() if line.startswith("warning: each sample of vace-hq"))
        assert code == 0 and advice in warning and "0 steps" not in warning, err


def test_snapshots_decay_and_are_what_the_trainer_reads(bernini, samples, tmp_path):
    import pyarrow.parquet as pq

    names, data = ["t2v$inhouse-t2v", "v2v$video-pairs", "v2v$video-pairs"], tmp_path / "data"
    data.mkdir()
    sources = [str(data / f"{n}.parquet") for n in range(3)]
    for path, num in zip(sources, (40, 45, 15), strict=True):
        pq.write_table(pa.table({"inputs": ["[]"] * num}), path)
    base = {"sources": sources, "names": names, "level": "sample", "stopping_strategy": "never_exhausted",
            "upstream_sharded": False, "schedule": [{"schedule_type": "const", "weights": [0.5, 0.25, 0.25]}]}
    (data / "data.yaml").write_text(json.dumps(base))
    code, out, err = bernini("mix", samples, "--stage", "IIa", "--output", tmp_path / "o", "--steps", "1000",
                             "--samples-per-step", "16", "--snapshots", "4", "--trainer-data", data, "--simulate")
    assert code == 0, err
    odds = []
    for n in range(4):
        config = json.loads((data / f"snapshot-{n:02d}" / "data.yaml").read_text())
        (schedule,) = config["schedule"]
        assert schedule["schedule_type"] == "const" and config["sources"] == sources and config["names"] == names
        t2v, first, second = schedule["weights"]
        assert t2v + first + second == pytest.approx(1) and first == pytest.approx(3 * second)  # by rows of the files
        odds.append((first + second) / t2v)
    assert odds == pytest.approx([11 / 42 * left for left in (0.875, 0.625, 0.375, 0.125)])
    plan = json.loads((data / "snapshots.json").read_text())
    assert [(p["first_step"], p["end_step"]) for p in plan] == [(0, 250), (250, 500), (500, 750), (750, 1000)]
    drawn = [int(line.split()[2].replace(",", "")) for line in out.splitlines() if line.startswith("  video-pairs")]
    assert len(drawn) == 4 and drawn == sorted(drawn, reverse=True) and sum(drawn) < 4000  # of 16,000 draws
    assert abs(drawn[0] - 4000 * 11 * 0.875 / (46.4 + 11 * 0.875)) < 150  # five standard deviations
    for steps in ((), ("--steps", "3", "--samples-per-step", "16")):
        code, _, err = bernini("mix", samples, "--stage", "IIa", "--output", tmp_path, "--snapshots", "4", *steps)
        assert code == 2 and "--snapshots 4 cuts the stage into parts of steps" in err
    code, _, err = bernini("mix", samples, "--stage", "IIa", "--output", tmp_path, "--trainer-data", tmp_path)
    assert code == 2 and "has no data.yaml" in err
