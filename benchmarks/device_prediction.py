"""How far off are predicted latencies? On held-out layers here, on whole networks here, and on real boards.

    python -m benchmarks.device_prediction --runtimes ort,openvino

Here: a roofline is fitted to small layers measured on one runtime. It predicts layers that it was not fitted to, and
whole networks, dense and pruned, on that runtime and on the others. Boards: `board_latencies`. The baseline is always
MACs at one rate. Times are the best of interleaved rounds: what else a shared machine does is no property of a runtime.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

import whyprune as wp
from benchmarks.board_latencies import (
    BoardLatencies,
    Prediction,
    errors,
    known_networks,
    new_networks,
    read,
)
from benchmarks.common import RESULTS, Stopwatch, arguments, data_folder, write_record
from benchmarks.cpu_time import CpuTime
from whyprune.data.batches import Batch
from whyprune.devices import Device, device
from whyprune.devices.calibration import FittedRates, TimedNetwork, fitted, measured
from whyprune.devices.local import LocalDevice
from whyprune.devices.profile import Rates
from whyprune.devices.roofline import module_costs, predicted_ms
from whyprune.models import load_model
from whyprune.structure.capture import as_example
from whyprune.structure.operation_costs import OperationCost

NETWORKS = ("resnet20", "resnet56", "mobilenet_v2", "vgg16_bn")
KEPT = (1.0, 0.75, 0.5)
ANCHORS = (1, 2, 3, 4, 6)


def main() -> None:
    """Runs the parts that were asked for and writes the record."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--runtimes", default="ort", help="runtimes that are installed here, with commas between them")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: the CPU time of one-thread calls, for a shared machine",
    )
    parser.add_argument("--layers", type=int, default=84, help="how many layers to measure on every runtime")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="networks to predict, with commas between them")
    parser.add_argument("--parts", default="here,boards", help="here, boards, or both")
    options = parser.parse_args()
    torch.set_num_threads(1)
    watch = Stopwatch()
    parts: dict[str, Any] = {}
    if "here" in options.parts:
        parts["here"] = here(options)
    if "boards" in options.parts:
        parts["boards"] = boards(options)
    rows = [row for part in parts.values() for row in part["rows"]]
    details = {name: {k: v for k, v in part.items() if k != "rows"} for name, part in parts.items()}
    if len(parts) == 1 and options.output is None:
        options.output = RESULTS / f"device_prediction-{next(iter(parts))}{'-quick' if options.quick else ''}.json"
    write_record("device_prediction", options, headline(rows), rows, seconds=round(watch.seconds), **details)


def headline(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures that answer the question in the title."""
    wanted = {
        "held_out_layers": ("layers held out", "roofline"),
        "same_runtime": ("networks on the same runtime", "roofline"),
        "same_runtime_speed_up": ("speed-ups on the same runtime", "roofline"),
        "same_runtime_speed_up_macs": ("speed-ups on the same runtime", "macs"),
        "other_runtime": ("networks on another runtime", "roofline"),
        "other_runtime_speed_up": ("speed-ups on another runtime", "roofline"),
        "other_runtime_speed_up_macs": ("speed-ups on another runtime", "macs"),
        "board_new_network": ("cpu: new network", "roofline"),
        "board_new_network_macs": ("cpu: new network", "macs"),
        "board_known_network": ("cpu: known network", "roofline and residuals"),
        "board_2_anchors": ("cpu: 2 anchors", "roofline and residuals"),
    }
    found = {}
    for name, key in wanted.items():
        row = next((r for r in rows if (r["protocol"], r["method"]) == key), None)
        if row is not None:
            found |= {f"{name}_median_percent": row["median_percent"], f"{name}_p90_percent": row["p90_percent"]}
    return found


# --- boards -----------------------------------------------------------------------------------------------------------


def boards(options: argparse.Namespace) -> dict[str, Any]:
    """All protocols on the published table: CPUs, and apart from them GPUs and int8 networks on CPUs."""
    tables = read(data_folder() / "devices" / "ncnn-latencies.json")
    parts, network_parts = (3, 3) if options.quick else (5, 4)
    rows = []
    for name, table in tables.items():
        used = _some(table, 40) if options.quick else table
        found = list(known_networks(used, parts, network_parts, ANCHORS if name == "cpu" else (), seed=0))
        found += new_networks(used, parts, network_parts, seed=0)
        rows += [{**row, "protocol": f"{name}: {row['protocol']}"} for row in errors(found)]
        print(f"{name} done", flush=True)
    about = {n: {"runs": len(t.runs), "chips": len(set(t.chips)), "networks": list(t.names)} for n, t in tables.items()}
    source = {"title": "Tencent/ncnn benchmark/README.md", "commit": "a4d2ea1d4422c9e849f166fd7a4aefb52f942f6a"}
    return {"rows": rows, "tables": about, "source": source, "board_parts": parts, "network_parts": network_parts}


def _some(table: BoardLatencies, count: int) -> BoardLatencies:
    """Runs from all over the table."""
    return table.of_runs(np.linspace(0, len(table.runs) - 1, count).astype(int))


# --- here -------------------------------------------------------------------------------------------------------------


def here(options: argparse.Namespace) -> dict[str, Any]:
    """Layers and networks on every runtime, each predicted from the layers of each."""
    runtimes = options.runtimes.split(",")
    layers = {
        r: list(measured(_device(r, options.clock), 20 if options.quick else options.layers, 0, False))
        for r in runtimes
    }
    fits = {r: fitted([m.workload for m in rows]) for r, rows in layers.items()}
    names = options.networks.split(",")
    networks = list(_networks(names[:1] if options.quick else names))
    best = {r: _best_ms(_device(r, options.clock), networks) for r in runtimes}
    works = {f"{name} {kept:g}": module_costs(model, as_example(inputs)) for name, kept, model, inputs in networks}
    found = [*_layer_predictions(layers, fits), *_network_predictions(layers, fits, works, best)]
    rows = [{k: v for k, v in row.items() if k != "boards"} for row in errors(found)]
    print(*(f"{r['protocol']}, {r['method']}: {r['median_percent']}% / {r['p90_percent']}%" for r in rows), sep="\n")
    return {
        "rows": rows,
        "clock": options.clock,
        "layers_ms": {r: {m.name: m.workload.ms for m in ms} for r, ms in layers.items()},
        "networks_ms": best,
        "rates": {r: c.rates.model_dump(mode="json") for r, c in fits.items()},
        "predictions": [vars(p) for p in found],
    }


def _device(runtime: str, clock: str) -> Device:
    if clock == "cpu":
        return CpuTime(runtime)
    found = device(f"local-{runtime}-1t")
    return replace(found, each_alone=False) if isinstance(found, LocalDevice) else found


def _networks(names: Sequence[str]) -> Iterator[tuple[str, float, nn.Module, Batch]]:
    """Networks at their own widths and with a share of every group's units kept."""
    for name in names:
        torch.manual_seed(0)
        model = load_model(name, num_classes=10, image_shape=(3, 32, 32)).eval()
        inputs = torch.randn(2, 3, 32, 32)
        network = wp.trace(model, inputs)
        for kept in KEPT:
            units = [u for g in network.groups for u in g.units[max(round(kept * len(g.units)), 1) :]]
            yield name, kept, wp.remove(network, units) if units else model, Batch((inputs,), {})


def _best_ms(where: Device, networks: Sequence[tuple[str, float, nn.Module, Batch]]) -> dict[str, float]:
    """The variants of one network run interleaved."""
    found = {}
    for name in dict.fromkeys(n for n, *_ in networks):
        models = {f"kept-{kept:g}": model for n, kept, model, _ in networks if n == name}
        measurement = where(models, next(inputs for n, _, _, inputs in networks if n == name))
        found |= {f"{name} {k.removeprefix('kept-')}": float(np.min(s)) for k, s in measurement.samples_ms.items()}
    return found


def _layer_predictions(layers: dict[str, list[TimedNetwork]], fits: dict[str, FittedRates]) -> Iterator[Prediction]:
    """Each layer from a fit to other layers; by MACs at the median rate of other layers, where it has any."""
    for runtime, rows in layers.items():
        for i, (row, (_, ms, found)) in enumerate(zip(rows, fits[runtime].held_out, strict=True)):
            yield Prediction("layers held out", "roofline", runtime, row.name, ms, found)
            yield Prediction(f"layers held out, {runtime}", "roofline", runtime, row.name, ms, found)
            macs = sum(x.macs for x in row.workload.operations)
            if macs:
                rate = _rate(rows[:i] + rows[i + 1 :])
                yield Prediction("layers held out", "macs", runtime, row.name, ms, macs * rate)


def _network_predictions(
    layers: dict[str, list[TimedNetwork]],
    fits: dict[str, FittedRates],
    works: dict[str, list[OperationCost]],
    best: dict[str, dict[str, float]],
) -> Iterator[Prediction]:
    """Latencies, and speed-ups over the dense network, of networks that nothing was fitted to."""
    for source, calibration in fits.items():
        for target, measured_ms in best.items():
            which = "the same runtime" if source == target else "another runtime"
            for method, predict in (("roofline", _by(calibration.rates)), ("macs", _by_rate(_rate(layers[source])))):
                for name, ms in measured_ms.items():
                    dense = f"{name.split()[0]} 1"
                    found, of_dense = predict(works[name]), predict(works[dense])
                    yield Prediction(f"networks on {which}", method, target, name, ms, found)
                    if name != dense:
                        gain, said = measured_ms[dense] / ms, of_dense / found
                        yield Prediction(f"speed-ups on {which}", method, target, name, gain, said)


def _rate(rows: Sequence[TimedNetwork]) -> float:
    """Median ms per MAC."""
    macs = [sum(x.macs for x in row.workload.operations) for row in rows]
    return float(np.median([row.workload.ms / n for row, n in zip(rows, macs, strict=True) if n]))


def _by(rates: Rates) -> Any:
    return lambda work: predicted_ms(work, rates)


def _by_rate(rate: float) -> Any:
    return lambda work: sum(x.macs for x in work) * rate


if __name__ == "__main__":
    main()
