"""Mixtures: how often each data set is drawn in each training stage (paper, Tables 1 and 2).

A group is a column of Table 2 (a task of the paper, or a kind of data); a data set is a
`source_name` of the SAMPLES. Table 2 says how much each group weighs in a stage, Table 1 how a
group's weight is shared among its data sets. A data set that no table names counts in the group
of its task, and the unnamed ones of a group share like the numbers of their samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .errors import ConfigError
from .tasks import TASKS

# Table 1 (second phase of stage II, first of stage III): source_name -> (group, weight).
TABLE_1 = {
    "inhouse-t2i": ("T2I", 20.0),
    "inhouse-t2v": ("T2V", 30.0),
    "uniredit-100k": ("I2I", 1.5), "general-r2i": ("I2I", 2.8), "pico-banana-400k": ("I2I", 4.6),
    "diverse-i2i": ("I2I", 5.0), "inhouse-i2i": ("I2I", 26.1),
    "opens2v-top200k": ("I2V", 0.05), "frame-to-video": ("I2V", 0.15), "diverse-i2v": ("I2V", 0.4),
    "person-r2v": ("I2V", 1.3), "general-r2v": ("I2V", 1.6),
    "video-extension": ("V2V", 0.1), "video-completion": ("V2V", 0.1), "senorita-controllable": ("V2V", 0.1),
    "sketch-to-video": ("V2V", 0.1), "inpainting-nomask": ("V2V", 0.1), "colorization": ("V2V", 0.1),
    "movie-with-subtitles": ("V2V", 0.1), "video2mask": ("V2V", 0.1), "pose2video": ("V2V", 0.15),
    "syncamvideo": ("V2V", 0.15), "trajectorycrafter": ("V2V", 0.15), "cameraclone": ("V2V", 0.15),
    "vace-hq": ("V2V", 0.3), "motion-aware-editing": ("V2V", 0.6), "propagation-based-editing": ("V2V", 1.0),
    "motion-transfer": ("IV2V", 0.1), "propagation": ("IV2V", 0.4), "motion-aware-editing-ref": ("IV2V", 0.6),
    "propagation-based-editing-ref": ("IV2V", 1.05), "person-rv2v": ("IV2V", 1.05),
}
# Data sets of the columns of Table 2 that Table 1 does not list.
PRETRAINING = {"video-pairs": "V.P.", "image-pairs": "I.P.", "interleaved-web": "Int.", "interleaved-video": "Int.",
               "reasoning-text": "CoT", "reasoning-vision-text": "CoT"}
PAIR_DATA = ("V.P.", "I.P.")  # "linearly decayed to zero" in stage II

# Table 2: percentages of the groups in each stage.
TABLE_2 = {
    "I": {"T2I": 13, "T2V": 19, "I2I": 3, "V2V": 1, "I2V": 1, "IV2V": 1, "V.P.": 15, "I.P.": 21, "Int.": 6, "Und.": 20},
    "IIa": {"T2I": 31, "T2V": 42, "I2I": 4, "V2V": 0.4, "I2V": 0.4, "IV2V": 0.3, "V.P.": 11, "I.P.": 11},
    "IIb": {"T2I": 20, "T2V": 30, "I2I": 40, "V2V": 3.3, "I2V": 3.5, "IV2V": 3.2},
    "IIIa": {"T2I": 16, "T2V": 24, "I2I": 32, "V2V": 2.6, "I2V": 2.8, "IV2V": 2.6, "Und.": 20},
    "IIIb": {"T2I": 12, "T2V": 18, "I2I": 24, "V2V": 2, "I2V": 2, "IV2V": 2, "Und.": 20, "CoT": 20},
}


def group_of(source_name: str, task: str) -> str:
    """The column of Table 2 that a data set counts in."""
    if source_name in TABLE_1:
        return TABLE_1[source_name][0]
    return PRETRAINING.get(source_name) or TASKS[task].group


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Group weights of a stage, and overrides for single data sets.

    `groups` empty = no table: each data set weighs as much as it has samples.
    `decayed` groups fall linearly from their weight at progress 0 to nothing at progress 1.
    `overrides` maps a `source_name` to its weight inside its group, in the units of Table 1
    (without groups: in samples).
    """

    name: str
    groups: Mapping[str, float]
    decayed: tuple[str, ...] = ()
    overrides: Mapping[str, float] | None = None
    tasks: tuple[str, ...] = ()
    """The only tasks that are drawn; empty = all."""

    def weights(self, counts: Mapping[tuple[str, str], int], progress: float = 0.0) -> dict[tuple[str, str], float]:
        """Probability of drawing each data set `(source_name, task)` that has samples; they add up to 1.

        `counts` are samples of each data set, `progress` the finished part of the stage in [0, 1].
        """
        if not 0.0 <= progress <= 1.0:
            raise ConfigError(f"progress is {progress:g}; it is the finished share of a stage, 0 to 1")
        self._check_overrides(counts)
        shares: dict[tuple[str, str], float] = {}
        if not self.groups:
            drawn = [key for key, num in counts.items() if num and self._takes(key)]
            given = {key: self._given(*key, counts, table={}) for key in drawn}
            shares = {key: float(counts[key]) if weight is None else weight for key, weight in given.items()}
        for group, members in self._members(counts).items() if self.groups else ():
            weight = self.groups.get(group, 0.0) * (1.0 - progress if group in self.decayed else 1.0)
            total = sum(members.values())
            shares |= {key: weight * share / total for key, share in members.items()} if total else {}
        total = sum(shares.values())
        if not total > 0:
            raise ConfigError(f"mixture {self.name} gives no weight to any of the data sets "
                              f"{', '.join(sorted(n for n, _ in counts)) or '(none)'}; its groups are "
                              f"{', '.join(self.groups or self.tasks) or 'all'}")
        left = {key: 0.0 for key, num in counts.items() if num and not self._takes(key)}
        return left | {key: share / total for key, share in shares.items()}

    def _takes(self, key: tuple[str, str]) -> bool:
        return not self.tasks or key[1] in self.tasks

    def notes(self, counts: Mapping[tuple[str, str], int]) -> list[str]:
        """What of the data and of the mixture has no part in the other, one line each; nothing where all has."""
        weights, lines = self.weights(counts), []
        drawn = {group_of(*key) for key, weight in weights.items() if weight > 0}
        if empty := [f"{g} ({w:g})" for g, w in self.groups.items() if w and g not in drawn]:
            lines.append(f"mixture {self.name}: no data for {', '.join(empty)}; their share goes to the others")
        lines += [f"mixture {self.name}: {name} ({task}) has weight 0: it is never drawn" for name, task in counts
                  if counts[name, task] and not weights.get((name, task))]
        return lines

    def _members(self, counts: Mapping[tuple[str, str], int]) -> dict[str, dict[tuple[str, str], float]]:
        """Group -> data set -> weight inside the group."""
        groups: dict[str, dict[tuple[str, str], float]] = {}
        for (name, task), num in counts.items():
            if num:
                groups.setdefault(group_of(name, task), {})[name, task] = self._given(name, task, counts)
        for group, members in groups.items():
            given = [w for w in members.values() if w is not None]
            unnamed = {key: counts[key] for key, w in members.items() if w is None}
            # Unnamed data sets together weigh as much as a named one does on average.
            share = (sum(given) / len(given) if given else 1.0) / max(1, sum(unnamed.values()))
            groups[group] = {key: w if w is not None else counts[key] * share for key, w in members.items()}
        return groups

    def _check_overrides(self, counts: Mapping[tuple[str, str], int]) -> None:
        names = {name for name, _ in counts}
        for name, weight in (self.overrides or {}).items():
            if name not in names:
                raise ConfigError(f"a weight is given for {name!r}, but no samples are of it; there are "
                                  f"{', '.join(sorted(names)) or '(none)'}")
            if weight < 0:
                raise ConfigError(f"the weight of {name} is {weight:g}; it cannot be negative")

    def _given(self, name: str, task: str, counts: Mapping[tuple[str, str], int],
               table: Mapping[str, tuple[str, float]] = TABLE_1) -> float | None:
        """Weight that a table or an override gives; a data set of several tasks shares it by samples."""
        weight = (self.overrides or {}).get(name, table[name][1] if name in table else None)
        if weight is None:
            return None
        return weight * counts[name, task] / sum(n for (other, _), n in counts.items() if other == name)


MIXTURES = {stage: Mixture(name=stage, groups=groups, decayed=PAIR_DATA if stage == "IIa" else ())
            for stage, groups in TABLE_2.items()}
# Section 3.3: a propagation model, from a video, its edited first frame and the prompt to the edited video.
MIXTURES["propagation"] = Mixture(name="propagation", groups={}, tasks=("vi2v",))


def mixture(name: str) -> Mixture:
    """A named mixture; "even" draws every sample equally often, whatever its data set."""
    if name == "even":
        return Mixture(name="even", groups={})
    if name not in MIXTURES:
        raise ConfigError(f"no mixture {name!r}; known: {', '.join([*MIXTURES, 'even'])}")
    return MIXTURES[name]
