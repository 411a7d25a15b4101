"""The denoisers of diffusers as models `f(x_t, t, condition)`: same weights, same names, same configuration.

Needs the extra `unweave[diffusion]`.
"""

from collections.abc import Callable, Mapping
from functools import update_wrapper
from typing import Any, TypeVar, cast

from jaxtyping import Float, Int
from torch import LongTensor, Tensor, nn

from unweave.tasks.diffusion.condition_vectors import Condition, Table

try:
    import diffusers
    from diffusers.models.embeddings import LabelEmbedding
except ImportError as error:
    raise ImportError("the models of diffusers need the extra: pip install 'unweave[diffusion]'") from error

Init = TypeVar("Init", bound=Callable[..., None])


def copy_signature(parent: type) -> Callable[[Init], Init]:
    """Gives an `__init__` the signature of the parent's, from which diffusers reads the keys of a config."""

    def sign(init: Init) -> Init:
        update_wrapper(init, parent.__init__, assigned=())
        return init

    return sign


class UNet2DModel(diffusers.UNet2DModel):
    """A U-Net on pixels with one embedding per class. Arguments are those of diffusers."""

    @copy_signature(diffusers.UNet2DModel)
    def __init__(self, *settings: Any, **config: Any) -> None:
        super().__init__(*settings, **config)
        if isinstance(self.class_embedding, nn.Embedding):
            self.class_embedding = Table.of(self.class_embedding)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the one purpose of this class
        self,
        x: Float[Tensor, "batch channel height width"],
        t: Int[Tensor, " batch"],
        condition: Condition,
    ) -> Float[Tensor, "batch channel height width"]:
        """The prediction for noisy images at their times under their conditions."""
        refuse_shape(x, shape_of(self.config))
        return super().forward(x, t, class_labels=condition, return_dict=False)[0]


class DiTTransformer2DModel(diffusers.DiTTransformer2DModel):
    """A transformer on latents or pixels, without its predicted variance.

    diffusers' own module drops a tenth of the labels in training; here the task does that. A vector is the
    concatenation of the embeddings of all blocks.
    """

    @copy_signature(diffusers.DiTTransformer2DModel)
    def __init__(self, *settings: Any, **config: Any) -> None:
        super().__init__(*settings, **config)
        start = 0
        for module in self.modules():
            if isinstance(module, LabelEmbedding):
                module.dropout_prob = 0.0
                module.embedding_table = Table.of(module.embedding_table, start=start)
                start += module.embedding_table.embedding_dim

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the one purpose of this class
        self,
        x: Float[Tensor, "batch channel height width"],
        t: Int[Tensor, " batch"],
        condition: Condition,
    ) -> Float[Tensor, "batch channel height width"]:
        """The prediction for noisy images at their times under their conditions."""
        refuse_shape(x, shape_of(self.config))
        output = super().forward(x, cast(LongTensor, t), cast(LongTensor, condition), return_dict=False)[0]
        return output[:, : x.shape[1]]


ClassDenoiser = UNet2DModel | DiTTransformer2DModel

CLASS_DENOISERS: Mapping[str, type[ClassDenoiser]] = {
    kind.__name__: kind for kind in (UNet2DModel, DiTTransformer2DModel)
}


def build_class_denoiser(config: Mapping[str, Any]) -> ClassDenoiser:
    """Builds the model of a diffusers configuration, with fresh weights from torch's global generator.

    Raises:
        ValueError: If its class is not supported, or it takes no class labels.
    """
    name = refuse_other_class(config)
    if name == "UNet2DModel" and (config.get("class_embed_type") or not config.get("num_class_embeds")):
        raise ValueError(
            "a UNet2DModel needs one embedding per class (num_class_embeds), found class_embed_type="
            f"{config.get('class_embed_type')!r} and num_class_embeds={config.get('num_class_embeds')!r}"
        )
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        return CLASS_DENOISERS[name](**settings)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(f"this version of diffusers can't make the {name} of the config: {error}") from error


def refuse_other_class(config: Mapping[str, Any]) -> str:
    """The class of the model in a configuration; raises if it is not supported."""
    name = str(config.get("_class_name"))
    if name not in CLASS_DENOISERS:
        raise ValueError(f"models of class {name!r} are not supported, only {' and '.join(CLASS_DENOISERS)}")
    return name


def conditions(model: ClassDenoiser, n_classes: int | None) -> tuple[int, int | None]:
    """The number of classes, and the index of the null condition.

    Args:
        model: The model. A transformer has a row for the null condition after its classes. A U-Net has one if
            it has one more row than classes, which its configuration does not tell.
        n_classes: The number of classes of the data; None if the model determines it.

    Raises:
        ValueError: If the number of classes is unknown, or does not fit the model.
    """
    if isinstance(model, DiTTransformer2DModel):
        rows = int(model.config["num_embeds_ada_norm"]) + 1
        n_classes = rows - 1 if n_classes is None else n_classes
    else:
        rows = int(model.config["num_class_embeds"])
    if n_classes is None:
        raise ValueError(
            f"this model has {rows} class embeddings, and does not say whether the last stands for no class: "
            f"pass n_classes={rows} or n_classes={rows - 1}"
        )
    if rows - n_classes not in (0, 1):
        raise ValueError(f"this model has {rows} class embeddings, which does not fit {n_classes} classes")
    return n_classes, n_classes if rows > n_classes else None


def shape_of(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Channels, height and width of the images of a model.

    Raises:
        ValueError: If the configuration lacks them.
    """
    size, channels = config.get("sample_size"), config.get("in_channels")
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list | tuple) or [type(each) for each in sides] != [int, int]:
        raise ValueError(f"sample_size must be a whole number or two of them, found {size!r}")
    if not isinstance(channels, int):
        raise ValueError(f"in_channels must be a whole number, found {channels!r}")
    return channels, sides[0], sides[1]


def refuse_shape(x: Tensor, shape: tuple[int, int, int]) -> None:
    """Raises if images do not have the size of the model."""
    if tuple(x.shape[1:]) != shape:
        raise ValueError(f"this model takes images of shape {list(shape)}, found {list(x.shape[1:])}")
