"""The methods with settings for text-to-image models, by the names of the registry.

These are starting points for a small model, as for class-conditional denoisers; UCE alone has the settings of
its release.
"""

from collections.abc import Mapping
from typing import Any

from unweave.families.diffusion_settings import EDIT, STAGE_PRESETS
from unweave.families.diffusion_settings import PRESETS as DENOISERS
from unweave.methods import Method, method_named
from unweave.methods.configure import configure
from unweave.methods.scissorhands import Scissorhands
from unweave.methods.uce import UCE
from unweave.methods.unfit_targets import refuse_unfit_targets
from unweave.tasks.diffusion.text_to_image import TextToImage

PRESETS: Mapping[str, Method] = {
    **DENOISERS,
    "scissorhands": Scissorhands(trim=0.03, eligible=r"up_blocks\..*attentions", how=EDIT),
    "uce": UCE(),
}
"""The methods with settings of this family."""


def text_to_image_method(name: str) -> Method:
    """The method, stage or pipeline of a name, with settings for text-to-image models.

    Raises:
        ValueError: If there is none of that name for this family.
    """
    return method_named(name, TextToImage.family, {**STAGE_PRESETS, **PRESETS})


def configure_text_to_image(name: str, table: Mapping[str, Any], path: str) -> Method:
    """The method of a name with a user's settings; `path` names it in errors.

    Raises:
        ValueError: If the name or a setting is unknown or wrong, or a forget loss is of another family.
    """
    method = configure(text_to_image_method(name), table, path)
    refuse_unfit_targets(method, TextToImage.family, name)
    return method
