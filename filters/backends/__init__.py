"""Backends of the filters. Each loads its heavy imports only when its name is asked for.

An `Embedder` has `dim`, `version` and two methods: `prepare(clip) -> np.ndarray` picks what
it needs from the frames (so that the frames can be let go), `embed(list of those) ->
(N, dim) float32` of unit length runs the model on a batch. Those of `FRAME_EMBEDDERS` prepare one
`(height, width, 3)` uint8 RGB picture instead of a clip.
"""

EMBEDDERS = {
    "classical": "filters.backends.classical:DescribeVideo",
    "xclip": "filters.backends.xclip:XClipEmbedder",
}
FRAME_EMBEDDERS = {
    "classical": "filters.backends.classical:DescribeFrame",
    "open_clip": "filters.backends.clip:OpenClipEmbedder",
}
