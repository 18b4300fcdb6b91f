"""Weights as the interface keeps or streams them: a matrix of all layers at a time. No Textual."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from core.weights.names import ATTENTION, FEED_FORWARD
from core.weights.needs import Needs
from core.weights.plan import Place, Plan


class Mark(StrEnum):
    """Where the weights of a group are, in one character."""

    KEPT = "x"
    SOME = "~"  # kept in some layers
    CPU = "c"  # computed on the CPU, at least in some layers
    STREAMED = " "


MARKS = {
    Mark.KEPT: "kept on the GPU",
    Mark.SOME: "kept on the GPU in some layers",
    Mark.CPU: "computed on the CPU",
    Mark.STREAMED: "streamed to the GPU",
}
"""Every mark in words."""


@dataclass(frozen=True, slots=True)
class Group:
    """What one toggle stands for: `name` as an exclusion, and the short names of its `weights`."""

    label: str
    title: str
    name: str
    nbytes: int
    weights: tuple[str, ...]


def groups_of(needs: Needs) -> tuple[Group, ...]:
    """The groups of a model: one for each matrix of a layer, then embeddings and output head.

    A tied model's embedding is its output head, so the two are one group.
    """
    sizes = {weight.name: weight.nbytes for unit in needs.units for weight in unit.weights}
    head = sum(size for name, size in sizes.items() if name.startswith("output."))
    groups = []
    for part, names in (("attention", ATTENTION), ("feed-forward", FEED_FORWARD)):
        for name in names:
            weights = tuple(weight for weight in sizes if weight.endswith(f".{name}"))
            nbytes = sum(sizes[weight] for weight in weights)
            groups.append(Group(name, f"{name} ({part}, all layers)", name, nbytes, weights))
    if needs.tied:
        title = "embeddings and output head, which are one"
        return (*groups, Group("emb+out", title, "output", head, ("output",)))
    return (
        *groups,
        Group("emb", "embeddings", "embeddings", needs.embeddings, ("embeddings",)),
        Group("out", "output head", "output", head, ("output",)),
    )


def mark_of(group: Group, plan: Plan) -> Mark:
    """Where `plan` has the weights of `group`."""
    places = [plan.places[name] for name in group.weights]
    kept = places.count(Place.GPU)
    if kept:
        return Mark.KEPT if kept == len(places) else Mark.SOME
    return Mark.CPU if Place.CPU in places else Mark.STREAMED


def mark_among(group: Group, kept: Collection[str]) -> Mark:
    """Where a group would be if just the weights `kept`, by their short names, stayed on the device."""
    count = sum(name in kept for name in group.weights)
    return Mark.KEPT if count == len(group.weights) else Mark.SOME if count else Mark.STREAMED


def kept_by(plan: Plan) -> frozenset[str]:
    """Short names of what `plan` keeps on the device."""
    return weights_at(plan, Place.GPU)


def weights_at(plan: Plan, place: Place) -> frozenset[str]:
    """Short names of what `plan` has at a place."""
    names = (name for group in groups_of(plan.needs) for name in group.weights)
    return frozenset(name for name in names if plan.places[name] is place)


def exclusions(kept: Collection[str], needs: Needs) -> tuple[str, ...]:
    """Short names of weights as exclusions: a group that is whole goes by its own name, runs by a range."""
    names: list[str] = []
    for group in groups_of(needs):
        found = [index for index, name in enumerate(group.weights) if name in kept]
        if len(found) == len(group.weights):
            names.append(group.name)
            continue
        for _, run in groupby(enumerate(found), lambda pair: pair[1] - pair[0]):
            layers = [layer for _, layer in run]
            span = f"{layers[0]}-{layers[-1]}" if len(layers) > 1 else f"{layers[0]}"
            names.append(f"layers.{span}.{group.name}")
    return tuple(names)
