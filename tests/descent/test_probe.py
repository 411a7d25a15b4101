"""The probe of the conflict between the retaining and the forgetting gradient."""

import copy
import math
import time

import pytest
import torch
from torch import Tensor

from every_family import problem
from for_each import for_each
from unweave.descent.descend import Descent
from unweave.descent.objective import nll
from unweave.descent.probe import Probe, cosines
from unweave.methods.lur import LUR
from unweave.methods.salun import SalUn
from unweave.methods.simple import NegGradPlus
from unweave.problem import Problem
from unweave.weights.params import gramian


def of_vectors(*rows: Tensor) -> tuple[float, float, float]:
    """The cosines of (r, r', f, f')."""
    return cosines(gramian([{"w": row} for row in rows]))


def test_halves_that_agree_give_the_plain_cosine():
    r, f = torch.tensor([1.0, 0.0]), torch.tensor([-3.0, 4.0])
    plain, disattenuated, reliability = of_vectors(r, r, f, f)
    assert (plain, disattenuated, reliability) == pytest.approx((-0.6, -0.6, 1.0))


def test_the_cosine_is_that_of_the_mean_gradients():
    r, s, f, g = (
        torch.tensor([3.0, 0.0]),
        torch.tensor([0.0, 1.0]),
        torch.tensor([1.0, 2.0]),
        torch.tensor([1.0, 0.0]),
    )
    mean, other = (r + s) / 2, (f + g) / 2
    plain, disattenuated, reliability = of_vectors(r, s, f, g)
    assert plain == pytest.approx(float(torch.cosine_similarity(mean, other, dim=0)))
    assert reliability == 0 and math.isnan(disattenuated)  # r and s are at a right angle: nothing but noise


def test_the_reliability_is_the_geometric_mean_of_the_split_halves():
    r, s = torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.8])
    f, g = torch.tensor([1.0, 0.0]), torch.tensor([0.8, 0.6])
    _, disattenuated, reliability = of_vectors(r, s, f, g)
    across = (1 + 0.8 + 0.6 + (0.48 + 0.48)) / 4
    assert reliability == pytest.approx(math.sqrt(0.6 * 0.8))
    assert disattenuated == pytest.approx(across / math.sqrt(0.6 * 0.8))


def test_scales_do_not_matter():
    rows = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)) + 1
    first = of_vectors(*rows)
    assert of_vectors(*(1e-6 * rows)) == pytest.approx(first, rel=1e-4)
    second = of_vectors(rows[0], rows[1], 7 * rows[2], 7 * rows[3])
    assert second == pytest.approx(first, rel=1e-4)


def test_disattenuation_recovers_the_cosine_from_noise():
    generator = torch.Generator().manual_seed(1)
    n, cosine, noise = 20_000, -0.3, 1.5
    r, z = torch.randn(2, n, generator=generator)
    f = cosine * r + math.sqrt(1 - cosine**2) * z
    halves = [signal + noise * torch.randn(n, generator=generator) for signal in (r, r, f, f)]
    plain, disattenuated, reliability = of_vectors(*halves)
    assert disattenuated == pytest.approx(cosine, abs=0.04)
    # drowned in the noise of both halves
    assert plain == pytest.approx(cosine / (1 + noise**2 / 2), abs=0.02)
    assert reliability == pytest.approx(1 / (1 + noise**2), abs=0.02)


def test_zero_gradients_are_no_agreement():
    plain, disattenuated, reliability = of_vectors(*torch.zeros(4, 3))
    assert plain == 0 and reliability == 0 and math.isnan(disattenuated)


# --- the probe on a model


def flat(gradients: list[Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients])


def measure_once(of: Problem, probe: Probe) -> tuple[int, float, float]:
    probe(of, 0)
    return of.traces["cosine"][-1]


@for_each("family", ["batchnorm", "denoiser", "language"])
def test_it_leaves_everything_as_it_was(family: str):
    of = problem(family)
    next(of.model.children()).eval()
    state, modes = copy.deepcopy(of.model.state_dict()), [m.training for m in of.model.modules()]
    generator_state = of.generator.get_state()
    Probe(every=1)(of, 0)
    assert len(of.traces["cosine"]) == len(of.traces["disattenuated"]) == 1
    assert all(torch.equal(value, state[name]) for name, value in of.model.state_dict().items())
    assert [m.training for m in of.model.modules()] == modes
    assert torch.equal(of.generator.get_state(), generator_state) and not of.cost.gradients and not of.curves
    assert all(p.grad is None for p in of.model.parameters())


def test_it_measures_the_two_gradients_in_evaluation_mode():
    of = problem("batchnorm", dtype=torch.float64)
    index, plain, _ = measure_once(of, Probe(1, nll("retain"), 0.3 * -nll("forget"), size=6))
    model = copy.deepcopy(of.model).eval()
    ps = list(model.parameters())
    orders = [
        ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))][:12]
        for ids in (of.split.retain, of.split.forget)
    ]
    g_r, g_f = (
        flat(
            list(
                torch.autograd.grad(
                    torch.nn.functional.cross_entropy(model(source.inputs[0][ids]), source.labels[ids]), ps
                )
            )
        )
        for source, ids in zip([of.split.train] * 2, orders, strict=True)
    )
    assert index == 0
    assert plain == pytest.approx(float(-(g_r @ g_f) / (g_r.norm() * g_f.norm())), abs=1e-9)


def test_a_gradient_against_itself_agrees_and_against_its_negation_does_not():
    of = problem("layernorm", dtype=torch.float64)
    assert measure_once(of, Probe(1, nll("forget"), nll("forget")))[1] == pytest.approx(1.0)
    assert measure_once(of, Probe(1, nll("retain"), -nll("retain")))[1] == pytest.approx(-1.0)


def test_only_the_moving_weights_count():
    of = problem("layernorm", dtype=torch.float64)
    where = {name: torch.full_like(p, float(name == "6.bias")) for name, p in of.params.items()}
    probe = Probe(every=1, where=where)
    everywhere = measure_once(of, Probe(every=1))[1]
    alignment = measure_once(of, probe)[1]
    halves = [
        probe.gradient(of, objective, half)["6.bias"]
        for objective in (probe.retain, probe.forget)
        for half in (0, 1)
    ]
    expected = torch.cosine_similarity(halves[0] + halves[1], halves[2] + halves[3], dim=0)
    assert alignment == pytest.approx(float(expected)) and abs(alignment - everywhere) > 1e-3


def test_the_halves_are_disjoint_and_fixed():
    of = problem("layernorm")
    probe = Probe(every=2)
    for index in range(5):
        probe(of, index)
    assert [row[0] for row in of.traces["cosine"]] == [0, 2, 4]
    assert len({row[1:] for row in of.traces["cosine"]}) == 1  # nothing moved between
    for part in ("retain", "forget"):
        first, second = (set(batch.ids.tolist()) for batch in probe.halves[part])
        assert not first & second and first | second == set(of.split.part(part)[1].tolist())


@for_each("kind", [LUR, NegGradPlus, SalUn])
def test_probing_any_method_changes_no_bit_of_the_run(kind: type[LUR | NegGradPlus | SalUn]):
    method = kind(how=Descent(lr=0.05, steps=4, batch=16, forget_batch=8))
    runs = [problem("batchnorm"), problem("batchnorm")]
    runs[1].watch = Probe(every=2)
    for of in runs:
        method(of)
    plain_weights, probed_weights = (of.model.state_dict() for of in runs)
    assert all(torch.equal(value, probed_weights[name]) for name, value in plain_weights.items())
    assert "cosine" not in runs[0].traces and [row[0] for row in runs[1].traces["disattenuated"]] == [0, 2]
    assert runs[0].cost.gradients == runs[1].cost.gradients and runs[0].curves == runs[1].curves


def test_the_time_of_a_look_is_not_the_methods():
    of = problem("layernorm")
    start = time.perf_counter()
    Probe(every=1)(of, 0)
    assert start - time.perf_counter() <= of.cost.seconds < 0  # taken off what a clock around the method sees


def test_one_example_cannot_be_halved():
    of = problem("layernorm")
    of.split = copy.copy(of.split)
    of.split.forget = of.split.forget[:1]
    with pytest.raises(ValueError, match="a probe halves the forget data and needs two examples, found 1"):
        Probe(every=1)(of, 0)
