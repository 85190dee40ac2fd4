"""Edit prompts for a picture: chosen from what users asked for, or newly thought up (D4).

(a) `DrawCandidates` draws some instructions from a pool, `ChooseInstruction` lets a model pick the one
that suits the picture and rewrite it for that picture. (b) `InventInstruction` asks for one that
the prompt bank does not have yet, and offers it to the bank.

Without a model both choose among `possible_edits`, what a classical editor can do in the picture: (a) the one
that is nearest in words to one of the candidates, (b) the one that is farthest from all in the bank.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa

from manifests import storage
from manifests.columns import column, map_rows
from manifests.errors import BackendError, ConfigError
from manifests.ids import digest, draw_seed

from .ask import NEUTRAL, Annotator, Question
from .parsing import InvalidAnswer, obj, text
from .pictures import View
from .prompt_bank import HashedNgrams, PromptBank

CHOOSE_PROMPT = """
You see a picture and a list of candidates: instructions that users gave for other pictures. Choose the
one whose idea suits this picture best, that is, whose result would be possible, visible and worth
looking at here. Then rewrite it for this picture: name what is really there instead of what the
candidate names, say where it is, and settle what the candidate leaves open. index counts the
candidates from 0.
"""
INVENT_PROMPT = """
You see a picture and a list of known instructions. Write a new editing instruction for this
picture that differs from all the known ones in what is done, not only in its words: another thing,
another kind of edit, another place in the picture. It must be possible here, visible in the result
and clear without seeing the list. One or two sentences, spoken to an editor.
"""
PICTURE = View(label="picture", path="path", moment="time_s")
EDIT_PROMPT = column("edit_prompt", pa.string(), "what to change in the picture")


BUILT_IN = (  # written for this project; a real pool comes from users: --instructions FILE
    "make it look like a pencil sketch", "can you turn this into an oil painting", "watercolour version please",
    "give it an old sepia photo look", "poster style with flat colors", "remove the thing in the foreground",
    "get rid of the person in the back", "erase the object and fill in what is behind", "blur the background more",
    "make everything around the subject out of focus", "make the car red", "change the color of the jacket to blue",
    "paint the door green", "turn the cup yellow", "make the flower purple", "put it in front of a brick wall",
    "change the background to outer space", "put the subject under a starry night sky", "make the sky dramatic",
    "add snow to the roofs", "make it night time", "add a hat to the person", "replace the dog with a cat",
    "make the room look abandoned", "give her a guitar instead of the bag", "make it look like winter",
)
# Words that any instruction may have: alike by them alone, two have nothing in common.
IDLE = frozenset("""
    a an and around as at be by can change everything for from give her him his i in into is it its like look make more
    my of on one please put so some that the their them there thing this to turn version what where which with you your
""".split())
MIN_LIKENESS = 0.08  # cosine of hashed words below which a possible edit has nothing of a candidate


def read_pool(path: str) -> list[str]:
    """Instructions of a text file (one a line) or a .jsonl file (field `prompt`), without repeats.

    An empty path gives the small pool that is built in. `ConfigError` where the file cannot be read as one.
    """
    if not path:
        return list(BUILT_IN)
    try:
        lines = storage.read_bytes(path).decode().split("\n")  # a JSON text may hold U+2028
        found = (json.loads(line)["prompt"] if path.endswith(".jsonl") else line for line in lines if line.strip())
        pool = list(dict.fromkeys(prompt.strip() for prompt in found))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"--instructions {path} cannot be read ({type(error).__name__}: {error}); it is a text file "
                          "with one instruction a line, or .jsonl with `prompt`") from None
    if not pool:
        raise ConfigError(f"--instructions {path} holds no instruction")
    return pool


class DrawCandidates:
    """Pictures → `candidates`: `num` instructions of the pool, drawn by the row's id, in time that does not grow with
    the pool."""

    reads = ("frame_id",)
    adds = (column("candidates", pa.list_(pa.string()), "instructions of the pool that were drawn for this picture"),)

    def __init__(self, pool: str = "", num: int = 6, seed: int = 0):
        self.pool, self.num, self.seed = read_pool(pool), num, seed

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, lambda row: {"candidates": self._draw(row["frame_id"])})

    def _draw(self, frame_id: str) -> list[str]:
        rng = np.random.default_rng(draw_seed(self.seed, frame_id))
        drawn = rng.choice(len(self.pool), min(self.num, len(self.pool)), replace=False, shuffle=False)
        return [self.pool[i] for i in drawn]


def among(schema: dict, row: Mapping[str, object]) -> dict:
    last = max(len(row["candidates"] or []) - 1, 0)
    return obj(**{**schema["properties"], "index": {"type": "integer", "minimum": 0, "maximum": last}})


def possible(row: Mapping[str, object]) -> list[str]:
    """Prompts of the edits that can be done without a model, each with a number that only the row decides."""
    prompts = [edit["prompt"] for edit in row["possible_edits"] or ()]
    if not prompts:
        raise BackendError("without a model an edit must be one of possible_edits, and there is none")
    return sorted(prompts, key=lambda prompt: digest(row["frame_id"], prompt))


def nearest_edit(row: Mapping[str, object]) -> dict:
    """The possible edit whose words are nearest to a candidate's; an arbitrary one where none has a word of it."""
    prompts, candidates = possible(row), row["candidates"] or []
    if not candidates:
        return {"edit_prompt": prompts[0]}
    alike = (_told(prompts) @ _told(candidates).T).round(6)
    prompt, candidate = divmod(int(alike.argmax()), len(candidates))
    if alike.max() < MIN_LIKENESS:
        return {"edit_prompt": prompts[0]}
    return {"edit_prompt": prompts[prompt], "candidate": candidates[candidate]}


def _told(prompts: list[str]) -> np.ndarray:
    """Vectors `(N, D)` of the words that say what is edited and how."""
    return HashedNgrams().embed([" ".join(w for w in re.findall(r"\w+", p.lower()) if w not in IDLE) for p in prompts])


class ChooseInstruction(Annotator):
    """Pictures with `candidates` → `edit_prompt`, and the `candidate` it was rewritten from."""

    question = Question(
        name="edit_prompt", prompt=CHOOSE_PROMPT, texts=("candidates",), views=(PICTURE,), narrow=among,
        schema=obj(index={"type": "integer", "minimum": 0, "maximum": 99}, prompt=text(400, 5)),
        parse=lambda answer, row: {"edit_prompt": answer["prompt"].strip(),
                                   "candidate": (row["candidates"] or [None])[answer["index"]]},
        adds=(EDIT_PROMPT, column("candidate", pa.string(), "instruction of the pool that was chosen and rewritten")),
        measured=nearest_edit, measures=("frame_id", "candidates", "possible_edits"),
    )


class InventInstruction(Annotator):
    """Pictures → `edit_prompt` that the bank in folder `bank` does not have, and its novelty.

    The bank is read once, as round `round` left it (-1: the last closed one), so that no worker sees what another
    one does; new prompts are offered to the round that follows (see prompt_bank.py). Without a model the
    novelty can fall below the bank's own limit: there are only so many possible edits.
    """

    neutral = (*NEUTRAL, "bank")

    question = Question(
        name="edit_prompt", prompt=INVENT_PROMPT, views=(PICTURE,), keys=("frame_id",), temperature=0.8,
        schema=obj(prompt=text(400, 5)),
        adds=(EDIT_PROMPT, column("edit_prompt_novelty", pa.float32(),
                                  "1 - cosine to the nearest prompt of the bank; 1 = like none", "0 to 2")),
        measures=("frame_id", "possible_edits"),
    )

    def __init__(self, backend: str = "classical", *, bank: str = "", round: int = -1, num_shown: int = 12,
                 **options: object):
        super().__init__(backend, **options)
        if not bank:
            raise ConfigError("InventInstruction needs the folder of a prompt bank: bank='…'")
        self.bank, self.num_shown = PromptBank(bank, round=None if round < 0 else round), num_shown
        self.question = replace(type(self).question, measured=self.most_novel)

    def most_novel(self, row: Mapping[str, object]) -> dict:
        """The possible edit that is farthest from the bank."""
        novelty = {prompt: self.bank.novelty(prompt)[0] for prompt in possible(row)}
        prompt = max(novelty, key=novelty.get)
        return {"edit_prompt": prompt, "edit_prompt_novelty": novelty[prompt]}

    def given(self, row: Mapping[str, object]) -> dict:
        return {"known": self.bank.sample(row["frame_id"], self.num_shown)}

    def parse(self, answer: dict, row: dict) -> dict:
        prompt = answer["prompt"].strip()
        novelty, nearest = self.bank.novelty(prompt)
        if novelty < self.bank.min_novelty:
            raise InvalidAnswer(f"that instruction is too close to a known one: {nearest!r}; write quite another one")
        return {"edit_prompt": prompt, "edit_prompt_novelty": novelty}

    def __call__(self, table: pa.Table) -> pa.Table:
        made = super().__call__(table)
        self.bank.offer([p for p in made["edit_prompt"].to_pylist() if p])
        return made
