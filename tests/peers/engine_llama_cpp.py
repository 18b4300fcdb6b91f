"""llama.cpp by `llama-cpp-python` in a process of its own: `python -m tests.peers.engine_llama_cpp JSON`.

Its C interface is called as it is; nothing of the package around it. Imports nothing of ours but `protocol`.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from typing import Any

from tests.peers.protocol import serve, token_ids

_BATCH = 512


class LlamaCpp:
    """The GGUF file `given["file"]`, mapped into memory."""

    def __init__(self, given: dict[str, Any]) -> None:
        import llama_cpp

        self._cpp = cpp = llama_cpp
        cpp.llama_backend_init()
        self._model = cpp.llama_model_load_from_file(given["file"].encode(), cpp.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp does not load {given['file']}")
        self._context = cpp.llama_init_from_model(self._model, self._parameters(given))
        if not self._context:
            raise RuntimeError("llama.cpp makes no context")
        self._memory = cpp.llama_get_memory(self._context)
        self._vocab = cpp.llama_vocab_n_tokens(cpp.llama_model_get_vocab(self._model))
        ids = token_ids(given["context"], self._vocab)
        self._ids = (cpp.llama_token * len(ids))(*ids)
        self._longest = max(given["positions"], default=0)
        self._state = b""
        self.about = {
            "version": f"llama-cpp-python {cpp.__version__}, ggml {_ggml_version()}, "
            f"{given['threads']} threads",
            "build": cpp.llama_print_system_info().decode().strip(" |"),
            "type": f"n_batch and n_ubatch {_BATCH}, flash attention auto (its default)",
        }

    def prefill(self, count: int) -> float:
        self._cpp.llama_memory_clear(self._memory, True)
        started = time.perf_counter()
        self._run(0, count)
        return time.perf_counter() - started

    def decode(self, count: int, after: int) -> float:
        self._stand(after)
        started = time.perf_counter()
        for at in range(after, after + count):
            self._run(at, at + 1)
        return time.perf_counter() - started

    def next(self, count: int) -> int:
        self._cpp.llama_memory_clear(self._memory, True)
        logits = self._run(0, count)
        return max(range(self._vocab), key=lambda token: logits[token])

    def _parameters(self, given: dict[str, Any]) -> Any:
        parameters = self._cpp.llama_context_default_params()
        parameters.n_ctx = given["context"]
        parameters.n_batch = parameters.n_ubatch = _BATCH
        parameters.n_threads = parameters.n_threads_batch = given["threads"]
        return parameters

    def _run(self, start: int, stop: int) -> Any:
        """Run tokens behind those in its memory; the logits of the last, once they are there."""
        cpp = self._cpp
        for at in range(start, stop, _BATCH):
            tokens = ctypes.cast(ctypes.byref(self._ids, 4 * at), ctypes.POINTER(cpp.llama_token))
            code = cpp.llama_decode(self._context, cpp.llama_batch_get_one(tokens, min(_BATCH, stop - at)))
            if code:
                raise RuntimeError(f"llama_decode of {stop - start} tokens from {start} returns {code}")
        return cpp.llama_get_logits_ith(self._context, -1)

    def _stand(self, length: int) -> None:
        """Have `length` tokens in its memory, from a copy of the longest that will be asked for."""
        cpp = self._cpp
        if not self._state or length > self._longest:
            self._longest = max(self._longest, length)
            cpp.llama_memory_clear(self._memory, True)
            self._run(0, self._longest)
            self._state = (ctypes.c_uint8 * cpp.llama_state_seq_get_size(self._context, 0))()
            cpp.llama_state_seq_get_data(self._context, self._state, len(self._state), 0)
        cpp.llama_memory_clear(self._memory, True)
        if not cpp.llama_state_seq_set_data(self._context, self._state, len(self._state), 0):
            raise RuntimeError("llama.cpp does not take its own state back")
        if not cpp.llama_memory_seq_rm(self._memory, 0, length, -1):
            raise RuntimeError(f"llama.cpp does not forget what is behind {length} tokens")


def _ggml_version() -> str:
    from llama_cpp._ggml import libggml

    libggml.ggml_version.restype = ctypes.c_char_p
    return libggml.ggml_version().decode()


if __name__ == "__main__":
    serve(lambda: LlamaCpp(json.loads(sys.argv[1])))
