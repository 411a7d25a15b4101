"""The models by name: their size, their layout and what `build` refuses."""

import pytest
import torch
from torch import nn

from for_each import for_each
from unweave.tasks.models import DENOISERS, MODELS, build

SHAPES = {"mlp": (64,), "conv": (1, 28, 28), "resnet18": (3, 32, 32)}


def weights(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@for_each("name", MODELS)
def test_an_output_has_one_row_per_example_and_one_number_per_class(name: str) -> None:
    model = build(name, 7, {"width": 4} if name == "resnet18" else {})
    assert model(torch.randn(2, *SHAPES[name])).shape == (2, 7)


@for_each("size", [8, 28, 30, 32])
def test_a_convolutional_network_takes_squares_of_its_size(size: int) -> None:
    assert build("conv", 7, {"channels": 3, "size": size})(torch.randn(2, 3, size, size)).shape == (2, 7)


@for_each("name", MODELS)
def test_same_seed_same_bits(name: str) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(build(name, 3, {"width": 4} if name == "resnet18" else {}).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@for_each("name", MODELS)
def test_it_has_second_derivatives_everywhere(name: str) -> None:
    # the exact mode of LUR differentiates twice through every weight
    torch.manual_seed(0)
    model = build(name, 3, {"width": 4} if name == "resnet18" else {})
    parameters = list(model.parameters())
    loss = nn.functional.cross_entropy(model(torch.randn(4, *SHAPES[name])), torch.tensor([0, 1, 2, 0]))
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    total = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
    assert all(torch.isfinite(second).all() for second in torch.autograd.grad(total, parameters))


def test_the_published_number_of_weights() -> None:
    # ResNet-18 with the CIFAR stem: Unlearn-Saliency's model, ten and a hundred classes
    assert weights(build("resnet18", 10, {})) == 11_173_962
    assert weights(build("resnet18", 100, {})) == 11_220_132
    assert weights(build("mlp", 10, {})) == 64 * 512 + 512 + 512 * 10 + 10
    assert weights(build("conv", 10, {})) == 77_444


def test_resnet18_is_torchvisions_but_for_the_stem() -> None:
    torchvision = pytest.importorskip("torchvision", reason="the independent implementation is torchvision's")
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    theirs.maxpool = nn.Identity()
    ours = build("resnet18", 10, {})
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 32, 32)
    for mode in (True, False):
        torch.testing.assert_close(ours.train(mode)(images), theirs.train(mode)(images))


def test_settings_change_the_size() -> None:
    assert weights(build("mlp", 10, {"inputs": 5, "hidden": 3})) == 5 * 3 + 3 + 3 * 10 + 10


def test_a_bottleneck_is_a_linear_layer_before_the_head() -> None:
    model = build("mlp", 10, {"bottleneck": 16})
    assert [type(module) for module in model.children()] == [nn.Linear, nn.ReLU, nn.Linear, nn.Linear]
    assert weights(model) == 64 * 512 + 512 + 512 * 16 + 16 + 16 * 10 + 10


def test_the_stride_of_the_stem_changes_the_resolution_and_no_weight() -> None:
    torch.manual_seed(0)
    plain = build("resnet18", 10, {"width": 4})
    torch.manual_seed(0)
    strided_model = build("resnet18", 10, {"width": 4, "stem": 2})
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(dict(strided_model.state_dict()), dict(plain.state_dict()))
    stems = [model.get_submodule("conv1")(images) for model in (plain, strided_model)]
    torch.testing.assert_close(stems[0][:, :, ::2, ::2], stems[1])


@for_each(
    ("name", "settings", "message"),
    [
        ("resnet8", {}, "unknown model 'resnet8' .did you mean 'resnet18'.*known: mlp, conv, resnet18"),
        ("mlp", {"hiden": 4}, "unknown setting 'hiden' of model 'mlp' .did you mean 'hidden'"),
        ("conv", {"n_classes": 4}, "unknown setting 'n_classes'"),
        ("mlp", {"hidden": 0}, "'hidden' of model 'mlp' must be at least 1, found 0"),
    ],
)
def test_what_is_unknown_is_refused_with_the_nearest(
    name: str, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, 10, settings)


def test_a_denoiser_of_ddpms_shape_has_its_size() -> None:
    # Ho et al., 2020: 35.7 million weights without classes; here eleven embeddings of 512
    settings = {"width": 128, "widest": 256, "levels": 4, "layers": 2, "attended": 2, "head": 256}
    with torch.device("meta"):
        model = build("unet", 10, {"channels": 3, "size": 32, **settings}, among=DENOISERS)
        images, time = torch.empty(2, 3, 32, 32), torch.empty(2, dtype=torch.long)
        assert model(images, time, time).shape == images.shape
    assert weights(model) == pytest.approx(35.75e6, rel=1e-3)


@for_each(("attended", "number"), [(1, [0]), (2, [1]), (None, [1])])
def test_attention_is_where_it_is_asked_for(attended: int | None, number: list[int]) -> None:
    settings = {"width": 8} if attended is None else {"width": 8, "attended": attended}
    model = build("unet", 3, settings, among=DENOISERS)
    levels = [type(block).__name__ for block in model.get_submodule("down_blocks").children()]
    assert [i for i, name in enumerate(levels) if name.startswith("Attn")] == number


def test_attention_beyond_the_levels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"attended must be one of the levels 1..2, found 3"):
        build("unet", 3, {"attended": 3}, among=DENOISERS)
