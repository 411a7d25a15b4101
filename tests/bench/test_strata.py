"""Strata: forget sets that label noise or trained models choose, the same ones every time."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.tiny import tiny
from every_family import Toy
from unweave.audits.classifier.probes import features_of
from unweave.bench import stage as stages
from unweave.bench import stage_jobs, strata
from unweave.bench.bench import bench
from unweave.bench.cell import cell_key
from unweave.bench.recipe import Recipe
from unweave.bench.setup import Data
from unweave.bench.split_data import make_split
from unweave.bench.stage import CHOOSERS, Stage
from unweave.bench.stage_jobs import forget_set_jobs
from unweave.bench.strata import (
    TRAINED,
    choose,
    choose_hardest,
    lowest_positions,
    mean_nearest_distance,
    silhouette,
)
from unweave.data.datasets import load
from unweave.descent.train import train_model
from unweave.split import Split

DATA = {"name": "digits", "limit": 300, "noise": 0.2, "folds": 3}


def of(forget: str, **data: object) -> Recipe:
    return tiny(data={**DATA, "forget": forget, **data})


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test loads and chooses anew, as another process would."""
    monkeypatch.setattr(stages, "_splits", {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for stages whose models are the same."""
    return tmp_path_factory.mktemp("strata")


def noisy_rows(split: Split) -> Tensor:
    """Whose labels the noise moved."""
    clean, _ = load("digits", limit=300)
    return split.train.labels != clean.labels


def losses(recipe: Recipe) -> Tensor:
    """The held-out loss of every training example, from models trained by hand."""
    split = make_split(replace(recipe.data, forget="random"))
    values = torch.zeros(300, dtype=torch.float64)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    for fold in order.tensor_split(3):
        fold_split = Split(split.train, fold, split.held_out)
        model = train_model(recipe.train, lambda: recipe.build(10), fold_split, "retain", CHOOSERS).model
        ((batch),) = split.train.stream([fold])
        with torch.no_grad():
            chances = model(*batch.inputs).double().softmax(1)
        values[fold] = -chances[torch.arange(len(fold)), batch.label].log()
    return values


# --- by label noise


def test_mislabelled_examples_all_have_a_moved_label() -> None:
    split = make_split(Data("digits", noise=0.2, forget="mislabelled", fraction=0.1, limit=300))
    assert len(split.forget) == 30 and bool(noisy_rows(split)[split.forget].all())


def test_all_that_are_mislabelled_can_be_forgotten() -> None:
    split = make_split(Data("digits", noise=0.2, forget="mislabelled", fraction=0.2, limit=300))
    assert torch.equal(split.forget, noisy_rows(split).nonzero()[:, 0])


def test_mislabelled_examples_are_chosen_by_the_seed() -> None:
    data = Data("digits", noise=0.2, forget="mislabelled", limit=300)
    assert (
        make_split(data).digest()
        == make_split(data).digest()
        != make_split(replace(data, seed=1000)).digest()
    )


@pytest.mark.parametrize(("noise", "fraction"), [(0.0, 0.1), (0.05, 0.1)])
def test_more_mislabelled_examples_than_there_are_are_refused(noise: float, fraction: float) -> None:
    with pytest.raises(ValueError, match=f"{noise} of all, found fraction = {fraction}: set more noise"):
        Data("digits", noise=noise, forget="mislabelled", fraction=fraction)


# --- by trained models


def test_memorized_examples_have_the_highest_held_out_losses_and_generalized_the_lowest(folder: Path) -> None:
    score = losses(of("memorized"))
    for name, sign in (("memorized", 1), ("generalized", -1)):
        split = Stage(of(name), folder).split()
        assert len(split.forget) == 30
        assert (sign * score[split.forget]).min() >= (sign * score[split.retain]).max()


def test_memorized_examples_are_mostly_those_with_a_moved_label(folder: Path) -> None:
    memorized, generalized = (Stage(of(name), folder).split() for name in ("memorized", "generalized"))
    assert noisy_rows(memorized)[memorized.forget].double().mean() > 0.8  # of all it is a fifth
    assert not bool(noisy_rows(generalized)[generalized.forget].any())


def test_entangled_examples_are_by_features_nearest_to_other_classes(folder: Path) -> None:
    recipe = of("entangled")
    split = Stage(recipe, folder).split()
    model = train_model(recipe.train, lambda: recipe.build(10), split, "mixed", CHOOSERS).model
    features = features_of(model, (split.train, torch.arange(300)), "cpu").numpy()
    score = torch.tensor(by_hand(features, split.train.labels.numpy(), 10))
    assert score[split.forget].max() <= score[split.retain].min() and len(split.forget) == 30


def test_a_worst_case_is_known_better_by_a_model_without_it_than_what_generalizes_alone(folder: Path) -> None:
    def left(name: str) -> float:
        stage = Stage(of(name, fraction=0.4), folder)
        split = stage.split()
        model = stage.train_on(split, "retain", CHOOSERS).model
        return float(strata.losses_of(model, split.train, split.forget).mean())

    assert left("worst-case") <= left("generalized") < left("random") < left("memorized")


def by_hand(features: np.ndarray, labels: np.ndarray, neighbours: int) -> list[float]:
    """The silhouette of each row, one pair at a time."""
    silhouettes = []
    for i, (row, label) in enumerate(zip(features, labels, strict=True)):
        distances = np.linalg.norm(features - row, axis=1)
        is_other = np.arange(len(labels)) != i
        a = np.sort(distances[(labels == label) & is_other])[:neighbours].mean()
        b = np.sort(distances[labels != label])[:neighbours].mean()
        silhouettes.append((b - a) / max(a, b))
    return silhouettes


def test_a_silhouette_against_one_pair_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (50,), generator=generator)
    features = torch.randn(50, 4, generator=generator, dtype=torch.float64) + labels[:, None]
    monkeypatch.setattr(strata, "ROWS", 7)
    silhouettes = silhouette(features, labels, 5)
    torch.testing.assert_close(silhouettes, torch.tensor(by_hand(features.numpy(), labels.numpy(), 5)))


def test_silhouettes_on_a_line() -> None:
    # classes 0 0 0 1 1 at 0 1 2 6 8; one neighbour each
    features = torch.tensor([[0.0], [1.0], [2.0], [6.0], [8.0]], dtype=torch.float64)
    silhouettes = silhouette(features, torch.tensor([0, 0, 0, 1, 1]), 1)
    assert silhouettes.tolist() == pytest.approx([1 - 1 / 6, 1 - 1 / 5, 1 - 1 / 4, 1 - 2 / 4, 1 - 2 / 6])


def test_twins_of_another_class_and_the_only_one_of_a_class_are_entangled() -> None:
    features = torch.tensor([[0.0], [0.0], [5.0], [5.0], [9.0]], dtype=torch.float64)
    silhouettes = silhouette(features, torch.tensor([0, 1, 0, 1, 2]), 1)
    assert silhouettes.tolist() == [-1.0] * 5
    assert mean_nearest_distance(torch.full((1, 3), torch.inf, dtype=torch.float64), 2).tolist() == [
        torch.inf
    ]


class Told(nn.Module):
    """Answers with the given loss for the example of each number, of two classes."""

    def __init__(self, losses: Tensor) -> None:
        super().__init__()
        self.losses = nn.Parameter(losses)

    def forward(self, x: Tensor) -> Tensor:
        p_true = (-self.losses[x[:, 0].long()]).exp()
        return torch.stack([p_true, 1 - p_true], 1).log()


def test_the_worst_case_is_looked_for_in_turns() -> None:
    train = Toy((torch.arange(5.0)[:, None],), torch.zeros(5, dtype=torch.long))
    first_losses = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    # without 0 and 1 the loss of 1 is high, so that 2 takes its place, and without 0 and 2 both are known
    losses_without = {(0, 1): [0.1, 0.9, 0, 0, 0], (0, 2): [0.1, 0, 0.2, 0, 0]}
    forget_sets: list[tuple[int, ...]] = []

    def learn(split: Split, part: str) -> nn.Module:
        assert part == "retain"
        forget_sets.append(tuple(split.forget.tolist()))
        return Told(torch.tensor(losses_without[forget_sets[-1]]))

    assert choose_hardest(train, train, first_losses.double(), 2, learn).tolist() == [0, 2]
    assert forget_sets == [(0, 1), (0, 2)]  # and then it stays as it is


def test_the_best_round_of_a_worst_case_is_kept() -> None:
    train = Toy((torch.arange(3.0)[:, None],), torch.zeros(3, dtype=torch.long))

    def learn(split: Split, part: str) -> nn.Module:
        is_first = split.forget.tolist() == [0]
        return Told(torch.tensor([0.4, 0.7, 0.7]) if is_first else torch.tensor([0.9, 0.9, 0.9]))

    scores = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    assert choose_hardest(train, train, scores, 1, learn).tolist() == [0]


def test_of_equal_scores_the_first_are_chosen() -> None:
    assert lowest_positions(torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64), 3).tolist() == [
        0,
        1,
        4,
    ]


@pytest.mark.parametrize("change", [{"fraction": 0.001}, {"folds": 301}])
def test_an_empty_stratum_or_fold_is_refused_before_any_training(change: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a stratum needs an example, and so does each of"):
        Stage(of("memorized", **change), tmp_path).split()
    assert not list(tmp_path.rglob("*.safetensors"))


def test_other_forget_sets_are_none_of_trained_models() -> None:
    data = Data("digits", forget="class")
    with pytest.raises(ValueError, match="expected one of memorized, .* found 'class'"):
        choose(data, *load("digits"), seed=0, learn=lambda split, part: nn.Linear(1, 1))


# --- kept, and the same every time


@pytest.mark.parametrize("name", TRAINED)
def test_another_folder_finds_the_same(name: str, folder: Path, tmp_path: Path) -> None:
    ours = Stage(of(name), folder).split().forget
    stages._splits.clear()
    assert torch.equal(Stage(of(name), tmp_path).split().forget, ours)
    assert torch.equal(torch.tensor(json.loads((tmp_path / "strata/tiny.json").read_text())["ids"]), ours)


def test_a_choice_is_read_and_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Stage(of("memorized"), tmp_path).split().forget
    stages._splits.clear()
    monkeypatch.setattr(strata, "choose", None)
    assert torch.equal(Stage(of("memorized"), tmp_path).split().forget, ours)


def test_under_a_raised_number_a_choice_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Stage(of("memorized"), tmp_path).split().forget
    stages._splits.clear()
    monkeypatch.setattr(strata, "choose", lambda *_, **__: ours[1:])
    monkeypatch.setattr(stages, "CHOOSING_FORMAT", stages.CHOOSING_FORMAT + 1)
    assert torch.equal(Stage(of("memorized"), tmp_path).split().forget, ours[1:])


def test_what_is_interrupted_loses_no_model(tmp_path: Path, folder: Path, monkeypatch) -> None:
    digests: list[str] = []
    train = stages.train_model

    def stopped(how, build, split, part, seed, **rest):
        if len(digests) == 2:
            raise KeyboardInterrupt
        digests.append(split.digest(part))
        return train(how, build, split, part, seed, **rest)

    monkeypatch.setattr(stages, "train_model", stopped)
    with pytest.raises(KeyboardInterrupt):
        Stage(of("memorized"), tmp_path).split()
    models = {path: path.stat().st_mtime_ns for path in (tmp_path / "models").rglob("*.safetensors")}
    assert len(models) == 2 and not (tmp_path / "strata").exists()
    monkeypatch.setattr(stages, "train_model", train)
    forget_order = Stage(of("memorized"), tmp_path).split().forget
    assert {path: path.stat().st_mtime_ns for path in models} == models
    assert len(list((tmp_path / "models").rglob("*.safetensors"))) == 3
    stages._splits.clear()
    assert torch.equal(Stage(of("memorized"), folder).split().forget, forget_order)


def test_what_is_chosen_is_part_of_the_key_of_a_cell(folder: Path) -> None:
    keys = {cell_key(Stage(of(name), folder), 0, "x") for name in (*TRAINED, "mislabelled", "random")}
    assert len(keys) == 6


def test_another_training_chooses_anew(folder: Path) -> None:
    ours, other_stage = (
        of("memorized"),
        tiny(data={**DATA, "forget": "memorized"}, train={"lr": 0.1, "steps": 90}),
    )
    forget_orders = [Stage(each, folder).split().forget for each in (ours, other_stage)]
    assert not torch.equal(*forget_orders)


def test_a_search_practises_on_what_a_stratum_leaves(folder: Path) -> None:
    stage = Stage(of("memorized"), folder)
    assert not set(stage.split(1000).forget.tolist()) & set(stage.split().forget.tolist())
    assert torch.equal(stage.split(1000).test, stage.split().test)


# --- in a benchmark


def test_a_record_names_what_trained_models_chose(folder: Path) -> None:
    stage = bench([of("memorized")], folder, methods=["finetune"], jobs=1)["stages"]["tiny"]
    assert stage["data"]["forget_ids"] == Stage(of("memorized"), folder).split().forget.tolist()
    assert stage["recipe"]["data"]["forget"] == "memorized" and stage["methods"]["finetune"]["failed"] is None


def test_stages_that_share_models_choose_one_after_the_other(tmp_path: Path) -> None:
    recipes = [replace(of(name), name=name) for name in ("memorized", "random", "worst-case")]
    other = replace(of("memorized", seed=4), name="other")
    jobs = forget_set_jobs([Stage(each, tmp_path) for each in (*recipes, other)])
    assert [job.label for job in jobs] == [
        "memorized, worst-case, forget set",
        "other, forget set",
    ]
    stage_jobs.choose_forget_sets(jobs[1].arguments[0])
    assert (tmp_path / "strata" / "other.json").exists()


def test_without_a_benchmark_there_is_nobody_to_choose() -> None:
    with pytest.raises(ValueError, match="forget = 'memorized' needs models that only a benchmark trains"):
        make_split(of("memorized").data)


def test_unknown_strata_name_the_nearest() -> None:
    for typo, right in (
        ("memorised", "memorized"),
        ("worstcase", "worst-case"),
        ("mislabeled", "mislabelled"),
    ):
        with pytest.raises(
            ValueError, match=f"data.forget must be .* found '{typo}' .did you mean '{right}'"
        ):
            of(typo)
    with pytest.raises(ValueError, match="folds must be at least 2, found 1"):
        of("memorized", folds=1)
