"""Ten thousand passes of a model whose slots are overwritten before every copy: not one wrong bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import core.checkpoint.synthetic
from core.model.config import ModelConfig
from tests.gpu.prove_parts import Bound, Table, engine_of

_TINY = ModelConfig(
    dim=256, n_layers=4, n_heads=4, n_kv_heads=2, head_dim=64, hidden_dim=512, vocab_size=1024, norm_eps=1e-5,
    max_context=256,
)  # fmt: skip


@torch.inference_mode()
def poison_rows(passes: int) -> list[Bound]:
    """The logits of every pass are those of a pass that nothing disturbed."""
    core.checkpoint.synthetic.SHAPES["tiny"] = replace(_TINY)
    table = Table("Streamed passes with poisoned slots", ("weights", "passes", "wrong"))
    for quant, count in (("none", passes * 8 // 10), ("int4", passes * 2 // 10)):
        with engine_of("tiny", quant=quant, context=128, offload=True) as (engine, _):
            lane: Any = engine.machine.lane
            send = lane.send

            def poisoned(name: str, source: Any, home: Tensor, send: Any = send) -> Any:
                home.fill_(0xFF)
                return send(name, source, home)

            token = torch.tensor([7])
            want = engine.model(token, engine.cache).clone()
            lane.send = poisoned
            wrong = torch.zeros((), dtype=torch.int64, device=want.device)
            for _ in range(count):
                wrong += (engine.model(token, engine.cache) != want).any()
            found = int(wrong)
        table.add("float16" if quant == "none" else quant, str(count), str(found))
        table.bounds.append(Bound(f"{quant}: passes without a wrong bit", float(found == 0), 1.0))
    return table.end()
