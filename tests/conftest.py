"""Data that tests share. What lies outside the repository is looked for beside the checkout."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import pytest
import tokenizers
from hypothesis import settings
from tokenizers import models, pre_tokenizers

from core import demo
from core.errors import UserError

if TYPE_CHECKING:
    from core.checkpoint.gguf import GGUFCheckpoint
    from core.text.bpe import ByteLevelBPE

# Compiled once for all tests, most of which have a cache of their own.
_NATIVE = Path(__file__).resolve().parents[1] / ".pytest_cache" / "native"
os.environ.setdefault("LLAMA_TUI_NATIVE", str(_NATIVE))

# Kernels for cards run in Triton's interpreter where there is no card; it must know before it is imported,
# and other libraries import it too.
if not any(Path("/dev").glob("nvidia[0-9]*")):
    os.environ["TRITON_INTERPRET"] = "1"

# No test, nor what it starts, sees or changes the conversations and settings of whoever runs it.
for _name in [name for name in os.environ if name.startswith("LLAMA_TUI_")]:
    if _name not in ("LLAMA_TUI_NATIVE", "LLAMA_TUI_CACHE"):
        del os.environ[_name]
_OWN = tempfile.mkdtemp(prefix="llama-tui-tests-")
atexit.register(shutil.rmtree, _OWN, ignore_errors=True)
os.environ["LLAMA_TUI_DATA"] = os.path.join(_OWN, "data")
os.environ["LLAMA_TUI_CONFIG"] = os.path.join(_OWN, "config.toml")

# Readline leaves them to the processes that pytest starts, and they go before a terminal's own size.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)

# An example's time says nothing where other tests run beside it.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    """An option of our own."""
    parser.addoption(
        "--update-goldens", action="store_true", help="take screens as they are as what they should be"
    )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of test data beside the checkout (tokenizers with published vectors, a small Llama)."""
    if not _SHARED.is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    return _SHARED


@pytest.fixture(scope="session")
def stories(shared_data: Path) -> Path:
    """stories260K: a trained Llama of 260 thousand weights in Meta's layout."""
    return shared_data / "stories260K"


@pytest.fixture(scope="session")
def demo_path() -> Path:
    """The demo model's GGUF file, fetched once per machine."""
    try:
        return demo.locate() or demo.fetch(lambda done, total: None)
    except UserError as error:
        pytest.skip(f"the demo model cannot be fetched: {error}")


@pytest.fixture(scope="session")
def demo_checkpoint(demo_path: Path) -> GGUFCheckpoint:
    """The demo model, opened."""
    from core.checkpoint.gguf import GGUFCheckpoint  # torch, which most tests do without
    from core.checkpoint.layout import find

    return GGUFCheckpoint(find(str(demo_path)))


@pytest.fixture(scope="session")
def demo_tokenizer(demo_checkpoint: GGUFCheckpoint) -> ByteLevelBPE:
    """The demo model's vocabulary, as we read it."""
    return demo_checkpoint.tokenizer()


@pytest.fixture(scope="session")
def demo_library(demo_path: Path) -> tokenizers.Tokenizer:
    """The demo's tokenizer as its authors built it, control tokens parsed in text: an oracle."""
    fields = gguf.GGUFReader(demo_path).fields
    tokens, merges, types = (
        fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "merges", "token_type")
    )
    library = tokenizers.Tokenizer(
        models.BPE(
            {token: i for i, token in enumerate(tokens)}, [tuple(merge.split(" ")) for merge in merges]
        )
    )
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    library.decoder = tokenizers.decoders.ByteLevel()
    library.add_special_tokens(
        [
            tokenizers.AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind == gguf.TokenType.CONTROL
        ]
    )
    return library
