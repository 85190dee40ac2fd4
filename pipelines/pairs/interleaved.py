"""D3: interleaved texts and pictures, from web documents and from films.

Paper section 3.1, interleaved data. Web: documents of OmniCorpus pass BAGEL's basic filters, a language model
writes their texts again, and question-answer pairs about their subject are added. Films: up to 8
key frames each, with texts that lead from one to the next.

    --source web      lists → DOCUMENTS (measured) → DOCUMENTS (kept, written again) → SAMPLES
    --source films    files → VIDEOS → FRAMES → DOCUMENTS → SAMPLES

Questions need a served model; without one only `interleaved` samples are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from datagen.build_documents import BuildDocuments
from datagen.documents import ChooseKeyFrames, WebDocuments
from filters.balance import rank_within
from filters.rules import Decisions, Rule
from manifests import storage
from manifests.errors import ConfigError
from manifests.ids import order_key
from manifests.manifest import Manifest

from ..decide import Decided, decide
from ..key_frames import FrameConfig, Planned, find_frames, frame_stages
from ..recipe import AskConfig, Needs, Steps, apply_rules, scan_stage, stops, whole_videos
from ..stage import Stage

WHY = "texts and pictures in turn: web documents written again, or key frames of films and what lies between them"
RECIPE = "interleaved"
SOURCES = {"films": "interleaved-video", "web": "interleaved-web"}
COPIES = (("text_hash", "text of another document"), ("pictures_hash", "pictures of another document"))


@dataclass(frozen=True, kw_only=True)
class Config(AskConfig, FrameConfig):
    """Settings of the recipe. Web defaults are BAGEL's filters of interleaved pages; 8 key frames are the paper's."""

    source: str = "films"
    """films (the input is a folder or list of videos) or web (it is a list of documents, or a folder of such lists)."""
    annotator_model: str = "Qwen/Qwen3-VL-30B-A3B-Instruct"
    """Model that writes transitions and questions, as the server lists it (the paper's)."""
    rewriter_model: str = "Qwen/Qwen3-32B"
    """Model that writes texts again (the paper's)."""
    rewriter_url: tuple[str, ...] = ()
    """Servers of that model; none = those of --url."""
    images: str = ""
    """Web: folder with the pictures, as files or in .zip and .tar archives; none = the input's own folder."""
    max_key_frames: int = 8
    """Films: most key frames of one."""
    min_images: int = 3
    """Web: fewest usable pictures of a document."""
    max_images: int = 8
    """Web: most usable pictures of a document."""
    min_words: int = 20
    """Web: fewest words of a document."""
    max_words: int = 4000
    """Web: most words; longer ones do not fit a training sequence with their pictures."""
    max_repetition: float = 0.3
    """Web: largest share of repeated runs of words."""
    min_image_px: int = 150
    """Web: shortest side of a picture."""
    max_image_aspect: float = 2.0
    """Web: longest side against the shortest."""

    def __post_init__(self):
        super().__post_init__()
        if self.source not in SOURCES:
            raise ConfigError(f"no source {self.source!r}; known: {', '.join(SOURCES)}")
        if not 2 <= self.max_key_frames <= 8:
            raise ConfigError(f"max_key_frames is {self.max_key_frames}; the paper uses up to 8, one is none")

    def document_rules(self) -> tuple[Rule, ...]:
        if self.source == "films":
            return (Rule(column="num_images", min=2, why="one picture leads nowhere"),)
        return (
            Rule(column="num_words", min=self.min_words, max=self.max_words, why="too little or too much to read"),
            Rule(column="repetition", max=self.max_repetition, why="lists, menus and generated pages"),
            Rule(column="num_images", min=self.min_images, max=self.max_images, why="BAGEL: 3 to 8 pictures"),
        )

    @property
    def image_root(self) -> str:
        is_list = self.input.lower().endswith((".jsonl", ".parquet"))
        return storage.absolute(self.images or ((self.input.rpartition("/")[0] or ".") if is_list else self.input))


PRESETS = {"laptop": {}, "cluster": {"frame_embedder": "open_clip", "frame_embedder_weights": "openai",
                                     "gpus_per_worker": 0.25, "annotator": "openai"}}
NEEDS = Needs(makes="interleaved, understanding: interleaved-video, interleaved-web",
              laptop="nothing; questions and answers need a model and are left out",
              cluster="a CLIP model for films, a served Qwen3-VL, a served Qwen3-32B that rewrites web texts",
              cost="one request a document and one for its questions; not measured")


def build(config: Config) -> dict[str, tuple[Stage, ...]]:
    """Stages of the stops that need workers; the others are arithmetic of the driver."""
    stored = apply_rules(Rule(column="images", why="a document without its pictures is none"))
    if config.source == "films":
        return {"videos": (scan_stage(config),), "frames": frame_stages(config), "documents": (
            Stage(op="datagen.store_pictures:StoreKeyFrames", batch_size=16, workers=config.workers,
                  kwargs={"media": config.media_root}),
            stored, config.ask("annotators.key_frames:DescribeKeyFrames"),
            apply_rules(Rule(column="transitions", why="pictures without texts between them are no document")))}
    return {
        "measured": (
            Stage(op="filters.documents:MeasureDocuments", batch_size=16, workers=config.workers,
                  kwargs={"image_root": config.image_root}),
            Stage(op="filters.documents:KeepPictures", num_cpus=0.0, kwargs={
                "min_px": config.min_image_px, "max_aspect": config.max_image_aspect,
                "min_sharpness": config.min_frame_sharpness})),
        "documents": (
            Stage(op="datagen.store_pictures:StoreWebPictures", batch_size=16, workers=config.workers,
                  kwargs={"image_root": config.image_root, "media": config.media_root}),
            stored, _rewriter(config), apply_rules(Rule(column="rewritten", why="a document without texts is none")),
            *([config.ask("annotators.key_frames:AskAboutSubject")] if config.annotator != "classical" else []))}


def _rewriter(config: Config) -> Stage:
    stage = config.ask("annotators.rewrite:RewriteTexts")
    if config.annotator == "classical":
        return stage
    return replace(stage, kwargs=stage.kwargs | {"model": config.rewriter_model,
                                                 "urls": config.rewriter_url or config.url})


@stops(may_be_empty=("measured",))
def run_steps(config: Config) -> Iterator[tuple[str, Manifest]]:
    yield from (_films if config.source == "films" else _web)(config)


def _films(config: Config) -> Iterator[tuple[str, Manifest]]:
    steps, stages, rules = Steps(config, RECIPE), build(config), config.document_rules()
    yield "videos", (videos := steps.videos())
    yield "frames", (frames := find_frames(steps, videos))
    choose = ChooseKeyFrames(max_frames=config.max_key_frames)
    chosen = Planned(frames, choose, choose.makes, batches=whole_videos)
    yield "documents", (documents := steps.run(
        "documents", chosen, (apply_rules(*rules), *stages["documents"]), rows_per_block=16, parents=[frames],
        settings=config.max_key_frames, rules=rules))
    yield from _samples(steps, documents)


def _web(config: Config) -> Iterator[tuple[str, Manifest]]:
    steps, stages, rules = Steps(config, RECIPE), build(config), config.document_rules()
    listed = WebDocuments(config.input, leave_out=config.output)
    pictures = storage.files_below(config.image_root, config.output)
    yield "measured", (measured := steps.run("documents", listed, stages["measured"], rows_per_block=16,
                                             sources=[listed.fingerprint(), pictures]))
    decisions = decide(measured, rules)
    drop_copies(measured, decisions, config.seed)
    yield "documents", (documents := steps.run(
        "documents", Decided(measured, decisions), stages["documents"], rows_per_block=16, parents=[measured],
        settings=[rules, config.seed], rules=rules))
    yield from _samples(steps, documents)


def _samples(steps: Steps, documents: Manifest) -> Iterator[tuple[str, Manifest]]:
    make = BuildDocuments(SOURCES[steps.config.source])
    yield "samples", steps.finish("samples", make.makes, map(make, documents.batches()), parents=[documents],
                                  settings=make.source_name)


def drop_copies(manifest: Manifest, decisions: Decisions, seed: int) -> None:
    """Of accepted documents with equal text, or equal pictures, one is kept: the choice is drawn by their ids."""
    for column, reason in COPIES:
        rows = np.flatnonzero(decisions.accepted)
        values = manifest.table([column])[column].take(rows).combine_chunks()
        keys = order_key(manifest.table(["document_id"])["document_id"].take(rows), seed)
        groups = values.dictionary_encode().indices.to_numpy(zero_copy_only=False)
        decisions.drop(rows[rank_within(groups, keys) > 0], reason)
