"""The real images of a split: those of a class, and whether there are enough for the exam of a generator."""

from torch import Tensor

from unweave.audits.diffusion.kid import FEWEST
from unweave.audits.diffusion.relearning import SIZES
from unweave.data import Source
from unweave.data.in_memory import Resident
from unweave.split import Split


def images_of(source: Source, label: int) -> Tensor:
    """The images of a class, as bytes on the CPU."""
    assert isinstance(source, Resident)
    return source.inputs[(source.labels == label).to(source.inputs.device)].cpu()


def shape_of(source: Source) -> tuple[int, int, int]:
    """Channels, height and width of the images of a source."""
    assert isinstance(source, Resident)
    channels, height, width = source.inputs.shape[1:]
    return int(channels), int(height), int(width)


def relearning_sizes(*, searching: bool) -> tuple[int, ...]:
    """The numbers of images from which a class is relearned: in a search the smallest alone."""
    return SIZES[:1] if searching else SIZES


def refuse_unfit(split: Split, *, searching: bool = False, attacked: bool = False) -> None:
    """Raises if the forget set is not made of whole classes, or a class has too few real images.

    Args:
        split: The images.
        searching: Whether this is a search of settings, which compares images with training images instead
            of held-out ones, and relearns a class from the smallest number of images alone.
        attacked: Whether attacks relearn a forgotten class from real images.
    """
    forget_classes = split.forgotten_classes
    if set(split.train.labels[split.forget].tolist()) != set(forget_classes):
        raise ValueError(
            "a generator can only forget whole classes, found a forget set with retained examples of "
            "its classes: name a class"
        )
    if len(forget_classes) == split.n_classes:
        raise ValueError(f"a generator must keep a class, found all {split.n_classes} in the forget set")
    counts = (split.train if searching else split.held_out).labels.bincount(minlength=split.n_classes)
    for label in set(range(split.n_classes)) - set(forget_classes):
        if counts[label] < FEWEST:
            part = "training" if searching else "held-out"
            raise ValueError(
                f"a KID needs {FEWEST} {part} images of each retained class, found {int(counts[label])} of "
                f"class {label}: give more"
            )
    counts = split.train.labels.bincount(minlength=split.n_classes)
    size = relearning_sizes(searching=searching)[-1]
    for label in forget_classes if attacked else ():
        if counts[label] < size:
            raise ValueError(
                f"relearning needs {size} training images of a forgotten class, found "
                f"{int(counts[label])} of class {label}: leave attacks out, or give more"
            )
