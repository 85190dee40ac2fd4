"""Open data sets and pairs of one's own, one small file each: how its layout reads as pairs.

A file has `NAME` (the data set's name in Table 1, or of your own), `LICENCE` (as its authors state
it; None = each row's own), `WHY` (one line), a docstring that says where the layout was taken
from, and `entries(root, store)`, which yields an `Entry` a pair and raises `InputError` with the
missing file or column where the layout is another. `STAGES`, where it is there, names ops that
make what the set describes but does not hold; `DEEP` says that the files themselves are the list.
"""

DATASETS = {
    "folder": "pipelines.datasets.folder",
    "table": "pipelines.datasets.table",
    "webdataset": "pipelines.datasets.webdataset",
    "pico-banana-400k": "pipelines.datasets.pico_banana",
    "uniredit-100k": "pipelines.datasets.uniredit",
    "opens2v": "pipelines.datasets.opens2v",
    "senorita-2m": "pipelines.datasets.senorita",
    "syncamvideo": "pipelines.datasets.syncamvideo",
    "cameraclone": "pipelines.datasets.cameraclone",
}
