"""The core from checkpoint to reply, with nothing installed but torch and sentencepiece."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

PROGRAM = """
    import importlib.abc, importlib.metadata as metadata, json, re, sys

    def closure(names):
        seen = set()
        while names:
            name = re.sub(r"[-_.]+", "-", names.pop().lower())
            if name in seen:
                continue
            seen.add(name)
            try:
                required = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                continue
            names |= {re.match(r"[\\w.-]+", line)[0] for line in required if "extra ==" not in line}
        return seen

    allowed = closure({"torch", "sentencepiece"})
    foreign = {
        module
        for module, distributions in metadata.packages_distributions().items()
        if not any(re.sub(r"[-_.]+", "-", d.lower()) in allowed | {"llama-tui"} for d in distributions)
    }
    assert {"textual", "psutil", "numpy", "gguf", "tokenizers", "platformdirs"} <= foreign, foreign

    class Absent(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in foreign | {"tui"}:
                raise ModuleNotFoundError(f"No module named {name!r} (hidden by the test)", name=name)

    sys.meta_path.insert(0, Absent())

    import queue
    from core.engine.commands import Configure, Load, Submit
    from core.engine.events import Done, Failed
    from core.engine.worker import LocalBackend
    from core.options import LoadOptions, Sampling

    events = queue.SimpleQueue()
    backend = LocalBackend()
    backend.start(events.put)
    backend.submit(Configure(Sampling(temperature=0, max_tokens=199)))
    backend.submit(Load(LoadOptions(sys.argv[1], dtype="float32", device="cpu", raw=True)))
    backend.submit(Submit(0, ""))
    while not isinstance(event := events.get(), (Done, Failed)):
        pass
    assert isinstance(event, Done), event
    assert event.reply is not None, event
    assert backend.close(5)
    print(json.dumps(event.reply.tokens))
"""


def test_golden_tokens_with_torch_and_sentencepiece_alone(stories: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(stories)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    golden = json.loads((stories / "golden_tokens.json").read_text())["greedy"]
    assert json.loads(result.stdout) == golden
