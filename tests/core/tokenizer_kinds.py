"""Every kind of tokenizer beside the library that its authors use, and texts to compare them on."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import sentencepiece
import tiktoken
import tokenizers
from tiktoken.load import load_tiktoken_bpe
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from core.text.files import open_tokenizer
from core.text.gguf_vocab import gguf_tokenizer
from core.text.tokenizer import Tokenizer

BLANK = "\u2581"
# Meta's: github.com/meta-llama/llama-models, models/llama3/tokenizer.py.
LLAMA3_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
MARKS = ["<think>", "[TOOL]"]
ADDED = ["    "]
KINDS = [
    *("spm", "gguf-llama", "ranks", "gguf-llama-bpe"),
    *("json-llama3", "json-smollm", "json-legacy", "json-first", "json-always", "json-never"),
]


@dataclass(frozen=True)
class Pair:
    """Our tokenizer, what the reference makes of a text, and the text that the ids of a text stand for."""

    ours: Tokenizer
    reference: Callable[[str], list[int]]
    back: Callable[[str], str]


def vectors(folder: Path) -> list[tuple[str, list[int]]]:
    """The published cases of `folder`: a text and its ids without BOS."""
    with (folder / "vectors.inp").open(encoding="utf-8", newline="") as file:
        texts = file.read().split("\n__ggml_vocab_test__\n")
    lines = (folder / "vectors.out").read_text().split("\n")  # the last case is ""
    return [(text, [int(word) for word in line.split()]) for text, line in zip(texts, lines, strict=True)]


def random_texts(count: int) -> list[str]:
    """Texts of up to 30 parts, from words to characters that few programs expect."""
    chance = random.Random(1)
    spaces = [chr(code) for code in range(0x3001) if chr(code).isspace()]
    parts = [
        *("the", "Hello", " world", "'S", "I'll", "x1y22z333", "1234567", "٣٤", "²", "\ufffd", "\ud800", "ſ"),
        *(
            "😀",
            "👩\u200d💻",
            "🇩🇪",
            "e\u0301",
            "\u0301\u0302",
            "日本語",
            "한국어",
            "नमस्ते",
            "مرحبا",
            "ß",
            BLANK,
        ),
        *("\r\n", "\n\n", "   ", "\t", "...", "/*", "$=", "<", ">", "|", "_", "A", "é"),
        *spaces,
        *map(chr, range(1, 0x20)),
    ]
    assigned = [
        chr(code) for code in range(0x80, 0x20000) if unicodedata.category(chr(code)) not in ("Cn", "Cs")
    ]
    return [
        "".join(
            chance.choice(parts if chance.random() < 0.9 else assigned) for _ in range(chance.randrange(31))
        )
        for _ in range(count)
    ]


def hostile_texts(spellings: Sequence[str], count: int) -> list[str]:
    """Texts that are full of `spellings`, whole and in pieces."""
    chance = random.Random(2)
    pieces = [
        *spellings,
        *spellings,
        "<0x0A>",
        "<|",
        "|>",
        "<",
        ">",
        "[",
        "]",
        " ",
        "\n",
        BLANK,
        "a",
        "\ud800",
    ]
    return ["".join(chance.choices(pieces, k=chance.randrange(1, 12))) for _ in range(count)]


@cache
def pair(kind: str, data: Path) -> Pair:
    """One of KINDS, made of the files in `data`."""
    if kind in ("spm", "gguf-llama"):
        path = data / "llama2" / "tokenizer.model"
        library = sentencepiece.SentencePieceProcessor(str(path))
        ours = open_tokenizer(path) if kind == "spm" else llama2_of_lists(path)
        return Pair(ours, library.EncodeAsIds, lambda text: text.replace(BLANK, " "))
    if kind in ("ranks", "gguf-llama-bpe"):
        path = data / "llama3" / "tokenizer.model"
        ranks = load_tiktoken_bpe(str(path))
        encoding = tiktoken.Encoding("x", pat_str=LLAMA3_CUT, mergeable_ranks=ranks, special_tokens={})
        ours = open_tokenizer(path) if kind == "ranks" else llama3_of_lists(path, ranks)
        return Pair(ours, encoding.encode_ordinary, lambda text: text)
    from core.text.tokenizer_json import JSONTokenizer

    library = trained(kind, data)
    return Pair(
        JSONTokenizer(json.loads(library.to_str())),
        lambda text: library.encode(text, add_special_tokens=False).ids,
        lambda text: _back(kind, text),
    )


def _back(kind: str, text: str) -> str:
    """`text` as it comes back: Metaspace puts no blank before one, but takes one away."""
    if kind in ("json-llama3", "json-smollm"):
        return text
    text = text.replace(BLANK, " ")
    return text.removeprefix(" ") if kind in ("json-first", "json-always") else text


def llama2_of_lists(path: Path) -> Tokenizer:
    """The vocabulary of a SentencePiece model as a GGUF file holds it."""
    library = sentencepiece.SentencePieceProcessor(str(path))
    ids = range(library.vocab_size())
    return gguf_tokenizer(
        "llama",
        [library.IdToPiece(i) for i in ids],
        scores=[library.GetScore(i) for i in ids],
        types=[
            2 if library.IsUnknown(i) else 3 if library.IsControl(i) else 6 if library.IsByte(i) else 1
            for i in ids
        ],
        merges=None,
        pre="default",
        bos_id=1,
        eos_id=2,
        adds_bos=None,
        adds_space_prefix=True,
    )


def llama3_of_lists(path: Path, ranks: dict[bytes, int]) -> Tokenizer:
    """Llama 3's ranks as a GGUF file holds them: each piece in letters, and every way to merge two."""
    letters = bytes_to_unicode()
    spelt = {piece: "".join(map(letters.__getitem__, piece)) for piece in ranks}
    merges = []
    for piece in ranks:
        halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [(ranks[a], ranks[b], a, b) for a, b in halves if a in ranks and b in ranks]
        merges += [f"{spelt[a]} {spelt[b]}" for _, _, a, b in sorted(known)]
    controls = open_tokenizer(path).controls
    return gguf_tokenizer(
        "gpt2",
        [*spelt.values(), *controls],
        scores=None,
        types=[1] * len(ranks) + [3] * len(controls),
        merges=merges,
        pre="llama-bpe",
        bos_id=128000,
        eos_id=128009,
        adds_bos=None,
        adds_space_prefix=True,
    )


@cache
def trained(kind: str, data: Path) -> tokenizers.Tokenizer:
    """A tokenizer.json's library object: byte-level, or Llama 2's pieces in one of four layouts."""
    if kind in ("json-llama3", "json-smollm"):
        library = _byte_level(kind, data / "text" / "wikitext2.test.raw")
    else:
        library = _pieces(kind.removeprefix("json-"), data / "llama2" / "tokenizer.model")
    library.add_special_tokens([AddedToken(text, normalized=False) for text in SPECIAL])
    library.add_tokens([AddedToken(text, normalized=False) for text in MARKS])
    bos = SPECIAL[0]
    library.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, library.token_to_id(bos))]
    )
    return library


def _byte_level(kind: str, text: Path) -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer(models.BPE(ignore_merges=kind == "json-llama3"))
    cut = (
        pre_tokenizers.Split(tokenizers.Regex(LLAMA3_CUT), "isolated")
        if kind == "json-llama3"
        else pre_tokenizers.Digits(individual_digits=True)
    )
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "json-smollm")
    library.pre_tokenizer = pre_tokenizers.Sequence([cut, bytes_])
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    library.train_from_iterator([text.read_text(encoding="utf-8")[:200_000]], trainer)
    library.add_tokens([AddedToken(text, normalized=False) for text in ADDED])
    return library


def _pieces(layout: str, path: Path) -> tokenizers.Tokenizer:
    """As transformers converts a SentencePiece model, in the layout of its older or newer versions."""
    source = sentencepiece.SentencePieceProcessor(str(path))
    vocab = {source.IdToPiece(i): i for i in range(source.vocab_size())}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(vocab, key=lambda piece: -source.GetScore(vocab[piece]))
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab
    ]
    library = tokenizers.Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if layout == "legacy":
        library.normalizer = normalizers.Sequence(
            [normalizers.Prepend(BLANK), normalizers.Replace(" ", BLANK)]
        )
    else:
        library.pre_tokenizer = pre_tokenizers.Metaspace(BLANK, prepend_scheme=layout, split=False)
    blanks = {
        "always": [decoders.Metaspace(BLANK, prepend_scheme="always"), decoders.ByteFallback()],
        "never": [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()],
    }
    stripped = [*blanks["never"], decoders.Strip(" ", 1, 0)]
    library.decoder = decoders.Sequence(blanks.get(layout, stripped))
    library.add_special_tokens([AddedToken("<unk>", normalized=False)])
    return library
