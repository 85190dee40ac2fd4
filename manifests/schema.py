"""The stops of the house: what one row is, its key, and the columns every such table has.

These are the columns that come with the row itself. Measures are added by the ops that own
them (`adds`), so that a reader finds the file of a column by its name and a new measure
touches no schema. Paths of media below the output folder are stored relative to the
manifest, all others absolute (media_paths.py); `Manifest` gives absolute ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from .columns import ACCOUNT, column

SCHEMA_VERSION = 1

S = pa.string()
F = pa.float64()

RIGHTS = (
    column("licence", S, "licence of the source as the input list states it; null = unknown"),
    column("source_url", S, "where the source came from"),
    column("consent", S, "what is known about the consent of the people shown"),
    column("extra", S, "all further columns of the input list, as a JSON object"),
)


@dataclass(frozen=True, kw_only=True)
class Stop:
    """`row` says in words what one row is; `key` names its unique id column."""

    name: str
    row: str
    key: str
    fields: tuple[pa.Field, ...]

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([*self.fields, *ACCOUNT])


VIDEOS = Stop(
    name="videos", row="a source file, readable or not", key="video_id",
    fields=(
        column("video_id", S, "id from the relative path and the sampled content"),
        column("path", S, "path or URI of the file"),
        column("relative_path", S, "path below the input folder, or as listed"),
        column("num_bytes", pa.int64(), "size of the file", "bytes"),
        *RIGHTS,
    ),
)

CLIPS = Stop(
    name="clips", row="one shot, or a piece of one, with start_s and end_s", key="clip_id",
    fields=(
        column("clip_id", S, "id from the video, the span and the measuring stages"),
        column("video_id", S, "the video it lies in"),
        column("path", S, "path or URI of the video"),
        column("clip_index", pa.int32(), "position among the clips of the video, from 0"),
        column("num_siblings", pa.int32(), "clips of this video; fewer rows than that = incomplete"),
        column("start_s", F, "first moment, from the start of the presentation", "s"),
        column("end_s", F, "moment after the last frame", "s"),
        column("duration_s", F, "end_s - start_s", "s"),
        column("num_frames", pa.int32(), "frames decoded inside the span"),
        column("transition_in", S, "start, cut, dissolve, fade, split (of a long shot) or damage"),
        column("width", pa.int32(), "as shown, after rotation", "px"),
        column("height", pa.int32(), "as shown, after rotation", "px"),
        column("fps", F, "average frame rate of the video", "1/s"),
        *RIGHTS,
    ),
)

FRAMES = Stop(
    name="frames", row="one picture: a key frame of a video, or an image file", key="frame_id",
    fields=(
        column("frame_id", S, "id from the video and the moment"),
        column("video_id", S, "the video, or image file, it comes from"),
        column("path", S, "path or URI of the file that holds it"),
        column("frame_index", pa.int32(), "position among the frames of the video, from 0"),
        column("num_siblings", pa.int32(), "frames of this video; fewer rows than that = incomplete"),
        column("time_s", F, "moment of the frame; null = the file is an image", "s"),
        column("width", pa.int32(), "as shown, after rotation", "px"),
        column("height", pa.int32(), "as shown, after rotation", "px"),
        *RIGHTS,
    ),
)

DOCUMENTS = Stop(
    name="documents", row="texts and pictures in order: a web page, or the key frames of a video", key="document_id",
    fields=(
        column("document_id", S, "id from the list and the line it stands in, or from the video"),
        column("video_id", S, "the video it was made of; null = it is no video"),
        column("path", S, "path or URI of the list, or of the video"),
        column("order", pa.list_(S), "'text' or 'image', in the order of the document"),
        column("texts", pa.list_(S), "its texts, in order"),
        column("images", pa.list_(S), "its pictures, in order: paths, or names as the list gives them"),
        *RIGHTS,
    ),
)

_SIDES = tuple(
    field
    for side in ("source", "target")
    for field in (
        column(f"{side}_path", S, f"path or URI of the file that holds the {side}; null = there is none"),
        column(f"{side}_start_s", F, f"first moment of the {side}; null = it is an image", "s"),
        column(f"{side}_end_s", F, f"moment after the last frame of the {side}", "s"),
        column(f"{side}_duration_s", F, f"length of the {side}", "s"),
        column(f"{side}_clip_id", S, f"the clip that is the {side}"),
    )
)

CONDITION = pa.struct([
    column("role", S, "reference, first_frame, middle_frame, last_frame, part, sketch, mask, pose or edited_frame"),
    column("kind", S, "image or video"),
    column("path", S, "path or URI of the file"),
    column("start_s", F, "first moment; null = an image", "s"),
    column("end_s", F, "moment after the last frame", "s"),
])

PAIRS = Stop(
    name="pairs", row="a source and a target, and how they were made", key="pair_id",
    fields=(
        column("pair_id", S, "id from the source, the target and the recipe"),
        column("video_id", S, "the raw video (or image file) that both come from"),
        column("recipe", S, "which recipe made the pair"),
        column("task", S, "task that the pair trains, as in manifests/tasks.py"),
        column("edit", S, "kind of edit or transform: transition, removal, sketch, …"),
        *_SIDES,
        column("conditions", pa.list_(CONDITION), "what a model is given beside the source, in the order of its "
                                                  "messages: reference images, first frames, further parts"),
        column("mask_path", S, "where the edit lies: a picture, or a video of the target's frames; white = edited"),
        *RIGHTS,
    ),
)

CANDIDATES = Stop(
    name="candidates", row="two clips or frames of one video that might become a pair", key="pair_id",
    fields=PAIRS.fields,
)

PREFERENCES = Stop(
    name="preferences", row="two results of one instruction on one source, a kept and a rejected one",
    key="preference_id",
    fields=(
        column("preference_id", S, "id from the two pairs"),
        column("video_id", S, "the raw video that all come from"),
        column("recipe", S, "which recipe made them"),
        column("task", S, "task of both pairs, as in manifests/tasks.py"),
        column("edit", S, "kind of edit"),
        column("instruction", S, "what both were to do"),
        *(column(f"{side}_{name}", type, f"{side}: {doc}", unit) for side in ("source", "chosen", "rejected")
          for name, type, doc, unit in (("path", S, "file", ""), ("start_s", F, "first moment", "s"),
                                        ("end_s", F, "moment after the last frame", "s"))),
        *(column(f"{side}_{name}", S, f"{side}: {doc}") for side in ("chosen", "rejected")
          for name, doc in (("pair_id", "the pair"), ("scores", "measures and marks, as a JSON object"))),
        column("reject_reason", S, "first rule that the rejected one broke"),
        *RIGHTS,
    ),
)

VIDEO_ITEM = pa.struct([
    column("video_path", S, "file that holds the video"),
    column("duration", F, "length of the part to use", "s"),
    column("crop_method", S, "left, right or center"),
    column("start_s", F, "first moment of the part; 0 in the released trainer's form", "s"),
    column("end_s", F, "moment after the last frame", "s"),
])

SAMPLES = Stop(
    name="samples", row="one training example", key="sample_id",
    fields=(
        column("sample_id", S, "id from the pair"),
        column("task", S, "which task it trains, as in manifests/tasks.py"),
        column("source_name", S, "data set it counts as in a mixture"),
        column("inputs", S, "ordered messages as a JSON list (released training form)"),
        column("images", pa.list_(S), "image paths in the order of the image messages"),
        column("videos", pa.list_(VIDEO_ITEM), "videos in the order of the video messages"),
        column("split", S, "train or validation"),
        column("weight", F, "relative weight inside its data set"),
        column("num_prompt_tokens", pa.int32(), "words and punctuation marks of the prompt", "tokens"),
        column("pair_id", S, "the pair it was made from"),
        column("video_id", S, "the raw video it was made from"),
        *RIGHTS,
    ),
)

FEATURE = pa.struct([
    column("name", S, "latent, vit, text or empty_text"),
    column("visual", pa.int32(), "position among the visuals; null = the feature is a text's"),
    column("file", S, "file below the feature folder that the header names"),
    column("offset", pa.int64(), "first byte in the file", "bytes"),
    column("num_bytes", pa.int64(), "length in the file", "bytes"),
    column("shape", pa.list_(pa.int32()), "latent [C, T, Y, X]; vit [tokens, V]; text [tokens, W]"),
    column("dtype", S, "bfloat16"),
    column("crc32", pa.int64(), "checksum of the bytes"),
])

VISUAL = pa.struct([
    column("kind", S, "image or video"),
    column("is_target", pa.bool_(), "it is to be generated"),
    column("num_latent_tokens", pa.int32(), "tokens in the renderer; 0 = no latent was made", "tokens"),
    column("num_vit_tokens", pa.int32(), "merged tokens in the planner; 0 = none were made", "tokens"),
    column("grid", pa.list_(pa.int32()), "(t, h, w) patches before merging"),
])

LATENTS = Stop(
    name="latents", row="one training example, encoded", key="sample_id",
    fields=(
        *SAMPLES.fields,
        column("visuals", pa.list_(VISUAL), "images and videos in the order of their messages, with their token cost"),
        column("num_text_tokens", pa.int32(), "rows of the text embedding; 0 = none was made", "tokens"),
        column("num_empty_text_tokens", pa.int32(), "rows of the embedding of the system prompt alone", "tokens"),
        column("num_planner_text_tokens", pa.int32(), "texts in the planner's tokens, without the chat's", "tokens"),
        column("features", pa.list_(FEATURE), "where the tensors lie (manifests/features.py)"),
    ),
)

STOPS = {stop.name: stop for stop in (VIDEOS, CLIPS, FRAMES, DOCUMENTS, CANDIDATES, PAIRS, PREFERENCES, SAMPLES,
                                      LATENTS)}
