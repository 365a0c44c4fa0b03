"""Do certificates hold? A hundred plans, each certified on some images and checked on others.

Plans differ in criterion, budget, seed, and in whether batch norm is re-estimated. For each, two certificates, of the
accuracy drop and of changed predictions, are stated from 500 images (100 of digits): a bound on the fresh sample that
the rest of the images are, and one on images at large, here all of them. The first is compared with what the rest is.
Besides, audits are drawn 200 times for each plan, and it is counted how often either bound of a certificate is broken.
"""

import argparse
from typing import Any

import numpy as np
import torch
from torch import nn

import whyprune as wp
from benchmarks.common import arguments, calibration, cifar10, fingerprint, test_images, trained, write_record
from whyprune.data import DataSource, Loader, Normalization, load_source
from whyprune.effects.certificate import certified_changes, certified_drop
from whyprune.models import load_model
from whyprune.models.digits import train_digits

CRITERIA = ("random", "magnitude-l2", "taylor")
REDRAWS = 200
COUNTS = ("lost", "won", "changed")
ROUNDING = 1e-9


def subject(name: str, images: int | None) -> tuple[nn.Module, Loader, Loader, DataSource]:
    """(trained network, calibration images, test images, data)."""
    if name == "digits_cnn":
        source = load_source("digits")
        model = load_model(name, num_classes=10, image_shape=(1, 8, 8))
        train_digits(model, source, 0)
        normalization = Normalization.of(source.train)
    else:
        source = cifar10()
        model, normalization = trained(name)
    return model, calibration(source, normalization, 256, 0), test_images(source, normalization, images), source


def answers(model: nn.Module, test: Loader) -> tuple[np.ndarray, np.ndarray]:
    """(predicted classes, labels), (images,) each."""
    with torch.inference_mode():
        pairs = [(model(x).argmax(dim=1), y) for x, y in test]
    return tuple(torch.cat(part).numpy() for part in zip(*pairs, strict=True))  # type: ignore[return-value]


def plans(network: wp.Network, images: Loader, count: int) -> Any:
    """Different pruned networks."""
    effects = {name: wp.estimate(network, images, method=name, seed=0) for name in CRITERIA}
    for number in range(count):
        rng = np.random.default_rng(number)
        name = CRITERIA[number % len(CRITERIA)]
        judged = wp.estimate(network, images, method=name, seed=number) if name == "random" else effects[name]
        ratio = float(rng.uniform(0.45, 0.97))
        plan = wp.allocate(network, judged, wp.Budget(macs=ratio), allocation=("uniform", "global")[number % 2])
        pruned = wp.remove(network, plan.units)
        yield name, ratio, wp.reestimate_batch_norm(pruned, images) if number % 4 else pruned


def counted(flags: np.ndarray, prefix: str) -> dict[str, int]:
    """How many images were lost, won and changed, from `shown`."""
    return {f"{prefix}{name}": int(column.sum()) for name, column in zip(COUNTS, flags.T, strict=True)}


def shown(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each image was lost, was won, changed its prediction; (images, 3)."""
    return np.stack(
        [(before == labels) & (after != labels), (before != labels) & (after == labels), before != after], 1
    )


def broken(flags: np.ndarray, audit: np.ndarray, fresh: np.ndarray) -> dict[str, bool]:
    """Which bounds stated from the images `audit` are below what `fresh` shows, and below what all images show."""
    lost, won, changed = flags[audit].T
    certificates = {
        "drop": certified_drop(~won, ~lost, fresh_images=len(fresh)),
        "changes": certified_changes(changed, fresh_images=len(fresh)),
    }
    found: dict[str, bool] = {}
    for kind, certificate in certificates.items():
        for where, rows, bound in (
            ("", flags[fresh], certificate.fresh_bound_percent),
            ("_at_large", flags, certificate.bound_percent),
        ):
            shares = 100 * rows.mean(axis=0)
            value = shares[0] - shares[1] if kind == "drop" else shares[2]
            found[f"{kind}_broken{where}"] = bool(bound is not None and value > bound + ROUNDING)
        found[f"{kind}_certificate_broken"] = found[f"{kind}_broken"] or found[f"{kind}_broken_at_large"]
    return found


def run(options: argparse.Namespace) -> None:
    """Certifies and checks; writes the record."""
    rows: list[dict[str, Any]] = []
    about: dict[str, Any] = {}
    for name, images, audited in (("digits_cnn", None, 100), ("resnet20", options.images, 500)):
        if options.quick and name != "digits_cnn":
            continue
        model, calibrated, test, source = subject(name, images)
        about[f"{name}_data_fingerprint"] = fingerprint(source)
        before, labels = answers(model, test)
        first, _ = next(iter(calibrated))
        for number, (method, ratio, pruned) in enumerate(plans(wp.trace(model, first[:2]), calibrated, options.plans)):
            after, _ = answers(pruned, test)
            flags = shown(before, after, labels)
            draws = [np.random.default_rng((number, k)).permutation(len(labels)) for k in range(REDRAWS)]
            found = [broken(flags, drawn[:audited], drawn[audited:]) for drawn in draws]
            row = {
                "network": name,
                "plan": number,
                "method": method,
                "macs_ratio_asked": ratio,
                **found[0],
                **{f"{key}_in_redraws": sum(f[key] for f in found) for key in found[0]},
                "images": len(labels),
                "audited_images": audited,
                **counted(flags, ""),
                **counted(flags[draws[0][:audited]], "audited_"),
                "accuracy_percent": 100 * float((after == labels).mean()),
            }
            rows.append(row)
            print(row, flush=True)
    headline: dict[str, Any] = {"plans_per_network": options.plans, "redraws_per_plan": REDRAWS}
    for name in dict.fromkeys(row["network"] for row in rows):
        mine = [row for row in rows if row["network"] == name]
        for kind in ("drop", "changes"):
            headline[f"{name}_{kind}_bounds_broken"] = sum(row[f"{kind}_broken"] for row in mine)
            for what in ("broken", "broken_at_large", "certificate_broken"):
                share = sum(row[f"{kind}_{what}_in_redraws"] for row in mine) / (len(mine) * REDRAWS)
                headline[f"{name}_{kind}_{what}_percent_of_redraws"] = 100 * share
    write_record("certificate", options, headline, rows, **about)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--plans", type=int, default=100)
    parser.add_argument("--images", type=int, default=4000, help="test images of CIFAR-10")
    run(parser.parse_args())
