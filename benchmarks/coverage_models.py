"""The networks of the coverage table, each with random weights: transformers, built-ins, timm, and the small ones.

Nothing is downloaded. Scales, shifts and running statistics are random too: with ones and zeros there, many wrong
removals would go unseen.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whyprune.models.registry import BUILT_INS, load_model

SMALL = Path(__file__).parent.parent / "tests" / "structure"
TIMM = Path(__file__).parent / "coverage_timm.txt"
"""Lines of a name in timm and the height and width of its images: one small network of each family."""
SUITES = ("transformers", "timm", "small")
QUICK = ("resnet20", "MobileNetV2", "ViT-S/16", "SegFormer-b0")


@dataclass(frozen=True)
class Subject:
    """A network of the table.

    Attributes:
        name: as the table shows it.
        suite: one of `SUITES`.
        model: seed -> a new instance with random weights, in evaluation mode.
        draw: (batch size, seed, scale of height and width) -> random inputs.
        heads: layers that make the outputs; empty for the layer that runs last.
        doubles: whether it takes images of twice the height and width as well.
        exports: whether the ONNX file is a part of the table.
    """

    name: str
    suite: str
    model: Callable[[int], nn.Module]
    draw: Callable[..., Any]
    heads: tuple[str, ...] = ()
    doubles: bool = False
    exports: bool = True


def subjects(suite: str) -> dict[str, Subject]:
    """Name -> network of a suite.

    Raises:
        ImportError: the library that carries the suite does not import here, or the small networks are not there.
    """
    made = {"transformers": _transformers, "timm": _timm, "small": _small}[suite]()
    return {subject.name: subject for subject in made}


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """The model in evaluation mode with weights that keep the scale of what passes, and no constant left."""
    generator = torch.Generator().manual_seed(seed)
    frozen = [(n, b) for n, b in model.named_buffers() if n.endswith(("running_mean", "running_var", "weight", "bias"))]
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *frozen]:
            if tensor.dim() > 1:
                tensor.normal_(0, 1.5 * tensor[0].numel() ** -0.5, generator=generator)
            elif name.endswith(("bias", "running_mean")):
                tensor.normal_(0, 0.3, generator=generator)
            else:
                tensor.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def images(shape: tuple[int, int, int], count: int, seed: int, scale: int = 1) -> Tensor:
    """Random images, (count, C, scale * H, scale * W)."""
    channels, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, scale * height, scale * width, generator=generator)


def _made(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return randomised(build(), seed)


def _transformers() -> list[Subject]:
    library = importlib.import_module("transformers")
    vit: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
    tiny = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}
    regnet = {"embedding_size": 32, "hidden_sizes": [128, 192, 512, 1088], "depths": [2, 6, 12, 2], "groups_width": 64}
    b0: dict[str, Any] = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}
    xs: dict[str, Any] = {"hidden_sizes": [96, 120, 144], "neck_hidden_sizes": [16, 32, 48, 64, 80, 96, 384]}
    backbone = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}

    def build(kind: str, task: str, options: dict[str, Any]) -> nn.Module:
        config = getattr(library, f"{kind}Config")(**options)
        model: nn.Module = getattr(library, f"{kind}For{task}")(config)
        return model

    def subject(name: str, kind: str, task: str, side: int, options: dict[str, Any], **about: Any) -> Subject:
        made = partial(_made, partial(build, kind, task, options))
        return Subject(name, "transformers", made, partial(images, (3, side, side)), **about)

    def classifier(name: str, kind: str, doubles: bool = False, **options: Any) -> Subject:
        return subject(name, kind, "ImageClassification", 224, {"num_labels": 1000, **options}, doubles=doubles)

    def detector(name: str, kind: str, heads: tuple[str, ...], **options: Any) -> Subject:
        return subject(name, kind, "ObjectDetection", 160, {"num_labels": 91, **options}, heads=heads)

    stage4 = library.ResNetConfig(out_features=["stage4"])
    mlp, boxes = "class_labels_classifier.layers.2", "bbox_predictor.layers.2"
    return [
        *_built_ins(),
        classifier("ResNet-50", "ResNet", doubles=True),
        classifier("MobileNetV2", "MobileNetV2", doubles=True),
        classifier("ConvNeXt-T", "ConvNext", doubles=True),
        classifier("RegNetY-4GF", "RegNet", doubles=True, layer_type="y", **regnet),
        classifier("EfficientNet-B0", "EfficientNet", doubles=True, image_size=224, **b0),
        classifier("ViT-S/16", "ViT", intermediate_size=1536, **vit),
        classifier("DeiT-S/16", "DeiT", intermediate_size=1536, **vit),
        classifier("Swin-T", "Swin", doubles=True),
        classifier("BEiT-S/16", "Beit", intermediate_size=1536, use_relative_position_bias=True, **vit),
        classifier("DINOv2-S/14", "Dinov2", image_size=224, **vit),
        subject("SegFormer-b0", "Segformer", "SemanticSegmentation", 224, {"num_labels": 150}, doubles=True),
        classifier("MobileViT-xs", "MobileViT", **xs),
        detector("YOLOS-Ti", "Yolos", (mlp, boxes), image_size=[160, 160], **tiny),
        detector("DETR-R50", "Detr", ("class_labels_classifier", boxes), backbone_config=stage4, **backbone),
    ]


def _built_ins() -> list[Subject]:
    return [
        Subject(
            name,
            "transformers",
            partial(_made, partial(load_model, name, num_classes=None, image_shape=None)),
            partial(images, built_in.image_shape),
        )
        for name, built_in in BUILT_INS.items()
    ]


def _small() -> list[Subject]:
    if not (SMALL / "acceptance.py").is_file():
        raise ImportError(f"the small networks are not there: {SMALL}/acceptance.py is missing")
    if str(SMALL) not in sys.path:
        sys.path.insert(0, str(SMALL))
    cases = importlib.import_module("acceptance").ACCEPTANCE

    def draw(case: Any, count: int, seed: int, scale: int = 1) -> Any:  # noqa: ARG001 - small inputs have one size
        return case.draw(count, seed)

    return [Subject(n, "small", c.model, partial(draw, c), exports=False) for n, c in cases.items()]


def _timm() -> list[Subject]:
    try:
        timm = importlib.import_module("timm")
    except RuntimeError as error:  # a torchvision that was built for another torch
        raise ImportError(str(error)) from error

    def build(name: str) -> nn.Module:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=10)
        return model

    def subject(name: str, side: str) -> Subject:
        return Subject(name, "timm", partial(_made, partial(build, name)), partial(images, (3, int(side), int(side))))

    return [subject(*line.split()) for line in TIMM.read_text(encoding="utf-8").splitlines()]
