import numpy as np
import pytest
import torch

from audits.diffusion.concepts import PROMPTS, VALUES, Exact, squares
from unweave.audits.diffusion import recognition
from unweave.audits.diffusion.concept_metrics import CONCEPT, KINDS, metrics_of
from unweave.audits.diffusion.concept_samples import Classes, ConceptSamples, recognise_prompts, shows_concept
from unweave.audits.diffusion.factor_recogniser import RecognisedImages
from unweave.audits.diffusion.metrics import measure_generation

N = 20


def draw_images(instead: dict[int, tuple[int, int]]) -> dict[int, torch.Tensor]:
    """Images of each prompt; some prompts show N - k images of the concept's object and k of another."""
    labels = {0: 1, 1: 1, 2: 1, 3: 1, 4: 0, 5: 2, 6: 0, 7: 2}
    images = {}
    for number, label in labels.items():
        other, k = instead.get(number, (0, 0))
        objects = torch.tensor([other] * k + [label] * (N - k))
        images[number] = squares(objects, torch.full((N,), int(number > 5)), seed=number)
    return images


def samples(instead: dict[int, tuple[int, int]]) -> ConceptSamples:
    recogniser = Exact()
    real = {
        label: recogniser.recognise(squares(torch.full((30,), label), torch.arange(30) % 2)).features
        for label in (0, 2)
    }
    return recognise_prompts(recogniser, draw_images(instead), real, PROMPTS)


def test_classes_are_the_joint_values_of_the_concepts_factors():
    pair = Classes(("object", "colour"), VALUES)
    assert len(pair) == 6
    assert [pair.number({"object": "three", "colour": each}) for each in ("red", "blue")] == [2, 3]
    recognised_images = RecognisedImages(
        {"object": np.array([[0.0, 3.0, 1.0]]), "colour": np.array([[2.0, 1.0]])}, np.zeros((1, 4)), VALUES
    )
    joint = np.exp(pair.logits(recognised_images))
    assert joint.sum() == pytest.approx(1) and joint.argmax() == 2
    assert joint.reshape(3, 2).sum(1) == pytest.approx(np.exp([0, 3, 1]) / np.exp([0, 3, 1]).sum())


def test_figures_are_by_kind_of_prompt():
    generated_samples = samples({0: (0, 20), 1: (2, 10), 2: (0, 5), 4: (1, 4), 6: (2, 2)})
    values = measure_generation(generated_samples, metrics=metrics_of(generated_samples.kinds))
    assert (values["ua_trained"], values["ua_paraphrased"], values["ua_combined"]) == (75, 25, 0)
    assert values["ua"] == pytest.approx(100 * 35 / 80) == recognition.ua(generated_samples)
    assert (values["ra_neighbours"], values["ra_others"]) == (90, 95)
    assert values["ra"] == pytest.approx(92.5)
    # a wrong object is one of two values named: 6 of 80 images show half
    assert values["agreement"] == pytest.approx(100 * (1 - 6 / 80 / 2))
    assert set(values) == {name for name, metric in CONCEPT.items() if metric.of_one}


def test_kinds_without_prompts_have_no_figures():
    assert set(CONCEPT) - set(metrics_of({"trained", "others"})) == {
        "ua_paraphrased",
        "ua_combined",
        "ra_neighbours",
    }


def test_an_image_shows_a_concept_if_it_shows_all_its_values():
    recognised_images = Exact().recognise(squares(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1])))
    assert shows_concept(recognised_images, PROMPTS).tolist() == [False, True, True]


def test_the_figures_of_kinds_are_primary():
    assert all(metric.primary for metric in KINDS.values())
