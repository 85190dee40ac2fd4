"""Measure a row; decide apart.

A clip measure is a class with `adds` (its columns) and `__call__(clip: ClipFrames) -> dict`.
It sees small decoded frames and returns numbers; what a number means is a rule's business.
To add one: write `filters/<measure>.py` and name it here.
"""

FILTERS = {
    "damage": "filters.damage:MeasureDamage",
    "exposure": "filters.exposure:MeasureExposure",
    "sharpness": "filters.sharpness:MeasureSharpness",
    "motion": "filters.motion:MeasureMotion",
    "colors": "filters.colors:MeasureColors",
    "people": "filters.people:FindPeople",
    "video_similarity": "filters.video_similarity:EmbedVideo",
    "letterbox": "filters.letterbox:MeasureLetterbox",
    "overlay_text": "filters.overlay_text:MeasureOverlayText",
    "picture_hash": "filters.picture_hash:HashPictures",
    "aesthetics": "filters.aesthetics:MeasureAesthetics",
    "text_similarity": "filters.text_similarity:MeasureTextSimilarity",
}

# Measures of a made pair: ops over PAIRS rows, apart from the measures of a clip.
PAIR_FILTERS = {
    "edit_region": "filters.edit_region:MeasureEditRegion",
    "edit_motion": "filters.edit_motion:MeasureEditMotion",
    "faces_kept": "filters.faces_kept:MeasureFacesKept",
    "background_similarity": "filters.background_similarity:MeasureBackgroundSimilarity",
    "object_shown": "filters.object_shown:MeasureObjectShown",
}
