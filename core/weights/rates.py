"""Rates that were measured once on this machine, kept in the user's cache. No torch.

A file rates.json: by device and what the weights are multiplied as (`Needs.product`), GB/s by kind, and
seconds a unit.
"""

from __future__ import annotations

from typing import Any

from core.cache_folder import read_table, write_table
from core.weights.needs import MIXED
from core.weights.plan import Rate, Rates

FILE_NAME = "rates.json"

_KINDS = ("link", "gpu", "cpu", "disk")
_SHARES = ("link_share", "gpu_share")
_ASSUMED = {"link": 12.0, "gpu": 300.0, "cpu": 15.0, "disk": 1.0}  # GB/s; a modest machine of our day
_LIKE = {MIXED: "int8"}  # the same bytes
_HIGHEST = 1e6  # GB/s; what is above was not measured


def load_rates(device_name: str, product: str) -> Rates:
    """What was measured on a device with weights multiplied so ("cached"), the rest assumed.

    `device_name` is the card's, or "cpu", or "sim", whose device is this machine's CPU. What another
    device has found out of CPU and disk holds here too. What was not yet measured of "int8-mixed"
    is taken to be as of "int8".
    """
    devices = read_table(FILE_NAME)
    entry, host = (
        _entry(devices, name, _LIKE.get(product, product)) | _entry(devices, name, product)
        for name in (device_name, "cpu")
    )
    rates = {kind: _rate(entry.get(kind)) for kind in _KINDS}
    for kind in ("cpu", "disk"):
        rates[kind] = rates[kind] or _rate(host.get(kind))
    if device_name == "sim":
        rates["gpu"] = rates["gpu"] or rates["cpu"] or Rate(_ASSUMED["cpu"])
    known: dict[str, Any] = {kind: rate or Rate(_ASSUMED[kind]) for kind, rate in rates.items()}
    unit_s = entry.get("unit_s", 0.0)
    return Rates(
        **known,
        unit_s=float(unit_s) if _is_number(unit_s) and unit_s < 1 else 0.0,
        link_share=_share(entry.get("link_share")),
        gpu_share=_share(entry.get("gpu_share")),
    )


def save_rates(device_name: str, product: str, rates: Rates) -> None:
    """Keep what of `rates` was measured. Where the cache cannot be written, nothing is kept."""
    devices = read_table(FILE_NAME)
    entry = _entry(devices, device_name, product)
    for kind in _KINDS:
        rate: Rate = getattr(rates, kind)
        if rate.source == "measured":
            entry[kind] = rate.gb_s
    for key in ("unit_s", *_SHARES):
        entry[key] = getattr(rates, key)
    types = devices.get(device_name)
    devices[device_name] = {**(types if isinstance(types, dict) else {}), product: entry}
    write_table(FILE_NAME, devices)


def _entry(devices: dict[str, Any], device_name: str, product: str) -> dict[str, Any]:
    types = devices.get(device_name)
    entry = types.get(product) if isinstance(types, dict) else None
    return dict(entry) if isinstance(entry, dict) else {}


def _rate(value: Any) -> Rate | None:
    return Rate(float(value), "cached") if _is_number(value) and value > 0 else None


def _share(value: Any) -> float:
    return float(value) if _is_number(value) and 0.1 <= value <= 1 else 1.0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _HIGHEST
