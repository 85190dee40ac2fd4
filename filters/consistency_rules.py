"""Which made pairs are kept: rules on the measures of edit_region, edit_motion, faces_kept and
background_similarity, by kind of edit, each with its reason.

The paper gives no numbers for these ("quality measures", section 3.3). What an edit costs at the
least was measured on 8 real clips of ../shared/media with one region inverted, both sides stored at
crf 18: 42 to 53 dB outside the mask, warp errors within 0.3 inside and 0.02 outside, masks of 0.95
and more. The thresholds leave room for soft edges and for models that draw the whole frame anew.
"""

from __future__ import annotations

from manifests.errors import ConfigError

from .rules import Rule

UNTOUCHED = Rule(column="psnr_outside_mask_db", min=30.0,
                 why="encoding leaves 42 dB and more; 30 gives room to models that draw the whole frame anew")
EDITED = Rule(column="edit_strength_inside", min=4.0,
              why="2.3 is just noticeable (CIE76); an edit that nobody sees teaches a model to do nothing")
STEADY_INSIDE = Rule(column="warp_error_inside", max=8.0,
                     why="the edit may flicker this much (of 255) more than the real clip did")
STEADY_OUTSIDE = Rule(column="warp_error_outside", max=2.0,
                      why="outside the edit the target moves as the source; encoding alone costs 0.02")
NOT_TINY = Rule(column="mask_area", min=0.002,
                why="a square of 4 % of the picture's side is 11 px of the 256 that a planner sees")
NOT_ALL = Rule(column="mask_area", max=0.9, why="a local edit of the whole picture is a mask that ran away")
TRACKED = Rule(column="mask_stability", min=0.5, why="a mask that jumps between frames marks no object")
FACES = Rule(column="faces_kept", min=0.6, why="a face beside the edit that is lost was damaged; detectors blink, "
                                               "so not all are asked for")
IN_STEP = Rule(column="frame_offset", min=0, max=0, why="a target that lags shows the source's past")
SAME_COUNT = Rule(column="num_frames_gap", max=0, why="source and target are fed to the model frame by frame")
OTHER_SCENE = Rule(column="background_similarity", max=0.2,
                   why="section 3.4: a reference before the target's own background teaches to copy and paste")

RULE_SETS: dict[str, tuple[Rule, ...]] = {
    # A region is changed (addition, removal, replacement, recolour) and the rest must be what it was. Its size comes
    # first: of a picture that was drawn anew as a whole nothing is left to be measured outside.
    "local-edit": (NOT_TINY, NOT_ALL, UNTOUCHED, EDITED, SAME_COUNT, IN_STEP, STEADY_INSIDE, STEADY_OUTSIDE, TRACKED,
                   FACES),
    # The same pair swapped (D5, D9): the target was filmed, so its motion needs no proof, and against the still
    # background that the source has there a real moving object always looks unsteady.
    "filmed-target": (NOT_TINY, NOT_ALL, UNTOUCHED, EDITED, SAME_COUNT, IN_STEP, STEADY_OUTSIDE, TRACKED, FACES),
    # Pictures: nothing moves.
    "local-image-edit": (NOT_TINY, NOT_ALL, UNTOUCHED, EDITED, FACES),
    # Style and background edits touch all or most of the picture: only time and faces can be held against the source.
    "global-edit": (EDITED, SAME_COUNT, IN_STEP, STEADY_INSIDE, FACES),
    # References of D7 and D8.
    "reference": (OTHER_SCENE,),
}


def rule_set(name: str) -> tuple[Rule, ...]:
    if name not in RULE_SETS:
        raise ConfigError(f"no rule set {name!r}; known: {', '.join(RULE_SETS)}")
    return RULE_SETS[name]
