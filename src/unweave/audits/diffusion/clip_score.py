"""The CLIP score: how well images agree with their prompts, by a CLIP from a local folder.

    100 max(0, cos(image, prompt))

of the projected embeddings of an image and of its prompt (Hessel et al., EMNLP 2021, arXiv 2104.08718,
without the factor 2.5), as a mean over images. Compare only scores of one CLIP model and one preparation.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, UInt8
from torch import Tensor
from torch.nn.functional import cosine_similarity


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
        similarity = cosine_similarity(self.embed_images(images), self.embed_text(text))
        return 100 * similarity.clamp(min=0).double().cpu().numpy()

    def mean(self, drawn: Iterable[tuple[str, UInt8[Tensor, "_ 3 height width"]]]) -> float:
        """The mean score of the images of some prompts."""
        return float(np.concatenate([self.scores(text, images) for text, images in drawn]).mean())
