"""Recipes: one file each. A recipe has `Config`, `run(config) -> Result` and `WHY`."""

PIPELINES = {
    "video-pairs": "pipelines.pairs.video_pairs",
    "reasoning-text": "pipelines.pairs.reasoning_text",
}
