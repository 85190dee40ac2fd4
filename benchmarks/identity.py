"""Retrieval of person references at 1 M clips: time and peak memory, with made-up faces.

    python -m benchmarks.identity [--clips 1000000]

50,000 videos of 20 clips; each video shows 3 of 30,000 persons, who so come back in 5 videos each. Faces are
512 numbers as ArcFace's: a person's own direction and noise, so that two faces of one person have a cosine
of about 0.7 and others one around 0.
"""

from __future__ import annotations

import argparse

from .measure import in_fresh_process, store

CODE = """
import numpy as np, pyarrow as pa
from datagen.person_pairs import PairPeople, grouped
CLIPS, PER_VIDEO, PERSONS, DIM, LOOK = {clips}, {per_video}, {persons}, 512, 64
S = pa.string()
schema = pa.schema([("group_id", S), ("clip_id", S), ("video_id", S), ("path", S), ("start_s", pa.float64()),
                    ("end_s", pa.float64()), ("duration_s", pa.float64()), ("video_embedding", pa.list_(pa.float32())),
                    ("face_embedding", pa.list_(pa.float32())), ("face_time_s", pa.float64()),
                    ("face_box", pa.list_(pa.float32(), 4)), ("licence", S), ("source_url", S), ("consent", S),
                    ("extra", S)])

def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)

persons = np.random.default_rng(0).standard_normal((PERSONS, DIM), np.float32)
truth = np.empty(CLIPS, np.int32)

def lists(x):
    return pa.ListArray.from_arrays(np.arange(len(x) + 1, dtype=np.int32) * x.shape[1], pa.array(x.ravel()))

def batches(size=20_000):
    for start in range(0, CLIPS, size):
        rng, row = np.random.default_rng(start + 1), np.arange(start, start + size)
        video, names = row // PER_VIDEO, None
        who = (video * 7919 + rng.integers(0, 3, size) * 10007) % PERSONS
        truth[row] = who
        faces = unit(persons[who] + 0.65 * rng.standard_normal((size, DIM), np.float32))
        names = [f"v-{{v:08d}}" for v in video]
        zero = np.zeros(size)
        yield pa.table([names, [f"c-{{r:08d}}" for r in row], names, names, zero, zero + 3, zero + 3,
                        lists(unit(rng.standard_normal((size, LOOK), np.float32))), lists(faces), zero,
                        pa.FixedSizeListArray.from_arrays(np.zeros(size * 4, np.float32), 4)]
                       + [pa.nulls(size, S)] * 4, schema=schema)

pair = PairPeople((), recipe="person-r2v", min_identity=0.4)
# measure
num = right = wrong = 0
for table in grouped(batches(), "group_id"):
    made = pair(table)
    ok = np.asarray(made["identity_similarity"]) >= 0.4
    target, reference = ([int(c[2:]) for c in made[n].to_pylist()] for n in ("target_clip_id", "reference_clip_id"))
    same = truth[target] == truth[reference]
    num, right, wrong = num + len(ok), right + int((ok & same).sum()), wrong + int((ok & ~same).sum())
out = dict(rows=num, right=right, wrong=wrong, persons=pair.identities.num)
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=1_000_000)
    clips, rows = parser.parse_args().clips, []
    for num, per_video in ((clips // 10, 20), (clips, 20), (clips // 25, clips // 25)):  # the last: all in one episode
        done = in_fresh_process(CODE.format(clips=num, per_video=per_video, persons=num * 3 // 100))
        rows.append({"clips": f"{num:,}", "clips of a group": f"{per_video:,}",
                     **{k: f"{v:,}" for k, v in done["out"].items()}, "wall s": done["wall_s"], "cpu s": done["cpu_s"],
                     "peak MB": done["peak_mb"]})
    store("identity", rows, "`python -m benchmarks.identity`: references by face within each group, and "
          "persons over all of them (one part of 64 in memory). Making the made-up faces is part of the time.")


if __name__ == "__main__":
    main()
