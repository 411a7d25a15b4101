"""The recognised classes of images under forgotten and retained conditions.

The absence of the forgotten class is not enough. Noise achieves it; so does a remap to random other classes,
which drives the denoiser to the mean of its nine predictions: in a trial 74 to 90 % of the images became one
digit. The reference is a retrained model under a condition that it never learned.
"""

import numpy as np
from jaxtyping import Float64

from unweave.audits.classifier.logits import probabilities
from unweave.audits.diffusion.samples import Samples
from unweave.audits.score import Share


def hit_rate(samples: Samples, condition: int) -> Share:
    """The share of images of a condition recognised as its class."""
    is_hit = samples.predicted_classes(condition) == samples.class_of(condition)
    return Share(int(is_hit.sum()), len(is_hit))


def unlearning_accuracy(samples: Samples) -> Share:
    """The share of images of forgotten conditions not recognised as their class: UA, with its interval."""
    shares = [hit_rate(samples, condition) for condition in samples.forgotten]
    n = sum(each.n for each in shares)
    return Share(n - sum(each.successes for each in shares), n)


def ua(samples: Samples) -> float:
    """`unlearning_accuracy` in percent. It should equal a retrained model's, not be high."""
    return 100 * unlearning_accuracy(samples).value


def ra(samples: Samples) -> float:
    """The share of images of all retained conditions recognised as their class, in percent."""
    shares = [hit_rate(samples, condition) for condition in samples.retained_conditions]
    return 100 * (sum(each.successes for each in shares) / sum(each.n for each in shares))


def probability(samples: Samples) -> float:
    """Mean probability of the forgotten class under its own condition, in [0, 1]; mean over conditions."""
    return float(np.mean([own_probability(samples, each).mean() for each in samples.forgotten]))


def entropy(samples: Samples) -> float:
    """Mean entropy of the prediction for one image, in bits; mean over forgotten conditions.

    Selective Amnesia's figure is in nats, and NaN if a probability is 0.
    """
    return float(np.mean([bits(probabilities(samples.logits[each])).mean() for each in samples.forgotten]))


def effective_classes(samples: Samples) -> float:
    """The effective number of classes of the forgotten conditions; mean over conditions."""
    return float(np.mean([effective(samples, condition) for condition in samples.forgotten]))


def top_share(samples: Samples) -> float:
    """The share of the most frequent class of the forgotten conditions, in percent; mean over conditions."""
    return 100 * float(np.mean([shares(samples, condition).max() for condition in samples.forgotten]))


def class_tv(samples: Samples, reference: Samples) -> float:
    """Total variation between the classes of two generators under forgotten conditions, in [0, 1].

    1/2 sum_k |share_k - share'_k|, mean over conditions. Two samples of one generator are not at 0 but near
    sqrt(classes / (pi n)); two retrained models show which distance is small.
    """
    pairs = [(shares(samples, each), shares(reference, each)) for each in samples.forgotten]
    return float(np.mean([np.abs(ours - theirs).sum() / 2 for ours, theirs in pairs]))


def effective(samples: Samples, condition: int) -> float:
    """2 to the entropy of the mean prediction: the number of equally frequent classes with this entropy."""
    mean = probabilities(samples.logits[condition]).mean(axis=0, keepdims=True)
    return 2 ** float(bits(mean)[0])


def shares(samples: Samples, condition: int) -> Float64[np.ndarray, " class"]:
    """The share of images of a condition recognised as each class."""
    classes = samples.predicted_classes(condition)
    return np.bincount(classes, minlength=samples.n_classes) / len(classes)


def own_probability(samples: Samples, condition: int) -> Float64[np.ndarray, "_"]:
    """The probability of the condition's class, for each of its images."""
    return probabilities(samples.logits[condition])[:, samples.class_of(condition)]


def bits(p: Float64[np.ndarray, "n class"]) -> Float64[np.ndarray, " n"]:
    """-sum_k p_k log2 p_k of each row; 0 log 0 is 0."""
    return -(p * np.log2(p, out=np.zeros_like(p), where=p > 0)).sum(axis=1)
