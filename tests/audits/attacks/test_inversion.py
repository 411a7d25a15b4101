import copy
from dataclasses import replace

import pytest
import torch

from audits.attacks.ascended import ascend, digits, record
from unweave.audits.attacks.inversion import (
    Search,
    is_nearest,
    matching_loss,
    recover,
    total_variation,
)
from unweave.audits.attacks.update_alignment import loss_gradient, weight_changes
from unweave.tasks.models import build

SEARCH = Search(iterations=120, restarts=1, least=-0.85, most=1.9)
IMAGE = (1, 8, 8)


def decoys(i: int, n: int = 99) -> torch.Tensor:
    """Other records of its class."""
    split, _ = digits()
    positions = (split.train.labels == split.train.labels[i]).nonzero()[:, 0]
    (batch,) = split.train.stream([positions[positions != i][:n]])
    return batch.inputs[0]


@pytest.mark.parametrize("where", [1.0, 0.3])
def test_a_record_is_identified_from_one_ascent_step_also_by_a_mask(where: float) -> None:
    _, model = digits()
    for i in (3, 17):
        inputs, label = record(i)
        recovery = recover(
            model,
            weight_changes(model, ascend(i, where=where)),
            torch.tensor([label]),
            (64,),
            image=IMAGE,
            search=SEARCH,
        )
        assert is_nearest(recovery.inputs, inputs[0], decoys(i))
        assert SEARCH.least <= float(recovery.inputs.min()) <= float(recovery.inputs.max()) <= SEARCH.most


def test_the_update_of_another_record_does_not_identify_this_one() -> None:
    _, model = digits()
    label = record(3)[1]
    labels = torch.tensor([label])
    other = next(i for i in range(4, 400) if record(i)[1] == label)
    recovery = recover(model, weight_changes(model, ascend(other)), labels, (64,), image=IMAGE, search=SEARCH)
    decoy_inputs = torch.cat([decoys(3, 98), record(other)[0]])
    assert not is_nearest(recovery.inputs, record(3)[0][0], decoy_inputs)


def test_restarts_are_compared_by_what_was_minimised() -> None:
    """TASI-LAB's code compares its restarts without the normalisation that it optimised with."""
    _, model = digits()
    update, labels, search = (
        weight_changes(model, ascend(3)),
        torch.tensor([record(3)[1]]),
        replace(SEARCH, iterations=5, restarts=3),
    )
    recovery = recover(model, update, labels, (64,), image=IMAGE, search=search)
    loss = matching_loss(model, update, labels, recovery.inputs.requires_grad_(), IMAGE, search)
    assert min(recovery.losses) == pytest.approx(float(loss.detach()), abs=1e-6)
    assert len(set(recovery.losses)) == 3


def test_records_deleted_together_are_reconstructed_together() -> None:
    _, model = digits()
    records = [record(i) for i in (3, 17, 30)]
    labels = torch.tensor([label for _, label in records])
    assert len(set(labels.tolist())) == 3
    ascended_model = copy.deepcopy(model)
    gradient = loss_gradient(model, (torch.cat([inputs for inputs, _ in records]),), labels)
    with torch.no_grad():
        for name, p in ascended_model.named_parameters():
            p.add_(0.01 * gradient[name])
    search = replace(SEARCH, iterations=300)
    recovery = recover(
        model, weight_changes(model, ascended_model), labels, (64,), image=IMAGE, search=search
    )
    hits = [
        is_nearest(recovery.inputs[place : place + 1], records[place][0][0], decoys(i))
        for place, i in enumerate((3, 17, 30))
    ]
    assert recovery.inputs.shape == (3, 64) and sum(hits) >= 2


def test_a_record_is_nearest_only_if_no_decoy_is_nearer_to_any_reconstruction() -> None:
    reconstructions, record_, decoys_ = (
        torch.tensor([[0.0], [9.0]]),
        torch.tensor([1.0]),
        torch.tensor([[3.0], [12.0]]),
    )
    assert is_nearest(reconstructions, record_, decoys_)
    assert not is_nearest(reconstructions, record_, torch.tensor([[3.0], [9.5]]))
    assert not is_nearest(reconstructions, record_, torch.tensor([[-1.0]]))  # a tie is no hit


def test_total_variation_by_hand() -> None:
    assert float(total_variation(torch.ones(1, 1, 4, 4))) == 0
    assert float(total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))) == 1


def test_updates_that_cannot_be_inverted_are_refused() -> None:
    _, model = digits()
    with pytest.raises(ValueError, match="found another: tensor '0.weight' must be"):
        weight_changes(model, build("mlp", 10, {"hidden": 65}))
    with pytest.raises(ValueError, match="least must be below most"):
        Search(least=1.0, most=0.0)
