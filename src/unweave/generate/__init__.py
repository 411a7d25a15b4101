"""Generators of images: their noise schedules, the models of diffusers, and sampling.

Only `adapters`, `scopes` and the schedulers of `sample` need the extra `unweave[diffusion]`; a user's own
denoiser `f(x_t, t, condition)` trains and unlearns without it.
"""

MANIFEST = "unlearning_manifest.json"
"""What a folder of diffusers says of a model that unweave wrote into it."""
WEIGHTS = "diffusion_pytorch_model.safetensors"
"""The file of a model's weights in a folder of diffusers."""
