"""Names of the files in a diffusers folder, and of the pipeline that is read.

Imports nothing, so that a command can name them without the extra `unweave[diffusion]`.
"""

MANIFEST = "unlearning_manifest.json"
"""The file with facts about a model that unweave wrote into a diffusers folder."""

WEIGHTS = "diffusion_pytorch_model.safetensors"
"""The file of a model's weights in a diffusers folder."""

INDEX = "model_index.json"
"""The file that names the components of a pipeline."""

PIPELINE = "StableDiffusionPipeline"
"""The class of the text-to-image pipelines, as `INDEX` names it."""
