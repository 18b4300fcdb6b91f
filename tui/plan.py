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
from core.weights.placement import plan
from core.weights.plan import Plan
from core.weights.plan_json import plan_json
from core.weights.survey import choice_of, known_rates, needs_asked, survey
from tui.plan_table import lines


def run(options: LoadOptions, *, as_json: bool) -> int:
    """Print the plan for `options`, as a table or as one JSON object; the exit status. Raises UserError."""
    made, name = make(options)
    print(json.dumps(plan_json(made)) if as_json else "\n".join(lines(made, name)), flush=True)
    return 0


def make(options: LoadOptions) -> tuple[Plan, str]:
    """The plan, and what to call the model. Torch is imported for a checkpoint only. Raises UserError."""
    budget = survey(options)
    if options.synthetic is not None:
        config, stored, name = SHAPES[options.synthetic], "float16", f"synthetic-{options.synthetic}"
    else:
        config, stored = _opened(options)
        name = model_name(Path(options.checkpoint))
    needs = needs_asked(config, stored, options, budget.device)
    rates = known_rates(budget, needs.dtype, options)
    return plan(needs, budget, choice_of(options), rates), name


def _opened(options: LoadOptions) -> tuple[ModelConfig, str]:
    """The sizes of a checkpoint, and its float type."""
    from core.checkpoint import open_checkpoint

    with closing(open_checkpoint(find(options.checkpoint, options.tokenizer))) as checkpoint:
        return checkpoint.config, str(checkpoint.stored_dtype).removeprefix("torch.")
