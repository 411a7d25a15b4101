"""Bad teaching: one mixed stream, two teachers, against plain torch and by hand."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from every_family import answers, problem
from for_each import for_each
from plain import Sgd, grad, moved_apart, recorded, whole
from unweave.methods.bad_teacher import BadTeacher, distill_from_two
from unweave.problem import Problem, frozen_copy
from unweave.split import Part
from unweave.tasks import Batch
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step


class Says(nn.Module):
    """Says the same of every example."""

    def __init__(self, *chances: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(chances, dtype=torch.float64).log())

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1)


def slope(of: Problem, batch: Batch, *, ignorant: nn.Module, original: nn.Module) -> dict[str, Tensor]:
    """The gradient of the lesson on one mixed batch."""
    step = Step(of.params, Runtime(of.model, of.task), {"mixed": [batch]}, {"mixed": len(batch)})
    return dict(step.gradient(distill_from_two(ignorant=ignorant, original=original)))


def mixed_batch(forget: list[bool]) -> Batch:
    n, labels = len(forget), torch.zeros(len(forget), dtype=torch.long)
    return Batch(torch.arange(n), (torch.zeros(n, 1),), labels, labels + 1, torch.tensor(forget))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@for_each("family", ["layernorm", "batchnorm"])
def test_bad_teacher(family: str, optimizer: str):
    of, recorder = recorded(family)
    ignorant = recorded(family)[0].fresh_model().eval()
    plain, original = copy.deepcopy(of.model).train(), copy.deepcopy(of.model).eval()
    method = whole(BadTeacher(), steps=3, lr=0.01, optimizer=optimizer)
    method(of)
    sgd, adam = Sgd(plain, method.how), torch.optim.Adam(plain.parameters(), 0.01, weight_decay=0.01)
    assert len(recorder.drawn) == 3
    for batch in recorder.drawn:
        (x,), rows = batch.inputs, of.split.is_forget[batch.ids][:, None]
        assert 0 < int(rows.sum()) < len(rows)  # one shuffled stream of both
        with torch.no_grad():
            target = torch.where(rows, ignorant(x).softmax(1), original(x).softmax(1))
        gradient = grad(plain, F.kl_div(plain(x).log_softmax(1), target, reduction="batchmean"))
        if optimizer == "sgd":
            sgd.step(gradient)
        else:
            for p, g in zip(plain.parameters(), gradient, strict=True):
                p.grad = g
            adam.step()
    assert moved_apart(of.model, plain) < 1e-10  # running statistics too


def test_the_slope_of_a_lesson_by_hand():
    # the gradient of KL(q, softmax z) in z is softmax z - q: here q = (.9, .1) once and (.2, .8) three times
    of = problem("layernorm", dtype=torch.float64)
    of.model = Says(0.5, 0.5)
    batch = mixed_batch([False, True, False, False])
    gradient = slope(of, batch, ignorant=frozen_copy(Says(0.9, 0.1)), original=frozen_copy(Says(0.2, 0.8)))
    expected = 0.5 - (0.9 + 3 * 0.2) / 4
    assert gradient["logits"].tolist() == pytest.approx([expected, -expected], abs=1e-12)


@pytest.mark.parametrize("classes", [2, 50])
def test_the_lesson_is_no_weaker_where_there_are_more_classes(classes: int):
    # torch's default for a divergence is the mean over all entries, which the released code takes
    of, other_shares = problem("layernorm", dtype=torch.float64), [1e-12] * (classes - 2)
    of.model = Says(0.5, 0.5, *other_shares)
    teachers = {
        "ignorant": frozen_copy(Says(0.9, 0.1, *other_shares)),
        "original": frozen_copy(Says(0.2, 0.8, *other_shares)),
    }
    batch = mixed_batch([True, True])
    assert slope(of, batch, **teachers)["logits"][:2].tolist() == pytest.approx([-0.4, 0.4], abs=1e-9)
    step = Step(of.params, Runtime(of.model, of.task), {"mixed": [batch]}, {"mixed": 2})
    (value,) = distill_from_two(**teachers).losses(step)
    assert float(value.detach()) == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2), abs=1e-9)


# --- what released code leaves open: the modes of teachers and student, the teacher's architecture


def test_the_modes_that_the_user_left_make_no_difference():
    results = []
    for training in (True, False):
        of = recorded("batchnorm")[0]
        of.model.train(training)
        whole(BadTeacher(), steps=3)(of)
        results.append(of.model)
    assert moved_apart(*results) == 0


def test_teachers_take_no_part_in_the_statistics():
    of, reference = recorded("batchnorm")[0], recorded("batchnorm")[0].model
    whole(BadTeacher(), steps=3, norm="frozen")(of)
    assert all(torch.equal(b, reference.get_buffer(name)) for name, b in of.model.named_buffers())


def test_the_ignorant_teacher_is_the_students_own_kind_and_knows_nothing():
    models = []

    def fresh_one() -> nn.Module:
        models.append(recorded("batchnorm")[0].fresh_model())
        return models[-1]

    one, other = recorded("batchnorm")[0], recorded("batchnorm")[0]
    one.build = other.build = fresh_one
    for of in (one, other):
        whole(BadTeacher(), steps=1)(of)
    assert len(models) == 2 and moved_apart(*models) == 0 and moved_apart(one.model, other.model) == 0
    assert moved_apart(models[0], recorded("batchnorm")[0].model) > 0.1


def test_it_forgets_a_class_and_keeps_the_rest():
    of = problem("layernorm", whole_class=True)
    accuracies = {"before": right(of, "forget")}
    whole(BadTeacher(), steps=60, batch=16, lr=0.01, optimizer="adam", weight_decay=0.0)(of)
    accuracies |= {part: right(of, part) for part in ("forget", "retain")}
    # the untrained teacher itself names that class now and then
    assert accuracies["before"] > 0.9 and accuracies["forget"] < 0.6 and accuracies["retain"] > 0.8


def right(of: Problem, part: Part) -> float:
    """The fraction of a part whose class is said."""
    output, target = answers(of, of.model, part)
    return float((output.argmax(1) == target).double().mean())
