"""Our engine in a process of its own: `python -m tests.peers.engine_ours JSON`, spoken to by `protocol`."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import fields
from typing import Any

import torch

from core.engine.load import load
from core.errors import UserError
from core.model.shapes import SHAPES
from core.options import LoadOptions
from tests.peers.protocol import Missing, serve, token_ids
from tests.peers.shapes import add_tiny


class Ours:
    """The shape, format and type as `--synthetic`, `--quant` and `--dtype` give them, on the CPU."""

    def __init__(self, given: dict[str, Any]) -> None:
        options = {"synthetic": given["shape"], "dtype": given["dtype"], "context": given["context"]}
        if given["quant"] != "none":
            if "quant" not in {field.name for field in fields(LoadOptions)}:
                raise Missing(f"there is no --quant {given['quant']} yet")
            options["quant"] = given["quant"]
        try:
            options_given = LoadOptions("", device="cpu", raw=True, **options)
            self._engine = load(options_given, lambda event: None, lambda: False)
        except UserError as error:
            raise Missing(str(error)) from None
        self._ids = token_ids(given["context"], SHAPES[given["shape"]].vocab_size)
        self._filled = 0  # tokens whose keys and values are in the cache's memory, forgotten or not
        info = self._engine.info
        self.about = {
            "version": f"torch {torch.__version__}, {torch.get_num_threads()} threads",
            "build": torch.backends.cpu.get_cpu_capability(),
            "type": f"--quant {given['quant']} --dtype {given['dtype']}: "
            f"{info.weight_bytes / 1e9:.2f} GB of weights, {info.dtype}",
        }

    def prefill(self, count: int) -> float:
        self._stand(0)
        started = time.perf_counter()
        self._run(count)
        return time.perf_counter() - started

    def decode(self, count: int, after: int) -> float:
        self._stand(after)
        runner = self._engine.runner
        with torch.inference_mode():
            started = time.perf_counter()
            for token in self._ids[after : after + count]:
                runner.run([token], lambda: False)
            seconds = time.perf_counter() - started
        self._filled = max(self._filled, after + count)
        return seconds

    def next(self, count: int) -> int:
        self._stand(0)
        return int(self._run(count).argmax())

    def _run(self, count: int) -> torch.Tensor:
        """Run tokens up to the first `count` as a prompt is run; the logits of the last."""
        cache, runner = self._engine.cache, self._engine.runner
        todo = self._ids[cache.length : count]
        with torch.inference_mode():
            while todo:
                done, logits = runner.run(todo, lambda: False)
                todo = todo[done:]
        self._filled = max(self._filled, count)
        return logits

    def _stand(self, length: int) -> None:
        """Have `length` tokens in the cache. They are always the same, so what was there once still holds."""
        cache = self._engine.cache
        del cache.tokens[length:]
        cache.commit(self._ids[cache.length : min(length, self._filled)])
        if cache.length < length:
            self._run(length)


if __name__ == "__main__":
    add_tiny()
    serve(lambda: Ours(json.loads(sys.argv[1])))
