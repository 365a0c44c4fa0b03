"""Latency tables: what every layer costs at every width on a device, and the price of whole networks from it."""

from whyprune.devices.table.price import LatencyPrice, latency_price
from whyprune.devices.table.rows import Layer, Row, layers_of
from whyprune.devices.table.table import Table
from whyprune.devices.table.timing import briefly, fastest_ms

__all__ = [
    "LatencyPrice",
    "Layer",
    "Row",
    "Table",
    "briefly",
    "fastest_ms",
    "latency_price",
    "layers_of",
]
