"""Names of weights against the list of the contract."""

from __future__ import annotations

import pytest

from core.errors import UserError
from core.weights.names import layer_count, select, split_names
from tests.core.plans import tiny


@pytest.mark.parametrize(
    "words",
    [
        "w1,w2,w3", "w1 w2 w3", "[w1, w2, w3]", "['w1', 'w2', 'w3']", ["w1", "w2", "w3"],
        ["[w1,", "w2", "w3]"], ["w1,w2", "w3,w1"], " W1 ,, w2\nw3 ",
    ],
)  # fmt: skip
def test_however_they_are_joined(words: str | list[str]) -> None:
    assert split_names(words) == ("w1", "w2", "w3")


def test_none_at_all() -> None:
    assert split_names("") == split_names([]) == split_names("[]") == ()


def matrices(layers: list[int], kinds: str) -> set[str]:
    return {f"layers.{i}.{kind}" for i in layers for kind in kinds.split()}


EVERY = "wq wk wv wo w1 w2 w3"


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["wq"], matrices([0, 1, 2, 3], "wq")),
        (["w1", "w3"], matrices([0, 1, 2, 3], "w1 w3")),
        (["attention"], matrices([0, 1, 2, 3], "wq wk wv wo")),
        (["feed_forward"], matrices([0, 1, 2, 3], "w1 w2 w3")),
        (["layers.3"], matrices([3], EVERY)),
        (["layers.1-2"], matrices([1, 2], EVERY)),
        (["layers.3.w2"], {"layers.3.w2"}),
        (["layers.0-2.attention"], matrices([0, 1, 2], "wq wk wv wo")),
        (["layers.1-1.feed_forward"], matrices([1], "w1 w2 w3")),
        (["embeddings"], {"embeddings"}),
        (["output", "layers.0.wk"], {"output", "layers.0.wk"}),
        ([], set()),
    ],
)
def test_what_they_mean(names: list[str], wanted: set[str]) -> None:
    needs = tiny(4)
    assert layer_count(needs) == 4
    assert select(names, needs) == wanted
    assert split_names(names) == tuple(names)


def test_all_of_them_are_all_weights() -> None:
    needs = tiny(3)
    everything = {w.name for unit in needs.units[:-1] for w in unit.weights if "output" not in w.name}
    assert select(["attention", "feed_forward"], needs) == everything
    assert select(["layers.0-2"], needs) == everything


def test_a_tied_embedding_is_the_output() -> None:
    assert select(["embeddings"], tiny(tied=True)) == select(["output"], tiny(tied=True)) == {"output"}


@pytest.mark.parametrize(
    "name",
    [
        "w4", "wq2", "layers", "layers.", "layers.x", "layers.1.w9", "output.0", "layers.1.output",
        "layers.1-", "layers.-1", "layers.1.attention.wq",
    ],
)  # fmt: skip
def test_an_unknown_name_is_refused_with_the_list(name: str) -> None:
    for refuse in (lambda: split_names(["w1", name], "--cpu-layers"), lambda: select([name], tiny())):
        with pytest.raises(
            UserError, match=r"no such weights; the names are wq wk .* layers\.0-9\.attention$"
        ):
            refuse()


def test_a_layer_beyond_the_model_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"^--cpu-layers layers\.2-9: this model has layers 0 to 3; the names"
    ):
        select(["layers.2-9"], tiny(4), "--cpu-layers")
    with pytest.raises(UserError, match=r"^--offload-exclusion layers\.4\.w1: this model has layers 0 to 3"):
        split_names("layers.4.w1", layers=4)
    with pytest.raises(UserError, match=r"layers\.9-2: the layers run backwards; give layers\.2-9"):
        split_names("layers.9-2")
    assert split_names("layers.999") == ("layers.999",)  # the model is not known yet
