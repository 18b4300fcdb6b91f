"""Ten thousand passes of a model whose slots are overwritten before every copy: not one wrong bit."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

import core.checkpoint.synthetic
from core.engine.load import Engine
from core.model.config import ModelConfig
from core.model.transformer import never
from tests.gpu.prove_parts import Bound, Table, engine_of

_TINY = ModelConfig(
    dim=256, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=64, hidden_dim=512, vocab_size=1024, norm_eps=1e-5,
    max_context=256,
)  # fmt: skip


_CASES = (  # weights, what stays on the card, the share of all passes
    ("none", (), 5),
    ("int4", (), 2),
    ("none", ("attention", "output"), 3),  # graphs between what is streamed
)


@torch.inference_mode()
def poison_rows(passes: int, **options: Any) -> list[Bound]:
    """The logits of every pass are those of a pass that nothing disturbed."""
    core.checkpoint.synthetic.SHAPES["tiny"] = _TINY
    table = Table("Streamed passes with poisoned slots", ("weights", "kept", "passes", "wrong", "passes/s"))
    for quant, kept, share in _CASES:
        with engine_of("tiny", quant=quant, context=128, offload=True, keep=kept or None, **options) as (
            engine,
            _,
        ):
            lane: Any = engine.machine.lane
            send = lane.send

            def poisoned(name: str, source: Any, home: Tensor, send: Any = send) -> Any:
                home.fill_(0xFF)
                return send(name, source, home)

            def logits(engine: Engine = engine) -> Tensor:
                made = engine.runner.decode(7, never)
                return engine.model(torch.tensor([7]), engine.cache) if made is None else made

            logits()
            want = logits().clone()
            lane.send = poisoned
            wrong = torch.zeros((), dtype=torch.int64, device=want.device)
            count, started = passes * share // 10, time.perf_counter()
            for _ in range(count):
                wrong += (logits() != want).any()
            found = int(wrong)
            rate = count / (time.perf_counter() - started)
        name = "float16" if quant == "none" else quant
        words = ", ".join(kept) or "nothing"
        table.add(name, words, str(count), str(found), f"{rate:.0f}")
        table.bounds.append(Bound(f"{name}, {words} kept: no wrong bit", float(found == 0), 1.0))
    return table.end()
