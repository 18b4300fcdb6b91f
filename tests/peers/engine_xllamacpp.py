"""llama.cpp by the wheel `xllamacpp` in a process of its own: `python -m tests.peers.engine_xllamacpp JSON`.

It offers llama.cpp's server, without a network: prompts of token ids, and the server's own timings. Those of
decode have greedy sampling in them. Imports nothing of ours but `protocol`.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

from tests.peers.protocol import serve, token_ids

_BATCH = 512


class XLlamaCpp:
    """The GGUF file `given["file"]`. Each position has a slot that remembers the tokens before it."""

    def __init__(self, given: dict[str, Any]) -> None:
        import xllamacpp

        self._positions: list[int] = given["positions"]
        self._ids = token_ids(given["context"], given["vocab"])
        self._server = xllamacpp.Server(self._parameters(xllamacpp, given))
        self.about = {
            "version": f"xllamacpp {xllamacpp.__version__}, ggml {_ggml_version(xllamacpp)}, "
            f"{given['threads']} threads",
            "build": xllamacpp.get_system_info().strip(" |"),
            "type": f"n_batch and n_ubatch {_BATCH}, flash attention auto (its default), "
            "the server's timings, sampling included",
        }

    def prefill(self, count: int) -> float:
        timings = self._complete(0, count, 1, remembered=False)["timings"]
        if timings["prompt_n"] != count:
            raise RuntimeError(f"{timings['prompt_n']} of {count} tokens were computed")
        return timings["prompt_ms"] / 1000

    def decode(self, count: int, after: int) -> float:
        slot = 1 + self._positions.index(after)
        # The clock starts at the first token, which the prompt's pass gave.
        timings = self._complete(slot, after, count + 1, remembered=True)["timings"]
        if timings["predicted_n"] != count + 1:
            raise RuntimeError(f"{timings['predicted_n']} tokens for {count + 1}")
        return timings["predicted_ms"] / 1000

    def next(self, count: int) -> int:
        reply = self._complete(0, count, 1, remembered=False, return_tokens=True, verbose=True)
        return reply["__verbose"]["tokens"][0]

    def _complete(
        self, slot: int, prompt: int, tokens: int, *, remembered: bool, **more: bool
    ) -> dict[str, Any]:
        request = {
            "prompt": self._ids[:prompt],
            "n_predict": tokens,
            "id_slot": slot,
            "cache_prompt": remembered,
            "temperature": 0,
            "samplers": ["temperature"],
            "ignore_eos": True,
        } | more
        reply = self._server.handle_completions(request)
        if "timings" not in reply:
            raise RuntimeError(str(reply)[:500])
        return reply

    def _parameters(self, xllamacpp: Any, given: dict[str, Any]) -> Any:
        parameters = xllamacpp.CommonParams()
        parameters.model.path = given["file"]
        parameters.n_parallel = 1 + len(self._positions)
        parameters.n_ctx = given["context"] * parameters.n_parallel
        parameters.n_batch = parameters.n_ubatch = _BATCH
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = given["threads"]
        parameters.fit_params = False
        parameters.cache_ram_mib = 0
        parameters.cache_idle_slots = False
        parameters.n_ctx_checkpoints = 0
        return parameters


def _ggml_version(xllamacpp: Any) -> str:
    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    library.ggml_version.restype = ctypes.c_char_p
    return library.ggml_version().decode()


if __name__ == "__main__":
    serve(lambda: XLlamaCpp(json.loads(sys.argv[1])))
