"""Recipes: one file each. A recipe has `Config`, `run(config) -> Result` and `WHY`."""

PIPELINES = {
    "video-pairs": "pipelines.pairs.video_pairs",
    "image-pairs": "pipelines.pairs.image_pairs",
    "interleaved": "pipelines.pairs.interleaved",
    "transforms": "pipelines.pairs.transforms",
    "diverse-edits": "pipelines.pairs.diverse_edits",
    "motion-aware-editing": "pipelines.pairs.motion_aware",
    "propagation-based-editing": "pipelines.pairs.propagation_edits",
    "person-r2v": "pipelines.pairs.person_r2v",
    "general-r2v": "pipelines.pairs.general_r2v",
    "person-rv2v": "pipelines.pairs.rv2v",
    "motion-transfer": "pipelines.pairs.motion_transfer",
    "reasoning-text": "pipelines.pairs.reasoning_text",
    "reasoning-vision-text": "pipelines.pairs.reasoning_vision_text",
}
