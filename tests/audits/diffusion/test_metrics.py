import numpy as np
import pytest

from audits.diffusion.toys import SIZES, samples
from unweave.audits.diffusion import recognition
from unweave.audits.diffusion.kid import kid
from unweave.audits.diffusion.manifold import precision, recall
from unweave.audits.diffusion.metrics import GENERATION, measure_generation, measure_generation_pair
from unweave.audits.diffusion.verdict import calibrate_generation


def test_the_primary_metrics_of_a_generator():
    assert [name for name in GENERATION if GENERATION[name].primary] == [
        "ua",
        "ra",
        "kid",
        "class_tv",
        "kid_forget",
        "effective",
    ]


def test_retained_figures_are_bounded_on_the_side_of_damage_only():
    for name in ("ra", "kid", "precision", "recall"):
        metric = GENERATION[name]
        assert {metric.below, metric.above} == {None, "damage"}
        assert (metric.below is None) == (metric.direction == "lower")


def test_measure_gives_each_metric_of_its_function():
    model, reference = samples(1), samples(2)
    values = measure_generation(model, reference)
    assert set(values) == {name for name, metric in GENERATION.items() if not metric.needs_model}
    assert values["ua"] == recognition.ua(model)
    assert values["class_tv"] == recognition.class_tv(model, reference)
    features, real = ([each[label] for label in (1, 2, 3)] for each in (model.features, model.real))
    assert values["kid"] == kid(features, real)
    assert values["kid_forget"] == kid([model.features[0]], [reference.features[0]], paired=True)
    features, real = np.concatenate(features), np.concatenate(real)
    assert values["precision"] == 100 * precision(generated=features, real=real).value
    assert values["recall"] == 100 * recall(generated=features, real=real).value
    assert all(type(value) is float for value in values.values())


def test_without_reference_the_metrics_of_two_generators_are_absent():
    assert set(measure_generation(samples(1))) == {
        name for name, metric in GENERATION.items() if metric.of_one
    }
    assert set(measure_generation_pair(samples(1), samples(2))) == {"class_tv", "kid_forget", "kid_retain"}


def test_generators_that_were_seen_or_asked_otherwise_are_not_compared():
    from dataclasses import replace

    with pytest.raises(ValueError, match="one space to be compared, found 0123456789ab and other"):
        measure_generation(samples(1), replace(samples(2), space="other"))
    with pytest.raises(ValueError, match="one forgotten to be compared, found .0,. and .1,."):
        measure_generation(samples(1), samples(2, forgotten=(1,)))


def test_margins_are_wider_than_what_two_retrained_generators_differ_by():
    margins = calibrate_generation([samples(seed) for seed in range(12)], sizes=SIZES)
    assert margins.n == 12 and set(margins.margin) == {
        name for name in GENERATION if GENERATION[name].primary
    }
    assert margins.margin["ra"] >= 1 and margins.margin["ua"] >= 1 and margins.margin["kid"] >= 0.01
    pairs = [measure_generation_pair(samples(seed), samples(seed + 50)) for seed in range(12, 20)]
    assert all(each["class_tv"] < margins.margin["class_tv"] for each in pairs)
    assert set(margins.null_band) == {name for name, metric in GENERATION.items() if not metric.needs_model}
    with pytest.raises(ValueError, match="at least two retrained models to compare, found 1"):
        calibrate_generation([samples(0)], sizes=SIZES)
