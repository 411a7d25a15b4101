"""Reads what an audit of a concept needs: pipelines, images, prompts, and models that judge images.

Needs the extra `unweave[diffusion]`; `unweave audit` imports it only for a text-to-image model.
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

from unweave.audits.diffusion.clip_folder import read_clip
from unweave.audits.diffusion.concept_exam import draws_of, refuse_unfit
from unweave.audits.diffusion.concept_prompts import ConceptPrompts
from unweave.audits.diffusion.fid import refuse_no_fid
from unweave.audits.diffusion.local_classifier import read_classifier
from unweave.audits.diffusion.local_models import LocalModels
from unweave.audits.diffusion.nude_net import read_detector
from unweave.audits.diffusion.real_images import read_real_images
from unweave.cli.audits.concept import ConceptFiles, Folders, explain_not_run
from unweave.cli.audits.concept_audit import ConceptAudit
from unweave.cli.audits.concept_checks import refuse_other_original
from unweave.families.text_to_image import TextToImageFamily
from unweave.tasks.diffusion.concept_request import refuse_other_size
from unweave.tasks.diffusion.stable_diffusion import load
from unweave.tasks.diffusion.text_to_image import Tokens


def read_audit(
    folders: Folders, files: ConceptFiles, family: TextToImageFamily, device: str | None
) -> ConceptAudit:
    """Reads the models, the images, the prompts and the models that judge images.

    Raises:
        ValueError: If one of them can't be used.
    """
    assert files.data is not None and files.prompts is not None
    models = read_local_models(files, device)
    real, prompts = read_real_images(files.data, files.prompts, models.classifier)
    if models.clip is not None:
        for prompt in prompts.all_prompts:
            models.clip.embed_text(prompt.text)  # one that is too long for CLIP is an error
    digests: dict[Path, str] = {}
    for folder in (folders.original, folders.edited, *folders.retrained):
        pipeline = load(folder)
        refuse_other_size(pipeline, [real.train, real.held_out])
        tokens = pipeline.tokens(prompts.conditions)  # a prompt that is too long is an error
        if family.budget is not None and family.budget.runs("chosen-prefix"):
            refuse_no_room(tokens, prompts)
        digests[folder] = pipeline.digest()
    refuse_same(folders, digests)
    if folders.run is not None:
        refuse_other_original(folders.run, folders.edited, folders.original)
    draws = draws_of(prompts, family.sampler)
    refuse_unfit(prompts, real, models, draws, family.images, attacked=family.attacks > 0)
    omissions = explain_not_run(family, folders, files)
    return ConceptAudit(folders, digests, prompts, real, family, device, models, omissions)


def read_local_models(files: ConceptFiles, device: str | None) -> LocalModels:
    """Reads the models of an audit.

    Raises:
        ValueError: If one of them can't be used.
    """
    if files.inception is not None:
        refuse_no_fid(files.inception)
    return LocalModels(
        files.classifier
        and read_classifier(files.classifier, architecture=files.architecture, names=files.class_names),
        files.nudenet and read_detector(files.nudenet),
        files.clip and read_clip(files.clip, device=device or "cpu"),
        files.inception,
    )


def refuse_no_room(tokens: Tokens, prompts: ConceptPrompts) -> None:
    """Raises if the attack chosen-prefix can't put a token before the prompt of the concept."""
    if int(tokens.lengths[0]) >= tokens.ids.shape[1]:
        raise ValueError(
            f"the attack chosen-prefix puts tokens before {prompts.trained[0].text!r}, which has as many as "
            "the model takes: put a shorter prompt first in trained, or name other attacks with --attacks"
        )


def refuse_same(folders: Folders, digests: Mapping[Path, str]) -> None:
    """Raises if two folders that must differ hold the same weights."""
    roles = {folders.original: "the original", folders.edited: "the audited model"}
    reference_advice = "put pipelines retrained without the concept into the folder of --reference"
    for first, second in combinations([folders.original, folders.edited, *folders.retrained], 2):
        if digests[first] == digests[second]:
            role = roles.get(first, "another retrained model")
            is_edited = second == folders.edited and second not in folders.retrained
            advice = "name the pipeline before unlearning with --original" if is_edited else reference_advice
            raise ValueError(f"{second} holds the weights of {role}, {first}: {advice}")
