import copy
import pickle

import pytest
import torch
from torch import nn

from denoisers import CONFIGS, DIT, UNET, inputs
from for_each import for_each

diffusers = pytest.importorskip("diffusers")

from unweave.tasks.diffusion.class_denoisers import CLASS_DENOISERS, build_class_denoiser, conditions  # noqa: E402  # needs diffusers


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    """Ours, and that of diffusers with the same weights."""
    ours = build_class_denoiser(CONFIGS[name])
    theirs = getattr(diffusers, name).from_config(CONFIGS[name])
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("name", CLASS_DENOISERS)
def test_it_answers_as_diffusers_model_with_the_same_names(name: str):
    ours, theirs = (model.eval() for model in pair(name))
    x, t, condition = inputs(ours)
    expected = theirs(x, t, class_labels=condition).sample[:, : x.shape[1]]
    assert torch.equal(ours(x, t, condition), expected) and expected.shape == x.shape
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert type(ours).__name__ == type(theirs).__name__


def test_diffusers_own_transformer_drops_labels_in_training_and_ours_does_not():
    ours, theirs = (model.train() for model in pair("DiTTransformer2DModel"))
    x, t, condition = inputs(ours, 1)
    x, t, condition = x.expand(200, -1, -1, -1), t.expand(200), condition.expand(200)
    assert len(ours(x, t, condition).round(decimals=4).unique(dim=0)) == 1
    assert len(theirs(x, t, class_labels=condition).sample.round(decimals=4).unique(dim=0)) > 1
    assert torch.equal(ours(x, t, condition), ours.eval()(x, t, condition))


@for_each("name", CLASS_DENOISERS)
def test_copies_and_pickles_are_models(name: str):
    model = build_class_denoiser(CONFIGS[name]).eval()
    x, t, condition = inputs(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x, t, condition), model(x, t, condition))


@for_each(
    ("name", "n_classes", "expected"),
    [
        ("UNet2DModel", 4, (4, 4)),
        ("UNet2DModel", 5, (5, None)),
        ("DiTTransformer2DModel", None, (4, 4)),
        ("DiTTransformer2DModel", 4, (4, 4)),
    ],
)
def test_the_null_condition_is_the_row_after_the_classes(name: str, n_classes, expected):
    assert conditions(build_class_denoiser(CONFIGS[name]), n_classes) == expected


@for_each(
    ("name", "n_classes", "message"),
    [
        ("UNet2DModel", None, "has 5 class embeddings, and does not say .* pass n_classes=5 or n_classes=4"),
        ("UNet2DModel", 3, "has 5 class embeddings, which does not fit 3 classes"),
        ("UNet2DModel", 6, "does not fit 6 classes"),
        ("DiTTransformer2DModel", 10, "does not fit 10 classes"),
    ],
)
def test_a_number_of_classes_that_does_not_fit_is_refused(name: str, n_classes, message: str):
    with pytest.raises(ValueError, match=message):
        conditions(build_class_denoiser(CONFIGS[name]), n_classes)


@for_each(
    ("config", "message"),
    [
        (
            {"_class_name": "UNet2DConditionModel"},
            "class 'UNet2DConditionModel' are not supported",
        ),
        ({}, "class 'None' are not supported"),
        (UNET | {"num_class_embeds": None}, "needs one embedding per class .* num_class_embeds=None"),
        (UNET | {"class_embed_type": "timestep"}, "found class_embed_type='timestep'"),
        (UNET | {"unheard_of": 1}, "can't make the UNet2DModel of the config: .*unheard_of"),
        (DIT | {"norm_type": "layer_norm"}, "can't make the DiTTransformer2DModel of the config"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(config: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build_class_denoiser(config)


@for_each("name", CLASS_DENOISERS)
def test_images_of_another_resolution_are_refused(name: str):
    model = build_class_denoiser(CONFIGS[name])
    channels = model.config["in_channels"]
    with pytest.raises(
        ValueError, match=rf"takes images of shape \[{channels}, 4, 4\], found \[{channels}, 8, 8\]"
    ):
        model(torch.zeros(1, channels, 8, 8), torch.zeros(1).long(), torch.zeros(1).long())
