"""VGG-16 with batch normalisation, for 32x32 images: one linear classifier.

Simonyan and Zisserman, Very Deep Convolutional Networks, 2014, arXiv:1409.1556, configuration D.
"""

from torch import Tensor, nn

from whyprune.models.initialization import initialize

# Output channels of each stage; a stage ends with 2x2 max pooling.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class CifarVGG(nn.Module):
    """13 convolutions with batch norm, then one linear layer; images of 32x32 or more."""

    def __init__(self, num_classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for stage in STAGES:
            for outputs in stage:
                layers += [
                    nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(inplace=True),
                ]
                channels = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to logits (B, num_classes)."""
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits


def vgg16_bn(num_classes: int = 10, channels: int = 3) -> CifarVGG:
    """16 layers of VGG less two linear ones, 14.7 million parameters."""
    return CifarVGG(num_classes, channels)
