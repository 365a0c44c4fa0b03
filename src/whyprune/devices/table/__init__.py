"""Latency tables: what every layer costs at every width on a device, and the price of whole networks from it."""

from whyprune.devices.table.price import LatencyPrice, latency_price
from whyprune.devices.table.rows import Row, TabulatedLayer, tabulated_layers
from whyprune.devices.table.table import LatencyTable
from whyprune.devices.table.timing import briefly, fastest_ms

__all__ = [
    "LatencyPrice",
    "LatencyTable",
    "Row",
    "TabulatedLayer",
    "briefly",
    "fastest_ms",
    "latency_price",
    "tabulated_layers",
]
