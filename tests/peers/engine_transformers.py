"""`transformers` in a process of its own: `python -m tests.peers.engine_transformers JSON`.

Its model as it comes: scaled_dot_product_attention and a cache that grows, which is what `generate` uses.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from core.checkpoint.synthetic import SyntheticCheckpoint
from core.model.shapes import SHAPES
from tests.peers.networks import tensors, transformers_model
from tests.peers.protocol import serve, token_ids
from tests.peers.shapes import add_tiny


class Transformers:
    """LlamaForCausalLM in the type `given["dtype"]`."""

    def __init__(self, given: dict[str, Any]) -> None:
        import transformers

        torch.set_num_threads(given["threads"])
        self._dtype = getattr(torch, given["dtype"])
        checkpoint = SyntheticCheckpoint(given["shape"])
        self._model = transformers_model(checkpoint.config, tensors(checkpoint, self._dtype), self._dtype)
        self._ids = torch.tensor([token_ids(given["context"], SHAPES[given["shape"]].vocab_size)])
        self._caches: dict[int, Any] = {}
        attention = self._model.config._attn_implementation
        self.about = {
            "version": f"transformers {transformers.__version__}, torch {torch.__version__}, "
            f"{torch.get_num_threads()} threads",
            "build": torch.backends.cpu.get_cpu_capability(),
            "type": f"{given['dtype']}, attention {attention}",
        }

    @torch.inference_mode()
    def prefill(self, count: int) -> float:
        cache = self._cache()
        started = time.perf_counter()
        self._run(cache, 0, count)
        return time.perf_counter() - started

    @torch.inference_mode()
    def decode(self, count: int, after: int) -> float:
        if after not in self._caches:
            self._caches[after] = self._cache()
            self._run(self._caches[after], 0, after)
        cache = self._caches[after]
        started = time.perf_counter()
        for at in range(after, after + count):
            self._run(cache, at, at + 1)
        seconds = time.perf_counter() - started
        cache.crop(-count)
        return seconds

    @torch.inference_mode()
    def next(self, count: int) -> int:
        return int(self._run(self._cache(), 0, count).argmax())

    def _cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self._model.config)

    def _run(self, cache: Any, start: int, stop: int) -> torch.Tensor:
        """One pass; the logits [V] of its last token."""
        ids = self._ids[:, start:stop]
        return self._model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[0, -1]


if __name__ == "__main__":
    add_tiny()
    serve(lambda: Transformers(json.loads(sys.argv[1])))
