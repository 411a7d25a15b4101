"""Small models by name, for the demo and the recipes. A user's `nn.Module` needs no entry.

`build("mlp", 10, {"hidden": 512})` makes one; weights come from torch's global generator.
"""

import inspect
import math
from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.nn import functional

from unweave.choices import explain_unknown, suggest_word


def build(
    name: str,
    n_classes: int,
    settings: Mapping[str, int],
    *,
    among: Mapping[str, Callable[..., nn.Module]] | None = None,
) -> nn.Module:
    """Makes a fresh model.

    Args:
        name: A key of `among`.
        n_classes: The number of classes.
        settings: Keyword arguments of the entry; the others have its defaults.
        among: `MODELS`, the classifiers, if None; or `DENOISERS`.
    """
    models = MODELS if among is None else among
    if name not in models:
        raise ValueError(explain_unknown("model", name, models))
    parameters = [key for key in inspect.signature(models[name]).parameters if key != "n_classes"]
    for key, value in settings.items():
        if key not in parameters:
            raise ValueError(
                f"unknown setting {key!r} of model {name!r}{suggest_word(key, parameters)}; "
                f"known: {', '.join(parameters)}"
            )
        if value < 1:
            raise ValueError(f"setting {key!r} of model {name!r} must be at least 1, found {value}")
    return models[name](n_classes, **settings)


def mlp(n_classes: int, inputs: int = 64, hidden: int = 512, bottleneck: int | None = None) -> nn.Sequential:
    """One hidden layer with ReLU, for flat inputs [batch, inputs]; 38,410 weights on digits.

    Args:
        n_classes: Length of the output.
        inputs: Length of an input.
        hidden: Width of the hidden layer.
        bottleneck: Width of a linear layer between it and the head, the features of a probe. None: no such
            layer.
    """
    layers = [nn.Linear(inputs, hidden), nn.ReLU()]
    layers += [] if bottleneck is None else [nn.Linear(hidden, bottleneck)]
    return nn.Sequential(*layers, nn.Linear(bottleneck or hidden, n_classes))


def conv(
    n_classes: int,
    channels: int = 1,
    width: int = 16,
    hidden: int = 46,
    size: int = 28,
    bottleneck: int | None = None,
) -> nn.Sequential:
    """Two convolutions with stride 2 and two linear layers, for images [batch, channels, size, size].

    77,444 weights on Fashion-MNIST: cheap on one core, and large enough to memorise 12,000 images. There is
    no normalisation layer; weights start Kaiming-normal, biases at zero.

    Args:
        n_classes: Length of the output.
        channels: Channels of an image.
        width: Channels after the first convolution; the second has twice as many.
        hidden: Width of the hidden layer.
        size: Height and width of an image, in pixels.
        bottleneck: Width of a linear layer before the head, as in `mlp`; None: no such layer.
    """
    model = nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * (-(-size // 4)) ** 2, hidden),
        nn.ReLU(),
        *([] if bottleneck is None else [nn.Linear(hidden, bottleneck)]),
        nn.Linear(bottleneck or hidden, n_classes),
    )
    for weight in model.parameters():
        if weight.ndim > 1:
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
        else:
            nn.init.zeros_(weight)
    return model


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation and a shortcut (torchvision's BasicBlock).

    Args:
        inputs: The number of input channels.
        outputs: The number of output channels.
        stride: The stride of the first convolution; a shortcut that changes shape is a 1 x 1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, inputs, height, width] to [batch, outputs, height / stride, width / stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet18(nn.Module):
    """ResNet-18 for small images (He et al., 2015), https://arxiv.org/abs/1512.03385.

    The layers and names are torchvision's, but the stem is one 3 x 3 convolution without pooling.
    Convolutions start Kaiming-normal by fan-out. 11,173,962 weights for ten classes.

    Args:
        n_classes: Length of the output.
        channels: The number of channels of the images.
        width: Channels of the first stage; the published model has 64.
        stem: Stride of the first convolution; with 2 an epoch takes a quarter of the time.
    """

    def __init__(self, n_classes: int, channels: int = 3, width: int = 64, stem: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stem, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(Block(width, width, 1), Block(width, width, 1))
        self.layer2 = nn.Sequential(Block(width, 2 * width, 2), Block(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(Block(2 * width, 4 * width, 2), Block(4 * width, 4 * width, 1))
        self.layer4 = nn.Sequential(Block(4 * width, 8 * width, 2), Block(8 * width, 8 * width, 1))
        self.fc = nn.Linear(8 * width, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images [batch, channels, height, width] to logits [batch, n_classes]."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean(dim=(2, 3)))


def unet(
    n_classes: int,
    channels: int = 1,
    size: int = 8,
    width: int = 24,
    levels: int = 2,
    widest: int | None = None,
    layers: int = 1,
    attended: int | None = None,
    head: int = 8,
) -> nn.Module:
    """diffusers' UNet2DModel as a denoiser `f(x_t, t, condition)` of square images, for guidance.

    396,697 weights on digits; the index after the last class stands for no condition. Needs
    `unweave[diffusion]`.

    Args:
        n_classes: The number of classes.
        channels: The number of channels of the images.
        size: The height and width of the images.
        width: Channels of the first level; each further one has twice as many at half the resolution.
        levels: The number of resolutions.
        widest: The most channels that a level has; no limit if None.
        layers: Residual blocks of a level, on the way down.
        attended: The level with attention, counted from one; the last if None. The middle block also has
            attention.
        head: Channels of an attention head.
    """
    from unweave.tasks.diffusion.class_denoisers import UNet2DModel

    attended = levels if attended is None else attended
    if attended > levels:
        raise ValueError(f"attended must be one of the levels 1..{levels}, found {attended}")
    attention = ["Attn" if level == attended else "" for level in range(1, levels + 1)]
    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(min(width * 2**level, widest or math.inf) for level in range(levels)),
        layers_per_block=layers,
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in attention),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(attention)),
        norm_num_groups=8,
        attention_head_dim=head,
        num_class_embeds=n_classes + 1,
    )


MODELS: dict[str, Callable[..., nn.Module]] = {"mlp": mlp, "conv": conv, "resnet18": ResNet18}
"""Classifiers: from inputs to logits of shape [batch, n_classes]."""

DENOISERS: dict[str, Callable[..., nn.Module]] = {"unet": unet}
"""Denoisers: from noisy images, times and conditions to a prediction; `n_classes` is the null condition."""
