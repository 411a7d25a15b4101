"""`unweave audit FOLDER --prompts`: compares a text-to-image model with ones retrained without a concept."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from unweave.auditing import Audit
from unweave.audits.attack_runs.plan import Request
from unweave.audits.classifier.prepare_attacks import refuse_tier_of_generator
from unweave.audits.diffusion.image_attacks import CONCEPTS, list_not_chosen
from unweave.cli.audits.evidence import natural_key
from unweave.cli.inputs import out
from unweave.cli.inputs.extra import require_diffusion
from unweave.cli.inputs.forget_folder import CLAIM
from unweave.cli.inputs.single_file import kept_folder
from unweave.cli.options import CommonFlags, parse_settings
from unweave.cli.project.text_to_image import is_pipeline
from unweave.cli.terminal import progress
from unweave.families.text_to_image import TextToImageFamily
from unweave.methods.configure import configure
from unweave.record.files import read_object
from unweave.result import ADDITIONS, PRETRAINED
from unweave.tasks.diffusion.file_names import INDEX

if TYPE_CHECKING:
    from unweave.cli.audits.concept_audit import ConceptAudit


@Parameter(name="*")
@dataclass(frozen=True)
class ConceptFiles:
    """The files of an audit of a concept.

    Args:
        prompts: For a text-to-image model: a file in TOML with the prompts of the concept and those to keep.
        data: With --prompts: a folder of real images with captions and a column for each factor, such as
            object and colour; a recogniser is trained on them, unless --classifier names one.
        set: With --prompts: a setting, such as images=50, attacks=25, the images that each attack
            draws, or sampler.steps=10; can be given several times.
        nudenet: With --prompts: the file 320n.onnx of NudeNet 3.4.2, which then counts explicit images.
        classifier: With --prompts: the weights of a classifier in torchvision's layout (.pth or
            .safetensors), which is the recogniser; the concept's factor is then the column of the data with
            the names of its classes.
        architecture: With --classifier: its architecture, such as resnet50, or resnet50.IMAGENET1K_V1, the
            weights as for which images are prepared; needed where the file does not tell.
        class_names: With --classifier: a file with the name of each class, one a line. By default ImageNet's
            names, or numbers if there are not a thousand classes.
        clip: With --prompts: a folder of transformers with a CLIPModel, its tokenizer and its preparation of
            images, for the CLIP score.
        inception: With --prompts: the file weights-inception-2015-12-05-6726825d.pth of torch-fidelity, for
            the FID, which needs 2,049 images and as many held-out ones.
    """

    prompts: Path | None = None
    data: str | None = None
    set: tuple[str, ...] = ()
    nudenet: Path | None = None
    classifier: Path | None = None
    architecture: str = "resnet50"
    class_names: Path | None = None
    clip: Path | None = None
    inception: Path | None = None


NO_PROMPTS = ConceptFiles()


@dataclass(frozen=True)
class Folders:
    """The folders of models, each with a pipeline.

    Args:
        edited: The model under audit.
        original: The model before unlearning.
        retrained: The models retrained without the concept, by name.
        run: The folder that forget wrote; None if the model is a pipeline alone.
    """

    edited: Path
    original: Path
    retrained: tuple[Path, ...]
    run: Path | None


def refuse_no_prompts(run: Path | None, files: ConceptFiles) -> None:
    """Raises if a text-to-image model is given without prompts, or settings of one without them."""
    if run is not None and (is_pipeline(run) or is_pipeline(run / PRETRAINED)):
        raise ValueError(f"{run} holds a text-to-image model: name the file of prompts with --prompts")
    if files != NO_PROMPTS:
        raise ValueError("--data, --set and flags of models that judge images go with --prompts, found none")


def audit_concept(
    run: Path,
    original: Path | None,
    reference: Path | None,
    files: ConceptFiles,
    request: Request | None,
    flags: CommonFlags,
) -> tuple[Audit, Path, list[str]]:
    """Audits a text-to-image model.

    Returns:
        The audit, its folder, and sentences on what does not fit or was not run, if there is anything.
    """
    if files.data is None:
        raise ValueError(
            "--prompts needs --data, a folder of real images with captions: a recogniser needs them"
        )
    refuse_no_classifier(files)
    family = configure(TextToImageFamily(), parse_settings(files.set), "--set")
    if request is not None:
        refuse_tier_of_generator(request)
        family = family.with_attacks(request.names)
    folders = find_folders(run, original, reference)
    place = flags.out or (Path("unweave-audit") if folders.run is None else folders.run / "audit")
    for folder in (folders.edited, folders.original, *folders.retrained):
        out.refuse_within(place, folder, files.data)
    with progress.show_progress(f"Reading {run} and {files.data}", quiet=flags.quiet) as listener:
        work = read_work(folders, files, family, flags.device)
        facts = work.facts()
        place = out.choose_folder(place, facts)
        with out.open_folder(place, facts):
            outcome = work.run(place, listener)
            outcome.save(place)
    sentences = [f"Not run: {', '.join(work.omissions)}."] if work.omissions else []
    return outcome, place, [*work.notes(outcome), *sentences]


def find_folders(run: Path, original: Path | None, reference: Path | None) -> Folders:
    """The folders of the models.

    Raises:
        ValueError: If one of them holds no pipeline, or the original is not named.
    """
    claim = run / CLAIM
    edited = run / PRETRAINED if claim.is_file() else run
    if original is None and claim.is_file():
        original = kept_folder(str(read_object(claim).get("model")), run)
    if original is None:
        raise ValueError(
            "an audit of a concept needs the model before unlearning: name its folder with --original"
        )
    for name, folder in (("the model", edited), ("--original", original)):
        refuse_no_pipeline(name, folder)
    retrained = () if reference is None else list_pipelines(reference)
    return Folders(edited, original, retrained, run if claim.is_file() else None)


def refuse_no_pipeline(name: str, folder: Path) -> None:
    """Raises if a folder holds no pipeline."""
    if not is_pipeline(folder):
        raise ValueError(
            f"{name} must be a folder with a StableDiffusionPipeline, found no {INDEX} of one in {folder}"
        )


def list_pipelines(reference: Path) -> tuple[Path, ...]:
    """The retrained models in a folder, by name; the folder itself if it is a pipeline.

    Raises:
        ValueError: If there are none.
    """
    if is_pipeline(reference):
        return (reference,)
    folders = sorted(reference.iterdir(), key=natural_key) if reference.is_dir() else []
    pipelines = tuple(each for each in folders if is_pipeline(each))
    if not pipelines:
        raise ValueError(
            f"--reference must hold a folder per retrained model, each with a StableDiffusionPipeline, found "
            f"none in {reference}"
        )
    return pipelines


def read_work(
    folders: Folders, files: ConceptFiles, family: TextToImageFamily, device: str | None
) -> "ConceptAudit":
    """Reads the models, the images and the prompts.

    Raises:
        ValueError: If an extra is not installed, or one of them can't be used.
    """
    with require_diffusion():
        from unweave.cli.audits import concept_inputs
    return concept_inputs.read_audit(folders, files, family, device)


def refuse_no_classifier(files: ConceptFiles) -> None:
    """Raises if a classifier is described that is not given."""
    if files.classifier is None and files != replace(files, architecture="resnet50", class_names=None):
        raise ValueError("--architecture and --class-names go with --classifier, found none")


def explain_not_run(family: TextToImageFamily, folders: Folders, files: ConceptFiles) -> list[str]:
    """What an audit does not run, and how to run it."""
    has_attacks, other_attacks = family.attacks > 0, list_not_chosen(family.attacker.names, CONCEPTS)
    has_additions = folders.run is not None and (folders.run / ADDITIONS).is_dir()
    optional = (
        (has_attacks, "attacks (give --attacks default)"),
        (not other_attacks, f"the attacks {' '.join(other_attacks)} (name them in --attacks)"),
        (has_additions or not has_attacks, "the attack without adapter (there is no LoRA file to leave out)"),
        (bool(folders.retrained), "retrained models (give --reference)"),
        (files.classifier is not None, "a classifier of your own (give --classifier)"),
        (files.nudenet is not None, "detections of nudity (give --nudenet)"),
        (files.clip is not None, "the CLIP score (give --clip)"),
        (files.inception is not None, "the FID (give --inception)"),
    )
    return [name for is_run, name in optional if not is_run]
