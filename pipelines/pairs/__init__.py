"""Recipes: one file each. A recipe has `Config`, `run(config) -> Result` and `WHY`."""

PIPELINES = {
    "video-pairs": "pipelines.pairs.video_pairs",
    "image-pairs": "pipelines.pairs.image_pairs",
    "interleaved": "pipelines.pairs.interleaved",
    "transforms": "pipelines.pairs.transforms",
}
