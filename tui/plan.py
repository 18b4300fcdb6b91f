"""`--plan`: where every weight would go, before one is read."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from core.checkpoint import find
from core.checkpoint.layout import model_name
from core.model.config import ModelConfig
from core.model.shapes import SHAPES
from core.options import LoadOptions
from core.weights.kernel_cache import KnownKernels, known_kernels
from core.weights.placement import plan
from core.weights.plan import Plan
from core.weights.plan_json import plan_json
from core.weights.survey import choice_of, computing_threads, known_rates, needs_asked, survey
from tui.plan_table import lines


def run(options: LoadOptions, *, as_json: bool) -> int:
    """Print the plan for `options`, as a table or as one JSON object; the exit status. Raises UserError."""
    made, name, limit, kernels = make(options)
    text = json.dumps(plan_json(made, kernels)) if as_json else "\n".join(lines(made, name, limit, kernels))
    print(text, flush=True)
    return 0


def make(options: LoadOptions) -> tuple[Plan, str, int, KnownKernels]:
    """The plan, what to call the model, its longest context, and the CPU's kernels as far as measured.

    Torch is imported for a checkpoint only. Raises UserError.
    """
    budget = survey(options)
    blocks: dict[str, str] = {}
    if options.synthetic is not None:
        config, stored = SHAPES[options.synthetic], "float16"
        name = f"synthetic-{options.synthetic}"
    else:
        config, stored, blocks = _opened(options)
        name = model_name(Path(options.checkpoint))
    needs = needs_asked(config, stored, options, budget.device, blocks)
    rates = known_rates(budget, needs.product, options)
    kernels = known_kernels(config, needs, options, computing_threads(budget.device))
    return plan(needs, budget, choice_of(options), rates), name, config.max_context, kernels


def _opened(options: LoadOptions) -> tuple[ModelConfig, str, dict[str, str]]:
    """The sizes of a checkpoint, its float type, and which matrices its file has quantised."""
    from core.checkpoint import blocks_of, open_checkpoint

    with closing(open_checkpoint(find(options.checkpoint, options.tokenizer))) as checkpoint:
        stored = str(checkpoint.stored_dtype).removeprefix("torch.")
        return checkpoint.config, stored, blocks_of(checkpoint)
