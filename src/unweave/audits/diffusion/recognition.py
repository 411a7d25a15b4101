"""What the images of forgotten and retained conditions are taken for.

That the forgotten class no longer comes is the smaller half. Noise does that; so does a remap to random
other classes, which drives the denoiser to the mean of its nine predictions, and 74 to 90 % of the images
became one digit in a trial. What counts is what a retrained model does with a condition that it never
learned.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from unweave.audits.classifier.logits import probabilities
from unweave.audits.diffusion.samples import Samples
from unweave.audits.score import Share


@dataclass(frozen=True)
class Spread:
    """The classes that the images of one condition are taken for.

    Args:
        share: Of the images, per class.
        entropy: Of the mean prediction, in bits: 0 where all become one class, log2 of the number of classes
            where all are as frequent.
        effective: 2 to that power: the number of classes, all as frequent, that would have this entropy.
        top: The most frequent class.
        top_share: How many of the images it gets.
    """

    share: Float64[np.ndarray, " class"]
    entropy: float
    effective: float
    top: int
    top_share: Share


def hit_rate(samples: Samples, condition: int) -> Share:
    """How many images of a condition are taken for its class."""
    return Share(
        int((samples.predicted_classes(condition) == condition).sum()), len(samples.logits[condition])
    )


def unlearning_accuracy(samples: Samples) -> Share:
    """How many images of the forgotten conditions are not taken for their class: UA, with its interval."""
    shares = [hit_rate(samples, condition) for condition in samples.forgotten]
    n = sum(each.n for each in shares)
    return Share(n - sum(each.successes for each in shares), n)


def retained_accuracy(samples: Samples) -> Share:
    """How many images of all retained conditions are taken for their class."""
    shares = [hit_rate(samples, condition) for condition in samples.retained_conditions]
    return Share(sum(each.successes for each in shares), sum(each.n for each in shares))


def per_class(samples: Samples) -> dict[int, Share]:
    """The same per retained condition: damage to one class does not move the mean."""
    return {condition: hit_rate(samples, condition) for condition in samples.retained_conditions}


def ua(samples: Samples) -> float:
    """`unlearning_accuracy` in percent. As high as a retrained model's, not as high as possible."""
    return 100 * unlearning_accuracy(samples).value


def ra(samples: Samples) -> float:
    """`retained_accuracy` in percent."""
    return 100 * retained_accuracy(samples).value


def probability(samples: Samples) -> float:
    """Mean probability of the forgotten class under its own condition, in [0, 1]; mean over conditions."""
    return float(np.mean([own_probability(samples, each).mean() for each in samples.forgotten]))


def entropy(samples: Samples) -> float:
    """Mean entropy of the answers to single images of forgotten conditions, in bits; mean over conditions.

    Selective Amnesia's figure is in nats, and NaN where a probability is 0.
    """
    return float(np.mean([bits(probabilities(samples.logits[each])).mean() for each in samples.forgotten]))


def effective_classes(samples: Samples) -> float:
    """The effective number of classes of the forgotten conditions (see `Spread`); mean over conditions."""
    return float(np.mean([spread(samples, condition).effective for condition in samples.forgotten]))


def top_share(samples: Samples) -> float:
    """The share of the most frequent class of the forgotten conditions, in percent; mean over conditions."""
    return 100 * float(np.mean([shares(samples, condition).max() for condition in samples.forgotten]))


def class_tv(samples: Samples, reference: Samples) -> float:
    """Total variation between the classes of two generators under forgotten conditions, in [0, 1].

    1/2 sum_k |share_k - share'_k|, mean over conditions. Two samples of one generator are not at 0 but near
    sqrt(classes / (pi n)): two retrained models say what is near.
    """
    pairs = [(shares(samples, each), shares(reference, each)) for each in samples.forgotten]
    return float(np.mean([np.abs(ours - theirs).sum() / 2 for ours, theirs in pairs]))


def spread(samples: Samples, condition: int) -> Spread:
    """The classes that the images of one condition are taken for."""
    share = shares(samples, condition)
    mean = float(bits(probabilities(samples.logits[condition]).mean(axis=0, keepdims=True))[0])
    n, top = len(samples.logits[condition]), int(share.argmax())
    return Spread(share, mean, 2**mean, top, Share(round(share[top] * n), n))


def shares(samples: Samples, condition: int) -> Float64[np.ndarray, " class"]:
    """Share of the images of a condition that is taken for each class."""
    taken = samples.predicted_classes(condition)
    return np.bincount(taken, minlength=samples.n_classes) / len(taken)


def own_probability(samples: Samples, condition: int) -> Float64[np.ndarray, "_"]:
    """The probability of its class, of each image of a condition."""
    return probabilities(samples.logits[condition])[:, condition]


def bits(p: Float64[np.ndarray, "n class"]) -> Float64[np.ndarray, " n"]:
    """-sum_k p_k log2 p_k of each row; 0 log 0 is 0."""
    return -(p * np.log2(p, out=np.zeros_like(p), where=p > 0)).sum(axis=1)
