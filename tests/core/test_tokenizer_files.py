"""Tokenizer files and folders: told apart by content, and refused in one line."""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.text.files import open_tokenizer
from core.text.huggingface import open_huggingface
from core.text.ranks import RanksTokenizer
from core.text.spm import SentencePieceTokenizer
from core.text.tokenizer_json import JSONTokenizer
from tests.core.tokenizer_kinds import trained

BYTES = [bytes([byte]) for byte in range(256)]


def ranks(pieces: list[bytes]) -> bytes:
    return b"".join(base64.b64encode(piece) + f" {rank}\n".encode() for rank, piece in enumerate(pieces))


@pytest.fixture(scope="module")
def document(shared_data: Path) -> str:
    """A whole tokenizer.json of 1,007 byte-level tokens."""
    return trained("json-llama3", shared_data).to_str()


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json", "x.txt"])
def test_each_kind_under_any_name(tmp_path: Path, stories: Path, document: str, name: str) -> None:
    path = tmp_path / name
    for content, kind, size in (
        ((stories / "tokenizer.model").read_bytes(), SentencePieceTokenizer, 512),
        (ranks([*BYTES, b"th"]), RanksTokenizer, 257 + 256),
        (document.encode(), JSONTokenizer, 1007),
        (b"\n" + document.encode(), JSONTokenizer, 1007),
    ):
        path.write_bytes(content)
        tokenizer = open_tokenizer(path)
        assert isinstance(tokenizer, kind)
        assert tokenizer.vocab_size == size


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello" * 100,
        bytes(2000),
        b"\x80\x02}q\x00",
        b"\n\n\nA text that begins like a SentencePiece model.",
        b"{",
        b"[]",
        b"{}",
        b'{"a":' * 100_000,
        b'{"model": {"type": "BPE", "vocab": {"\\ud800": 0}, "merges": []}}',
        ranks(BYTES)[:-4],
        ranks(BYTES[:-1]),
        ranks([*BYTES, b"a"]),
        ranks(BYTES) + b"dGg= 257\n",
        ranks(BYTES) + b"dGg= 5\n",
        ranks(BYTES) + b"dGg= x\n",
        ranks(BYTES) + b"d*g= 256\n",
    ],
)
def test_junk_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"\A.*tokenizer\.model: .*; give the tokenizer.*\Z"):
        open_tokenizer(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        open_tokenizer(tmp_path / "absent")


def test_what_is_no_tokenizer_by_its_size_or_nature_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**40)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "large", tmp_path / "pipe", tmp_path):
        with pytest.raises(UserError, match="not a file of at most 64 MiB"):
            open_tokenizer(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": {"type": "WordPiece"}}, "'WordPiece'"),
        ({"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}, "'Unigram'"),
        ({"normalizer": {"type": "BertNormalizer"}}, "'BertNormalizer'"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "'Whitespace'"),
        ({"decoder": {"type": "WordPiece"}}, "'WordPiece'"),
        ({"decoder": None}, "none"),
        ({"added_tokens": [{"content": "x", "id": -1, "special": True}]}, "its ids"),
        ({"added_tokens": [{"content": "x", "id": 0, "special": True}]}, "its ids"),
        ({"added_tokens": [{"content": 1, "id": 1, "special": False}]}, "its contents"),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}}, "library"),
    ],
)
def test_a_kind_that_is_not_read_is_named(
    tmp_path: Path, document: str, change: dict[str, Any], named: str
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(document) | change))
    with pytest.raises(UserError, match=rf"\A.*: .*{named}.*\Z"):
        open_tokenizer(path)


def test_an_expression_that_gives_up_is_an_error_of_one_line(document: str) -> None:
    cut = {"type": "Split", "pattern": {"Regex": "(a|aa)+$"}, "behavior": "Isolated", "invert": False}
    tokenizer = JSONTokenizer(json.loads(document) | {"pre_tokenizer": cut})
    with pytest.raises(UserError, match=r"\Athe text cannot be encoded .*\Z"):
        tokenizer.encode("a" * 60 + "b")


class TestFolder:
    """What the files beside a tokenizer say."""

    def open(self, folder: Path, tokenizer: str, content: bytes, **files: object) -> Any:
        (folder / tokenizer).write_bytes(content)
        for name, value in files.items():
            (folder / f"{name}.json").write_text(json.dumps(value))
        return open_huggingface(folder)

    @pytest.mark.parametrize(
        ("files", "bos", "eos"),
        [
            ({}, "<s>", None),
            ({"tokenizer_config": {"eos_token": "</s>"}}, "<s>", "</s>"),
            ({"tokenizer_config": {"eos_token": {"content": "<|im_end|>"}}}, "<s>", "<|im_end|>"),
            ({"special_tokens_map": {"eos_token": {"content": "</s>"}}}, "<s>", "</s>"),
            ({"tokenizer_config": {"eos_token": "<x>"}, "config": {"eos_token_id": 1002}}, "<s>", "</s>"),
            ({"config": {"eos_token_id": [1004, 1002]}}, "<s>", "<|im_end|>"),
            ({"config": {"eos_token_id": 99999}}, "<s>", None),
            ({"config": {"eos_token_id": "2"}}, "<s>", None),
            ({"tokenizer_config": {"add_bos_token": False}}, None, None),
            ({"tokenizer_config": {"add_bos_token": True, "bos_token": "</s>"}}, "<s>", None),
        ],
    )
    def test_json(
        self, tmp_path: Path, document: str, files: dict[str, object], bos: str | None, eos: str | None
    ) -> None:
        tokenizer = self.open(tmp_path, "tokenizer.json", document.encode(), **files)
        ids = [None if name is None else tokenizer.controls[name] for name in (bos, eos)]
        assert [tokenizer.bos_id, tokenizer.eos_id] == ids

    def test_json_without_a_bos_of_its_own(self, tmp_path: Path, document: str) -> None:
        plain = json.dumps(json.loads(document) | {"post_processor": None}).encode()
        assert self.open(tmp_path, "tokenizer.json", plain).bos_id is None
        settings = {"add_bos_token": True, "bos_token": "</s>"}
        tokenizer = self.open(tmp_path, "tokenizer.json", plain, tokenizer_config=settings)
        assert tokenizer.bos_id == tokenizer.controls["</s>"]

    def test_model(self, tmp_path: Path, stories: Path) -> None:
        model = (stories / "tokenizer.model").read_bytes()
        tokenizer = self.open(tmp_path, "tokenizer.model", model, tokenizer_config={"bos_token": "</s>"})
        assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
        tokenizer = self.open(tmp_path, "tokenizer.model", model, tokenizer_config={"add_bos_token": False})
        assert (tokenizer.bos_id, tokenizer.eos_id) == (None, 2)

    def test_marks_added_to_a_model(self, tmp_path: Path, stories: Path) -> None:
        model = (stories / "tokenizer.model").read_bytes()
        added = {"<|im_end|>": 513, "[PAD]": 512, "<s>": 1, "word": 514, "<x>": 2**40}
        tokenizer = self.open(
            tmp_path, "tokenizer.model", model, added_tokens=added, config={"eos_token_id": 513}
        )
        assert tokenizer.controls == {"<s>": 1, "</s>": 2, "[PAD]": 512, "<|im_end|>": 513}
        assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.token_bytes(513)) == (514, 513, b"")

    def test_json_goes_first(self, tmp_path: Path, stories: Path, document: str) -> None:
        (tmp_path / "tokenizer.model").write_bytes((stories / "tokenizer.model").read_bytes())
        assert isinstance(self.open(tmp_path, "tokenizer.json", document.encode()), JSONTokenizer)

    def test_a_folder_without_a_tokenizer(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no tokenizer\.json or tokenizer\.model in it"):
            open_huggingface(tmp_path)

    @pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
    def test_a_damaged_file_beside_it(self, tmp_path: Path, document: str, content: str) -> None:
        (tmp_path / "tokenizer.json").write_text(document)
        (tmp_path / "tokenizer_config.json").write_text(content)
        with pytest.raises(UserError, match=r"\A.*tokenizer_config\.json: not .*; fetch it again\Z"):
            open_huggingface(tmp_path)


MUTATE = """
    import sys
    from pathlib import Path
    from core.errors import UserError
    from core.text.files import open_tokenizer

    for name in sys.stdin.read().split():
        try:
            tokenizer = open_tokenizer(Path(name))
            for text in ("Hello <s> 123's\\n\\n", "é日😀\\0<|im_end|>", "a" * 200 + "  "):
                for continues in (False, True):
                    ids = tokenizer.encode(text, continues=continues)
                    b"".join(map(tokenizer.token_bytes, ids))
            b"".join(map(tokenizer.token_bytes, range(-1, min(tokenizer.vocab_size, 2000) + 1)))
            print("read")
        except UserError as error:
            assert len(str(error).splitlines()) == 1, error
            print("refused")
"""


@pytest.mark.parametrize("kind", ["spm", "ranks", "json"])
def test_damaged_files_neither_crash_nor_hang(
    tmp_path: Path, stories: Path, document: str, kind: str
) -> None:
    whole = {
        "spm": (stories / "tokenizer.model").read_bytes(),
        "ranks": ranks([*BYTES, b"th", b"the"]),
        "json": document.encode(),
    }[kind]
    chance = random.Random(kind)
    paths = [tmp_path / str(i) for i in range(200)]
    for path in paths:
        path.write_bytes(_damaged(whole, chance))
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MUTATE)],
        input="\n".join(map(str, paths)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    outcomes = result.stdout.split()
    assert len(outcomes) == len(paths)
    assert set(outcomes) == {"read", "refused"}


def _damaged(data: bytes, chance: random.Random) -> bytes:
    """`data` with a few bytes changed, left out, put in or cut off."""
    damaged = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5])):
        at = (
            chance.randrange(len(damaged)) if chance.random() < 0.5 else chance.randrange(2000) % len(damaged)
        )
        match chance.randrange(4):
            case 0:
                damaged[at] ^= 1 << chance.randrange(8)
            case 1:
                del damaged[at : at + chance.randrange(1, 9)]
            case 2:
                damaged[at:at] = damaged[at : at + chance.randrange(1, 40)]
            case 3 if chance.random() < 0.2:
                del damaged[at + 1 :]
    return bytes(damaged)
