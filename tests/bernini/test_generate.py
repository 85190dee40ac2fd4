"""From a case to a file, on a tiny model: what a user sees."""

import json

import av
import numpy as np
import pytest
from PIL import Image

from bernini.errors import BerniniError, Cancelled, CaseError, CheckpointError
from bernini.generate import command
from bernini.generate.cases import Case, read_batch, read_case
from bernini.generate.inputs import read_inputs
from bernini.generate.pipeline import Pipeline
from bernini.generate.presets import TASKS, Settings
from bernini.generate.reasoning import prepare
from bernini.layouts import open_model
from bernini.memory import MemorySettings

SMALL = dict(
    num_frames=9,
    max_image_size=48,
    height=32,
    width=48,
    num_inference_steps=3,
    planning_step=3,
    vit_denoising_step=1,
)
FLAGS = [x for k, v in SMALL.items() for x in (f"--{k.replace('_', '-')}", str(v))]


def case(task, media, tmp_path, **more):
    videos = {"v2v": 1, "mv2v": 1, "vi2v": 1, "rv2v": 1, "ads2v": 2}.get(task, 0)
    images = {"i2i": 1, "i2v": 1, "vi2v": 1, "r2v": 2, "rv2v": 2}.get(task, 0)
    values = dict(
        task_type=task,
        prompt="a red car",
        videos=tuple(map(str, (media["sound"], media["silent"])[:videos])),
        images=tuple(map(str, (media["wide"], media["tall"])[:images])),
        output=str(tmp_path / f"{task}.mp4"),
    )
    return Case(**(values | more))


def picture_size(path):
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture(scope="module")
def pipelines(tiny):
    made = {}

    def get(layout="full", **kwargs):
        key = (layout, *sorted(kwargs.items()))
        if key not in made:
            folder = tiny(layout)
            base = folder / "base" if layout == "experts" else None
            made[key] = Pipeline(open_model(folder, base), **kwargs)
        return made[key]

    return get


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "layout, preset", [("full", "released_v2"), ("full", "paper"), ("diffusers", "released_v1")]
)
def test_every_task_gives_a_file_of_the_asked_size(pipelines, media, tmp_path, task, layout, preset):
    pipeline, job = pipelines(layout, preset=preset), case(task, media, tmp_path)
    generated = pipeline.generate(job, pipeline.settings(job, SMALL))
    path = pipeline.save(job, generated)
    if task in ("t2i", "i2i"):
        assert path.suffix == ".png" and picture_size(path) == (48, 32)
    else:
        with av.open(str(path)) as video:
            frames = list(video.decode(video=0))
        assert (len(frames), frames[0].width, frames[0].height) == (9, 48, 32)


@pytest.mark.parametrize("layout", ["one_expert", "experts"])
def test_the_other_layouts_generate(pipelines, media, tmp_path, layout):
    pipeline, job = pipelines(layout), case("v2v", media, tmp_path)
    assert pipeline.generate(job, pipeline.settings(job, SMALL)).frames.shape == (9, 32, 48, 3)


def test_forwards_of_the_pipeline_are_those_planned(pipelines, media, tmp_path):
    pipeline = pipelines()
    for task, forwards in (("rv2v", 5), ("t2v", 3), ("v2v", 4)):
        job = case(task, media, tmp_path)
        assert pipeline.generate(job, pipeline.settings(job, SMALL)).num_forwards == 3 * forwards


def test_same_seed_same_clip_other_seed_other_clip(tiny, media, tmp_path):
    job = case("rv2v", media, tmp_path)

    def made(seed):
        pipeline = Pipeline(open_model(tiny()))  # a fresh one: nothing may be left from before
        return pipeline.generate(job, pipeline.settings(job, SMALL | {"seed": seed}))

    first, again, other = made(7), made(7), made(8)
    assert first.latent_hash == again.latent_hash and np.array_equal(first.frames, again.frames)
    assert first.latent_hash != other.latent_hash


def test_prompt_task_source_and_negative_prompt_reach_the_result(pipelines, media, tmp_path):
    pipeline = pipelines()
    changes = ({}, {"prompt": "a blue car"}, {"videos": (str(media["reversed"]),)}, {"task_type": "mv2v"})
    jobs = [case("v2v", media, tmp_path, **change) for change in changes]
    settings = [pipeline.settings(jobs[0], SMALL)] * 4 + [
        pipeline.settings(jobs[0], SMALL | {"neg_prompt": "ugly"})
    ]
    hashes = [
        pipeline.generate(job, s).latent_hash for job, s in zip([*jobs, jobs[0]], settings, strict=True)
    ]
    assert len(set(hashes)) == 5


def test_sequential_offload_holds_one_part_at_a_time_and_changes_nothing(tiny, media, tmp_path):
    job = case("rv2v", media, tmp_path)
    resident = Pipeline(open_model(tiny()))
    moving = Pipeline(open_model(tiny()), MemorySettings(offload="sequential"))
    held = []
    settings = moving.settings(job, SMALL)
    made = moving.generate(job, settings, lambda *a: held.append(len(moving.parts._held)))
    assert max(held) == 1
    assert moving.parts.num_loads == 6  # text, planner, vae, high, low, vae
    assert made.latent_hash == resident.generate(job, settings).latent_hash


def test_eight_bit_and_bfloat16_run_and_stay_near(tiny, media, tmp_path):
    job = case("t2i", media, tmp_path)
    frames = {}
    for precision in ("fp32", "bf16", "fp8"):
        pipeline = Pipeline(open_model(tiny()), MemorySettings(precision=precision))
        frames[precision] = pipeline.generate(job, pipeline.settings(job, SMALL)).frames.astype(int)
    exact = frames["fp32"]
    scrambled = np.abs(exact - exact[:, ::-1, ::-1]).mean()
    for precision in ("bf16", "fp8"):
        difference = np.abs(frames[precision] - exact).mean()
        assert 0 < difference < 0.5 * scrambled


def test_vae_tiling_gives_nearly_the_same_pixels(tiny):
    from bernini.generate.parts import Parts

    frames = (
        np.random.default_rng(0).integers(0, 255, (1, 18, 20, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    )
    whole, tiles = (Parts(open_model(tiny()), MemorySettings(vae_tiling=t))["vae"] for t in (False, True))
    latent = whole.encode(frames)
    assert latent.shape == (1, 16, 1, 36, 40)
    exact, tiled = whole.decode(latent).astype(int), tiles.decode(latent).astype(int)
    scrambled = np.abs(exact - exact[:, ::-1, ::-1]).mean()
    assert 0 < np.abs(exact - tiled).mean() < 0.2 * scrambled  # tiles differ near their seams only


def test_audio_is_kept_on_request_only_and_cut_to_the_clip(pipelines, media, tmp_path):
    pipeline, job = pipelines("one_expert"), case("v2v", media, tmp_path)
    generated = pipeline.generate(job, pipeline.settings(job, SMALL))
    with av.open(str(pipeline.save(job, generated))) as silent:
        assert not silent.streams.audio
    with av.open(str(pipeline.save(job, generated, keep_audio=True))) as loud:
        sound = np.concatenate([f.to_ndarray() for f in loud.decode(audio=0)], axis=1)
    assert 0.5 < sound.shape[1] / 16000 < 0.75  # nine frames at 16 fps are 0.56 s
    assert np.abs(sound).max() > 0.1


def test_progress_is_told_and_a_listener_can_stop(pipelines, media, tmp_path):
    pipeline, job, heard = pipelines(), case("v2v", media, tmp_path), []
    settings = pipeline.settings(job, SMALL)
    pipeline.generate(job, settings, lambda *a: heard.append(a))
    assert [h for h in heard if h[0] == "denoising"] == [("denoising", i, 3) for i in (1, 2, 3)]
    assert [s for s, _, _ in heard][0] == "text" and heard[-1] == ("decoding", 1, 1)

    def stop(stage, done, total):
        if (stage, done) == ("denoising", 2):
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        pipeline.generate(job, settings, stop)


def test_short_source_gives_a_short_clip(pipelines, media, tmp_path):
    job = case("v2v", media, tmp_path)
    inputs = read_inputs(job, Settings(num_frames=81, max_image_size=64), planner=True)
    assert inputs.size.num_frames == 25  # 24 frames at 16 fps fill 4k + 1 = 25
    assert (inputs.size.width, inputs.size.height) == (inputs.videos[0].shape[2], inputs.videos[0].shape[1])


def test_reasoning_by_the_planner_reaches_the_prompt(pipelines, media, tmp_path):
    pipeline, job = pipelines(), case("v2v", media, tmp_path)
    thought = prepare(job, pipeline, "self_text", given=SMALL, max_new_tokens=4)
    assert thought.prompt and thought.videos == job.videos and thought.task_type == "v2v"
    seen = prepare(job, pipeline, "self_vision_text", given=SMALL, max_new_tokens=4)
    assert seen.task_type == "rv2v" and picture_size(seen.images[0]) == (48, 32)
    with pytest.raises(CaseError, match="planner"):
        prepare(job, pipelines("diffusers"), "self_text", given=SMALL)
    with pytest.raises(CaseError, match="first frame"):
        prepare(case("t2v", media, tmp_path), pipeline, "self_vision_text", given=SMALL, max_new_tokens=2)


# Case files


def test_case_file_with_the_released_keys(media, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(media["silent"].read_bytes())
    file = tmp_path / "case.json"
    file.write_text(
        json.dumps(
            {
                "task_type": "rv2v",
                "guidance_mode": "rv2v_wapg",
                "prompt": "p",
                "video": "clip.mp4",
                "image": None,
                "images": [str(media["wide"])],
                "output": "o.mp4",
            }
        )
    )
    read = read_case(file).checked()
    assert read.videos == (str(tmp_path / "clip.mp4"),) and read.guidance_mode == "rv2v_wapg"


@pytest.mark.parametrize(
    "values, message",
    [
        ({"prompt": "p", "steps": 3}, "unknown key 'steps'"),
        ({"task_type": "t2v"}, "'prompt'"),
        ({"prompt": "p", "video": 3}, "'video' must be"),
        (["p"], "not a JSON object"),
    ],
)
def test_bad_case_files_say_what_and_where(tmp_path, values, message):
    file = tmp_path / "case.json"
    file.write_text(json.dumps(values))
    with pytest.raises(CaseError, match=message) as caught:
        read_case(file)
    assert "case.json" in str(caught.value)


def test_batch_files_as_list_and_as_lines(tmp_path):
    items = [{"prompt": "a", "task_type": "t2i"}, {"prompt": "b", "task_type": "t2v", "output": "b.mp4"}]
    (tmp_path / "list.json").write_text(json.dumps(items))
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, items)) + "\n")
    for name in ("list.json", "lines.jsonl"):
        cases = read_batch(tmp_path / name)
        assert [c.prompt for c in cases] == ["a", "b"]
        assert [c.output for c in cases] == ["outputs/0001.png", "b.mp4"]


# The command


def run(*argv, capsys):
    code = command.main([str(a) for a in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_command_writes_a_clip_and_prints_its_path(tiny, media, tmp_path, capsys):
    code, out, err = run(
        "--model",
        tiny("one_expert"),
        "--task",
        "v2v",
        "--prompt",
        "red",
        "--video",
        media["sound"],
        "--keep-audio",
        "--output",
        tmp_path / "o.mp4",
        *FLAGS,
        capsys=capsys,
    )
    assert code == 0 and out.strip() == str(tmp_path / "o.mp4") and (tmp_path / "o.mp4").exists()
    assert "memory:" in err and "denoising" in err and "left" in err


def test_batch_goes_on_after_a_bad_case_and_says_so(tiny, media, tmp_path, capsys):
    wrong = tmp_path / "wrong.mp4"
    wrong.write_text("no video")
    batch = tmp_path / "batch.json"
    batch.write_text(
        json.dumps(
            [
                {"prompt": "a", "task_type": "v2v", "video": str(wrong), "output": str(tmp_path / "a.mp4")},
                {"prompt": "b", "task_type": "t2i", "output": str(tmp_path / "b.png")},
            ]
        )
    )
    code, out, err = run("--model", tiny("one_expert"), "--inputs", batch, "--quiet", *FLAGS, capsys=capsys)
    assert code == 1 and (tmp_path / "b.png").exists() and "wrong.mp4 cannot be read as a video" in err


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--prompt", "  ", "--task", "t2v"], "the prompt is empty"),
        ([], "nothing to generate"),
        (["--prompt", "p", "--task", "v2v"], "needs at least 1 video"),
        (["--prompt", "p", "--task", "t2v", "--video", "{sound}"], "at most 0 video"),
        (["--prompt", "p", "--task", "v2v", "--video", "missing.mp4"], "missing.mp4 does not exist"),
        (["--prompt", "p", "--task", "v2v", "--video", "{wide}.txt"], "cannot be read as a video"),
        (["--prompt", "p", "--task", "r2v", "--images", "{wide}.txt"], "is not an image"),
        (["--prompt", "p", "--task", "r2v", "--images", "{sound}"], "is not an image"),
        (["--prompt", "p", "--task", "t2v", "--guidance-mode", "rv2v_wapg"], "unknown guidance mode"),
        (["--prompt", "p", "--task", "t2v", "--solver", "heun"], "unknown solver"),
        (["--prompt", "p", "--task", "t2v", "--attention", "quick"], "unknown attention kernel"),
        (["--case", "missing.json"], "missing.json cannot be read"),
    ],
)
def test_mistakes_are_one_line_and_code_2(tiny, media, capsys, argv, message):
    (media["wide"].parent / "wide.png.txt").write_text("text")
    argv = [a.format(wide=media["wide"], sound=media["sound"]) for a in argv]
    code, _, err = run("--model", tiny("one_expert"), *argv, *FLAGS, "--quiet", capsys=capsys)
    lines = [line for line in err.splitlines() if not line.startswith(("memory:", "loading", "warning:"))]
    assert code == 2 and len(lines) == 1
    assert lines[0].startswith("error: ") and message in lines[0]


@pytest.mark.parametrize(
    "name, message", [("nowhere", "is not a folder"), ("empty", "no known model layout")]
)
def test_wrong_model_folders_are_one_line(tmp_path, capsys, name, message):
    (tmp_path / "empty").mkdir()
    code, _, err = run("--model", tmp_path / name, "--prompt", "p", "--task", "t2v", capsys=capsys)
    assert code == 2 and message in err and err.count("\n") == 1


def test_estimate_only_loads_nothing(tiny, capsys, monkeypatch):
    from bernini.generate.parts import Parts

    monkeypatch.setattr(Parts, "_load", lambda *a: pytest.fail("loaded"))
    code, out, _ = run(
        "--model", tiny(), "--prompt", "p", "--task", "t2v", "--estimate-only", *FLAGS, capsys=capsys
    )
    assert code == 0 and out.startswith("memory: weights high")


def test_settings_without_effect_are_named(tiny, tmp_path, capsys):
    flags = [
        "--eta",
        "0.1",
        "--omega-tgt",
        "2",
        "--omega-txt",
        "3",
        "--quiet",
        "--output",
        tmp_path / "o.png",
    ]
    job = ["--model", tiny("one_expert"), "--prompt", "p", "--task", "t2i", *FLAGS]
    err = run(*job, *flags, "--guidance-mode", "t2v", capsys=capsys)[2]
    assert [line.split()[1] for line in err.splitlines() if line.startswith("warning:")] == [
        "--eta", "--omega-tgt", "--planning-step", "--vit-denoising-step",
    ]  # fmt: skip


@pytest.mark.parametrize("flags", [["--prompt", "p"], ["--video", "v.mp4"], ["--task", "t2v"]])
def test_flags_beside_a_case_file_are_refused_not_ignored(tiny, tmp_path, capsys, flags):
    (tmp_path / "c.json").write_text('{"prompt": "p", "task_type": "t2i"}')
    code, _, err = run("--model", tiny(), "--case", tmp_path / "c.json", *flags, capsys=capsys)
    assert code == 2 and "would be ignored" in err


def test_too_little_memory_is_refused_before_loading_with_the_flag_that_fits(
    tiny, media, tmp_path, capsys, monkeypatch
):
    from bernini.generate import pipeline
    from bernini.generate.parts import Parts

    monkeypatch.setattr(pipeline, "available", lambda device: 8.5 * 1024**2)
    monkeypatch.setattr(Parts, "_load", lambda *a: pytest.fail("loaded"))
    code, _, err = run("--model", tiny(), "--prompt", "p", "--task", "t2v", "--quiet", *FLAGS, capsys=capsys)
    assert code == 2 and "--offload sequential would fit" in err and err.count("\n") == 1


def test_hub_id_that_cannot_be_fetched_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, err = run("--model", "nobody/nothing-here", "--prompt", "p", "--task", "t2v", capsys=capsys)
    assert code == 2 and "nobody/nothing-here" in err and err.count("\n") == 1


def test_errors_are_one_tree():
    for error in (Cancelled, CaseError, CheckpointError):
        assert issubclass(error, BerniniError)
