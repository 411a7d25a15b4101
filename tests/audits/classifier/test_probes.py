import copy

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

from audits.answers import networks, one_digit, train, uses
from unweave.audits.classifier.probes import probe, probe_features, relearning, silhouettes


@pytest.fixture(scope="module")
def trained():
    """A network that never saw a 3, one that did, and the latter with the row of the class set to zero."""
    data = one_digit()
    use = torch.cat([uses(data, 1, "retain"), uses(data, 1, "retain", "forget")])
    retrained, original = train(networks(2, data, seed=0), data, use, data.labels.repeat(2, 1)).modules()
    hidden = copy.deepcopy(original)
    with torch.no_grad():
        hidden[2].weight[3] = 0
        hidden[2].bias[3] = 0
    return data, retrained, original, hidden


def test_relearning_is_faster_where_the_class_is_only_hidden(trained):
    data, retrained, original, hidden = trained
    steps = [relearning(model, data.cuts["forget"], device="cpu") for model in (original, hidden, retrained)]
    assert steps[0] == pytest.approx(1)
    assert steps[0] < steps[1] < 0.7 * steps[2]


def test_a_model_that_never_learns_takes_the_limit(trained):
    data, _, original, _ = trained
    stuck_model = copy.deepcopy(original)
    with torch.no_grad():
        stuck_model[2].bias[3] = -1e6
    assert relearning(stuck_model, data.cuts["forget"], device="cpu", limit=7) == pytest.approx(8)


def test_relearning_by_hand_for_one_rate(trained):
    data, retrained, _, _ = trained
    generator = torch.Generator().manual_seed(5)
    order = data.parts["forget"][torch.randperm(len(data.parts["forget"]), generator=generator)]
    model = copy.deepcopy(retrained)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    steps = 0
    while (model(data.inputs[order[10:]]).argmax(1) == 3).float().mean() < 0.5:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.inputs[order[:10]]), data.labels[order[:10]]).backward()
        optimizer.step()
        steps += 1
    assert 1 < steps < 100
    assert relearning(retrained, data.cuts["forget"], device="cpu", seed=5, rates=[0.05]) == pytest.approx(
        1 + steps
    )


@pytest.fixture(scope="module")
def halves(trained):
    """The features and labels of R and half of F, and those of the other half, of the network without a 3."""
    data, retrained, _, _ = trained
    generator = torch.Generator().manual_seed(0)
    retain, forget = (
        data.parts[part][torch.randperm(len(data.parts[part]), generator=generator)]
        for part in ("retain", "forget")
    )
    fit_half, probe_half = forget.tensor_split(2)
    with torch.no_grad():
        features = retrained[1](retrained[0](data.inputs)).double()
    fit_order = torch.cat([retain, fit_half])
    return features[fit_order], data.labels[fit_order], features[probe_half], data.labels[probe_half]


def test_the_linear_probe_is_sklearns_ridge(trained, halves):
    data, retrained, _, _ = trained
    fit, labels, queries, truth = halves
    scale = fit.square().mean().sqrt()
    ridge = Ridge(alpha=0.01 * len(fit), fit_intercept=False)
    ridge.fit(fit / scale, nn.functional.one_hot(labels, 10))
    expected = 100 * (ridge.predict(queries).argmax(1) == truth.numpy()).mean()
    assert 0 < expected < 100
    values = probe_features(retrained, data.cuts["forget"], data.cuts["retain"], device="cpu")
    assert values["probe"] == pytest.approx(expected)


def test_the_silhouette_by_hand(trained, halves):
    data, retrained, _, _ = trained
    fit, labels, queries, truth = (each.numpy() for each in halves)
    scale = fit.max(0) - fit.min(0)
    is_active = scale > 0  # a unit that is always off
    fit, queries = fit[:, is_active] / scale[is_active], queries[:, is_active] / scale[is_active]
    means = {label: fit[labels == label].mean(0) for label in set(labels.tolist())}
    values = []
    for point, label in zip(queries, truth.tolist(), strict=True):
        distances = {each: float(((point - mean) ** 2).sum() ** 0.5) for each, mean in means.items()}
        own_distance = distances.pop(label)
        other = min(distances.values())
        values.append((other - own_distance) / max(other, own_distance))
    probe_values = probe_features(retrained, data.cuts["forget"], data.cuts["retain"], device="cpu")
    assert probe_values["silhouette"] == pytest.approx(sum(values) / len(values))


def test_without_two_class_means_there_is_no_silhouette():
    fit, labels = torch.tensor([[0.0], [2.0], [4.0]]).double(), torch.tensor([0, 0, 1])
    queries, truth = torch.tensor([[1.5], [3.5], [9.0]]).double(), torch.tensor([0, 1, 2])
    assert silhouettes(fit, labels, queries, truth).tolist() == pytest.approx([0.8, 0.8, 0.0])
    assert silhouettes(fit[:2], labels[:2], queries, truth).tolist() == [0, 0, 0]
    assert silhouettes(0 * fit, labels, 0 * queries, truth).tolist() == [0, 0, 0]


def test_the_scale_of_a_unit_changes_no_silhouette(trained):
    data, _, original, _ = trained
    rescaled_model, k = copy.deepcopy(original), torch.linspace(0.02, 50, len(original[0].bias))
    with torch.no_grad():  # what a unit gives on is as before: ReLU keeps a positive factor
        rescaled_model[0].weight.mul_(k[:, None])
        rescaled_model[0].bias.mul_(k)
        rescaled_model[2].weight.div_(k)
    assert torch.allclose(rescaled_model(data.inputs), original(data.inputs), atol=1e-4)
    original_values, values = (
        probe_features(model, data.cuts["forget"], data.cuts["retain"], device="cpu")
        for model in (original, rescaled_model)
    )
    assert values["silhouette"] == pytest.approx(original_values["silhouette"], abs=1e-4)


def test_a_learned_class_has_the_larger_silhouette_in_wide_features(trained):
    data, retrained, original, _ = trained
    retrained_values, original_values = (
        probe_features(model, data.cuts["forget"], data.cuts["retain"], device="cpu")
        for model in (retrained, original)
    )
    assert original_values["silhouette"] > retrained_values["silhouette"] + 0.1


def test_a_head_that_hides_a_class_changes_no_probe_of_features(trained):
    data, _, original, hidden = trained
    original_values, values = (
        probe_features(model, data.cuts["forget"], data.cuts["retain"], device="cpu")
        for model in (original, hidden)
    )
    assert original_values == values


def test_models_are_left_as_they_were_and_the_same_seed_gives_the_same_number(trained):
    data, retrained, _, _ = trained
    model = nn.Sequential(*copy.deepcopy(retrained), nn.Dropout(0.5)).train()
    state = copy.deepcopy(model.state_dict())
    first, second = (probe(model, data.cuts, device="cpu") for _ in range(2))
    assert first == second
    assert set(first) == {"probe", "silhouette", "relearn"}
    assert model.training and model[3].training
    assert all((value == state[name]).all() for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert all(not module._forward_pre_hooks for module in model.modules())


def test_too_few_forget_examples_are_refused(trained):
    data, retrained, _, _ = trained
    with pytest.raises(ValueError, match="needs more than 10 forget examples, found 10"):
        relearning(retrained, (data, data.parts["forget"][:10]), device="cpu")
    for n in (1, 10):
        parts = {"forget": (data, data.parts["forget"][:n]), "retain": (data, data.parts["retain"])}
        with pytest.raises(ValueError, match=f"needs more than 10 forget examples, found {n}"):
            probe(retrained, parts, device="cpu")
