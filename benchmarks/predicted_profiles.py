"""Writes the predicted profiles of boards, and the prior of rooflines, from the table that ncnn publishes.

    python -m benchmarks.predicted_profiles

Each roofline is fitted to the best times of one board at some number of threads. What the board's own runs leave open
comes from a prior that all *other* chips teach. The error in a profile is that of predictions of networks held out one
at a time; the prior that is shipped for calibrations is learned from all boards.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.board_latencies import Array, BoardLatencies, Others, learned, read
from benchmarks.common import data_folder
from whyprune.atomic import atomic_file
from whyprune.devices.fit import CHANNEL_RAMP, PRIOR_FILE, Problem, posterior_mode, rates_of
from whyprune.devices.profile import BUILT_IN, Citation, DeviceProperty, ErrorFound, Profile, Roofline, write_profile

HPL = Citation(
    title="geerlingguy/top500-benchmark README at commit be7b6781",
    url="https://github.com/geerlingguy/top500-benchmark",
    what="HPL",
)
MEMORY = Citation(
    title="geerlingguy/sbc-reviews, memory benchmarks in the boards' issues",
    url="https://github.com/geerlingguy/sbc-reviews/issues",
    what="memory",
)
DERIVED = Citation(title="cores x clock x operations per cycle, worked out here", what="FP32 peak", second_hand=True)
RESELLER = Citation(
    title="a shop's listing of specifications, not the vendor's own page", what="memory", second_hand=True
)
CITED = Citation(title="a page that cites NVIDIA's data sheet", what="memory, int8 peak", second_hand=True)


@dataclass(frozen=True)
class Board:
    """A profile to be written: the runs it is fitted to, by the start of their device's name."""

    name: str
    title: str
    device: str
    threads: tuple[int, ...]
    gpu: bool = False
    figures: tuple[tuple[str, float, str], ...] = ()
    sources: tuple[Citation, ...] = field(default=())
    powersave: int | None = None


BOARDS = (
    Board(
        "pi-zero-2w",
        "Raspberry Pi Zero 2 W: 4 x Cortex-A53, 1.0 GHz",
        "Raspberry Pi Zero 2 W",
        (1, 4),
        figures=(("HPL", 0.37, "GFLOP/s FP64"),),
        sources=(HPL,),
    ),
    Board("pi3", "Raspberry Pi 3 Model B+: 4 x Cortex-A53, 1.4 GHz", "Raspberry Pi 3 Model B+", (1, 4)),
    Board(
        "pi4",
        "Raspberry Pi 4 Model B: 4 x Cortex-A72, 1.8 GHz",
        "Raspberry Pi 4 Model B",
        (1, 4),
        figures=(("HPL", 11.9, "GFLOP/s FP64"), ("FP32 peak", 57.6, "GFLOP/s"), ("memory", 5.6, "GB/s")),
        sources=(HPL, DERIVED, MEMORY),
    ),
    Board(
        "pi5",
        "Raspberry Pi 5: 4 x Cortex-A76, 2.4 GHz",
        "Raspberry Pi 5 Broadcom BCM2712, Cortex-A76",
        (1, 4),
        figures=(("HPL", 35.2, "GFLOP/s FP64"), ("FP32 peak", 153.6, "GFLOP/s"), ("memory", 11.7, "GB/s")),
        sources=(HPL, DERIVED, MEMORY),
    ),
    Board(
        "jetson-nano",
        "NVIDIA Jetson Nano, its CPU: 4 x Cortex-A57",
        "NVIDIA Jetson Nano",
        (1, 4),
        figures=(("memory", 25.6, "GB/s"),),
        sources=(RESELLER,),
    ),
    Board(
        "jetson-nano-gpu",
        "NVIDIA Jetson Nano, its GPU through Vulkan",
        "NVIDIA Jetson Nano",
        (4,),
        gpu=True,
        figures=(("memory", 25.6, "GB/s"),),
        sources=(RESELLER,),
    ),
    Board(
        "jetson-orin-nano",
        "NVIDIA Jetson Orin Nano, its CPU: 6 x Cortex-A78AE",
        "NVIDIA Jetson Orin Nano",
        (1, 6),
        figures=(("memory", 68.0, "GB/s"),),
        sources=(CITED,),
    ),
    Board(
        "jetson-orin-nano-gpu",
        "NVIDIA Jetson Orin Nano, its GPU through Vulkan",
        "NVIDIA Jetson Orin Nano",
        (1,),
        gpu=True,
        figures=(("memory", 68.0, "GB/s"), ("int8 peak", 40.0, "TOP/s, sparse")),
        sources=(CITED,),
    ),
    Board("phone-snapdragon-855", "A phone of 2019: Snapdragon 855+", "Qualcomm SM8150-AC Snapdragon 855+", (1, 4)),
    Board("phone-snapdragon-8-gen-2", "A phone of 2023: Snapdragon 8 Gen 2", "Qualcomm SM8550-AB", (1, 4)),
    Board("phone-kirin-970", "A phone of 2017: Kirin 970", "Kirin 970", (1, 4)),
    Board("laptop-celeron-n5105", "A small laptop or mini PC of 2021: Celeron N5105", "Intel Celeron N5105", (1, 4)),
    Board("laptop-m1", "A laptop of 2020: MacBook Pro, Apple M1", "MacBook Pro (13-inch, M1, 2020)", (1,)),
    Board("laptop-i7-2019", "A laptop of 2019: MacBook Pro, Core i7 2.6 GHz", "MacBook Pro (15-inch, 2019)", (1,)),
    Board("pc-ryzen-5700g", "A PC of 2021: Ryzen 7 5700G", "AMD Ryzen 5700g", (1, 16)),
    Board("pc-i7-13700k", "A PC of 2022: Core i7-13700K", "Intel® Core™ i7-13700K", (16,)),
)


def main() -> None:
    """Writes `profiles/*.json` and the prior."""
    tables = read(data_folder() / "devices" / "ncnn-latencies.json")
    for board in BOARDS:
        profile = profile_of(board, tables["gpu" if board.gpu else "cpu"])
        write_profile(profile, BUILT_IN / f"{board.name}.json")
        for roofline in profile.rooflines:
            found = roofline.errors[0]
            print(
                f"{board.name} {roofline.threads}t: {found.median_percent:.1f}% / {found.p90_percent:.1f}%", flush=True
            )
    cpu = tables["cpu"]
    prior, _ = learned(cpu, Problem.of(cpu.layers, CHANNEL_RAMP))
    about = f"{len(cpu.runs)} runs of {len(cpu.names)} networks on {len(set(cpu.chips))} chips with ncnn on CPUs"
    rounded = prior.model_copy(
        update={
            "learned_from": about,
            "mean": tuple(round(v, 4) for v in prior.mean),
            "covariance": tuple(tuple(round(v, 5) for v in row) for row in prior.covariance),
        }
    )
    with atomic_file(PRIOR_FILE) as path:
        path.write_text(json.dumps(rounded.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")


def profile_of(board: Board, table: BoardLatencies) -> Profile:
    """The profile of a board: one roofline for every number of threads."""
    chosen = [_row(board, table, threads) for threads in board.threads]
    chips = {str(table.chips[row]) for row in chosen}
    others = Others(table.of_runs(~np.isin(table.chips, sorted(chips))))
    lines = ", ".join(str(table.runs[row]["line"]) for row in chosen)
    source = Citation(
        title=f"Tencent/ncnn benchmark/README.md at commit a4d2ea1d, entries at lines {lines} (BSD-3-Clause)",
        url="https://github.com/Tencent/ncnn/blob/a4d2ea1d4422c9e849f166fd7a4aefb52f942f6a/benchmark/README.md",
        what="all rates",
    )
    return Profile(
        name=board.name,
        kind="predicted",
        title=board.title,
        runtime="ncnn",
        threads=board.threads[-1],
        rooflines=tuple(
            _roofline(others, table.log_ms[row], threads) for row, threads in zip(chosen, board.threads, strict=True)
        ),
        figures=tuple(DeviceProperty(name=n, value=v, unit=u) for n, v, u in board.figures),
        sources=(source, *board.sources),
        note="Published best times of ncnn's own settings, which use half precision where the CPU has it. "
        "Another runtime on the same board, or a batch, is further off.",
    )


def _roofline(others: Others, log_ms: Array, threads: int) -> Roofline:
    seen = np.flatnonzero(np.isfinite(log_ms))
    off = []
    for left_out in seen:
        rest = np.setdiff1d(seen, [left_out])
        found = posterior_mode(others.problem.only(rest), log_ms[rest], others.prior)
        off.append(100 * abs(np.expm1(others.problem.predict(found)[0][left_out] - log_ms[left_out])))
    found = posterior_mode(others.problem.only(seen), log_ms[seen], others.prior)
    return Roofline(
        threads=threads,
        rates=_rounded(rates_of(found, CHANNEL_RAMP)),
        fitted_to=f"{len(seen)} networks",
        errors=(
            ErrorFound(
                compared_with="published times of networks held out one at a time",
                median_percent=round(float(np.median(off)), 1),
                p90_percent=round(float(np.quantile(off, 0.9)), 1),
                count=len(off),
            ),
        ),
    )


def _rounded(value: Any) -> Any:
    """Four digits are more than a fit knows."""
    data = json.loads(value.model_dump_json(), parse_float=lambda text: float(f"{float(text):.4g}"))
    return type(value).model_validate(data)


def _row(board: Board, table: BoardLatencies, threads: int) -> int:
    """The board's run with so many threads; of several the fastest."""
    rows = [
        i
        for i, run in enumerate(table.runs)
        if run["device"].startswith(board.device) and run["cfg"]["num_threads"] == threads
    ]
    if not rows:
        raise SystemExit(f"no run of {board.device!r} with {threads} threads")
    return min(rows, key=lambda i: float(np.nanmedian(table.log_ms[i])))


if __name__ == "__main__":
    main()
