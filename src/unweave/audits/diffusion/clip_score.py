"""The CLIP score: how well images agree with their prompts, by a CLIP from a local folder.

    100 max(0, cos(image, prompt))

of the projected embeddings of an image and of its prompt (Hessel et al., EMNLP 2021, arXiv 2104.08718,
without the factor 2.5), as a mean over images. Compare only scores of one CLIP model and one preparation.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, UInt8
from torch import Tensor
from torch.nn.functional import cosine_similarity

from unweave.audits.metrics import Metric


def _score(id: str, title: str, of: str) -> Metric[Any]:
    return Metric(
        id=id,
        title=title,
        unit="",
        direction="match",
        says=f"Agreement of images with their words, by CLIP: 100 x the cosine, as a mean over {of}.",
        cannot="What CLIP does not see, such as numbers and places; it has no part in a verdict.",
        below=None,
        above=None,
        floor=0.5,
        maximum=100.0,
    )


CLIP: Mapping[str, Metric[Any]] = {
    "clip": _score("clip", "CLIP score on R", "prompts to keep"),
    "clip_forget": _score("clip_forget", "CLIP score on F", "prompts of the concept"),
}
"""The figures of an audit with a CLIP model, by id."""


@dataclass(frozen=True, eq=False)
class ClipScore:
    """Scores images by a CLIP model.

    Args:
        embed_text: The embedding of a prompt.
        embed_images: The embeddings of uint8 images in RGB.
        digest: SHA-256 of the files of the model.
    """

    embed_text: Callable[[str], Float[Tensor, "1 feature"]]
    embed_images: Callable[[UInt8[Tensor, "n 3 height width"]], Float[Tensor, "n feature"]]
    digest: str

    def scores(self, text: str, images: UInt8[Tensor, "n 3 height width"]) -> Float64[np.ndarray, " n"]:
        """The score of each image under one prompt."""
        same = cosine_similarity(self.embed_images(images), self.embed_text(text))
        return 100 * same.clamp(min=0).double().cpu().numpy()

    def mean(self, drawn: Iterable[tuple[str, UInt8[Tensor, "_ 3 height width"]]]) -> float:
        """The mean score of the images of some prompts."""
        return float(np.concatenate([self.scores(text, images) for text, images in drawn]).mean())
