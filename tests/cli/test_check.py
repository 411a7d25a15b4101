"""`unweave check`: sizes, accuracies, what would go wrong, and costs; and it changes nothing."""

import json
import re
from pathlib import Path

import pytest

import projects
from projects import TRAINED, loads
from unweave.cli.checks import notes, rounds
from unweave.cli.checks.rounds import Estimate
from unweave.families import FAMILIES
from unweave.methods import methods_for

FEW = ("--methods", "finetune,salun", "--quiet")


def costs(text: str) -> dict[str, list[str]]:
    """The rows of the table of costs, by method."""
    table = text[text.index("Method ") : text.index("Seconds and range:")]
    return {name: cells for name, *cells in map(str.split, table.splitlines()[1:-1])}


@pytest.mark.usefixtures("rounds_of_users")
def test_sizes_and_costs_are_told_and_nothing_is_written(run, here, listed, tmp_path):
    place = projects.project(tmp_path / "mine", TRAINED)
    files = listed(tmp_path)
    result = run("check", place, "--ids", "r0/3,r0/5,r0/8", *FEW)
    assert result.code == 0 and result.error == "" and listed(tmp_path) == files
    weights = 8 * 32 + 32 + 32 * 3 + 3
    assert f"{place} can be used.\n" in result.out
    assert f"{weights} weights ({weights} trainable), float32, on cpu." in result.out
    sizes = "3 to forget, 87 to retain, 60 for calibration, 60 for test; 3 classes"
    assert f"{sizes}; examples are known by ids of their own." in result.out
    assert list(costs(result.out)) == ["retrain", "finetune", "salun"] and "Of a retrain" in result.out
    assert all(cells[-1] == "yes" for cells in costs(result.out).values())


def test_json_holds_the_same_as_the_text(run, here, tmp_path):
    place = projects.project(tmp_path / "mine", TRAINED)
    content = json.loads(run("check", place, "--ids", "r0/3,r0/5,r0/8", *FEW, "--json").out)
    text = run("check", place, "--ids", "r0/3,r0/5,r0/8", *FEW).out
    assert content["data"]["forget"] == 3 and content["data"]["retain"] == 87
    accuracy = content["accuracy"]
    assert f"UA: error on the forget set, %: {accuracy['ua']:.2f}\n" in text
    assert (
        f"TA: accuracy on the test set, %: {accuracy['ta']:.2f}\nAUC of membership: {accuracy['auc']:.3f}\n"
        in text
    )
    assert list(content["costs"]) == list(costs(text))
    assert "Peak MiB: the most memory in use at once" in text
    assert content["costs"]["retrain"]["cost"] == 1
    one, retrain_seconds = (content["costs"][name]["seconds"] for name in ("finetune", "retrain"))
    assert content["costs"]["finetune"]["cost"] == pytest.approx(one / retrain_seconds)


def test_json_says_that_not_all_examples_were_asked(run, here, tmp_path, monkeypatch):
    place = projects.project(tmp_path / "mine", TRAINED)
    command = ("check", place, "--ids", "r0/3,r0/5,r0/8", *FEW, "--json")
    assert json.loads(run(*command).out)["glance"] == ""
    monkeypatch.setattr("unweave.families.classifier.GLANCE", 20)
    assert json.loads(run(*command).out)["glance"].startswith("A glance at 20 examples of a part at most")


BUDGETED = """
[methods."lur:recover"]
lur.how.steps = 10
recover.budget = 90

[methods."lur-match:finetune"]
lur-match.forget.kind = "match"
lur-match.forget.proxy.how.steps = 30
finetune.how.steps = 40
"""
"""Tables of methods for a recipe."""


@pytest.mark.parametrize("method", ["finetune", "salun", "random-label", "shrink-perturb:lur-exact:finetune"])
def test_the_gradients_foreseen_are_those_spent(run, here, method, tmp_path):
    place = projects.project(tmp_path / "mine", TRAINED)
    request = ("--ids", "r0/3,r0/5", "--quiet", "--json")
    cost = json.loads(run("check", place, *request, "--methods", method).out)["costs"][method]
    result = json.loads(run("forget", place, *request, "--method", method).out)
    assert cost["gradients"] == pytest.approx(result["gradient_evaluations"]) and cost["gradients"] > 5


@pytest.mark.parametrize(("method", "gradients"), [("lur:recover", 90), ("lur-match:finetune", None)])
def test_budgets_of_recoveries_and_lengths_of_proxies_are_foreseen(run, here, method, gradients, tmp_path):
    place = Path(projects.recipe(tmp_path))
    place.write_text(place.read_text() + BUDGETED)
    request = ("--quiet", "--json")
    cost = json.loads(run("check", place, *request, "--methods", method).out)["costs"][method]
    result = json.loads(run("forget", place, "--random", 0.1, *request, "--method", method).out)
    assert cost["gradients"] == pytest.approx(gradients or result["gradient_evaluations"])
    assert result["gradient_evaluations"] <= cost["gradients"] + 1e-6


def test_the_default_is_foreseen_as_it_is_spent(run, here, tmp_path):
    place = projects.project(tmp_path / "mine", TRAINED)
    request, method_flag = ("--ids", "r0/3,r0/5", "--quiet", "--json"), ("--methods", "lur:recover")
    cost = json.loads(run("check", place, *request, *method_flag).out)["costs"]["lur:recover"]["gradients"]
    gradients = json.loads(run("forget", place, *request).out)["gradient_evaluations"]
    # 30 steps of three gradients, two that measure alpha, and 15 passes of one batch
    assert cost == pytest.approx(3 * 30 + 2 + 15) and gradients == pytest.approx(cost)


def test_a_recovery_that_ends_once_the_model_is_restored_is_foreseen_at_its_most(run, here, tmp_path):
    place, method = Path(projects.recipe(tmp_path)), ("--methods", "finetune:recover", "--quiet")
    table = {"finetune.how.steps": 10, "recover.until.near": 100.0, "recover.how.steps": 40}
    lines = "".join(f"{path} = {value}\n" for path, value in table.items())
    place.write_text(f'{place.read_text()}\n[methods."finetune:recover"]\n{lines}')
    cost = json.loads(run("check", place, *method, "--json").out)["costs"]["finetune:recover"]["gradients"]
    output = run("forget", place, "--random", 0.1, "--quiet", "--json", "--method", "finetune:recover").out
    assert cost == pytest.approx(10 + 40) and 10 < json.loads(output)["gradient_evaluations"] < 10 + 40
    assert "assumed to take its maximum" in run("check", place, *method).out


def test_where_nothing_says_what_to_forget_it_is_a_random_tenth(run, here, project):
    content = json.loads(run("check", project, "--methods", "finetune", "--quiet", "--json").out)
    assert (content["data"]["forget"], content["data"]["retain"]) == (9, 81)


def test_a_recipe_is_not_trained_and_has_no_accuracy(run, here, tmp_path):
    content = json.loads(run("check", projects.recipe(tmp_path), *FEW, "--json").out)
    assert content["accuracy"] is None and content["model"]["trained"] is False
    assert content["data"]["forget"] == 20  # the tenth of 200 that the recipe says
    assert content["costs"]["retrain"]["gradients"] == pytest.approx(60)  # its steps


def test_a_method_that_can_not_run_on_the_model_is_named_with_the_reason(run, here, project):
    result = run("check", project, "--methods", "ct,finetune", "--quiet")
    assert result.code == 0 and "can be used, but not with ct." in result.out
    assert costs(result.out)["ct"][-1] == "no" and costs(result.out)["finetune"][-1] == "yes"
    assert re.search(r"^ct: ct transposes .*: use another method$", result.out, re.MULTILINE)


@pytest.mark.usefixtures("rounds_of_users")
def test_what_a_retrain_would_cost_is_left_out_where_there_is_none(run, here, tmp_path):
    place = projects.project(tmp_path / "mine", "train = None")
    result = run("check", place, "--methods", "finetune")
    assert result.code == 0 and "Of a retrain" not in result.out
    assert "What a retrain costs is unknown: no train(dataset, seed)." in result.out
    assert result.error.splitlines() == ["Checking the model", *(f"{i}/3  finetune" for i in (1, 2, 3))]


@pytest.fixture
def priced(monkeypatch):
    """Prices that are known: seconds of a retrain, and of every method; gradients are ten times as many."""

    def fixed(retrain_seconds: float, **seconds: float) -> None:
        prices = {name.replace("__", ":").replace("_", "-"): each for name, each in seconds.items()}

        def estimate(name: str) -> Estimate:
            if name == "retrain":
                return Estimate(retrain_seconds, 10 * retrain_seconds, None)
            return Estimate(
                prices[name], 10 * prices[name], None, seconds_range=(prices[name] / 2, 2 * prices[name])
            )

        monkeypatch.setattr(
            rounds, "estimate_all", lambda methods, *_: {name: estimate(name) for name in methods}
        )

    return fixed


class TestRetrainingThatCostsLess:
    def test_it_is_said_first_and_by_how_much(self, run, here, project, priced):
        priced(10.0, lur=16.6, short_retrain=119.0, finetune=9.9)
        result = run("check", project, "--methods", "lur,short-retrain,finetune", "--quiet")
        sentence = (
            "Retraining costs less than lur (1.66 times a retrain) and short-retrain (11.90): use --method "
            "retrain, which is exact."
        )
        assert result.out.splitlines()[:3] == [sentence, "", f"{project} can be used."]

    def test_the_range_of_the_measurements_stands_beside_the_seconds(self, run, here, project, priced):
        priced(10.0, finetune=9.9)
        result = run("check", project, "--methods", "finetune", "--quiet")
        (line,) = re.findall("^finetune .*$", result.out, re.MULTILINE)
        assert line.split() == ["finetune", "9.9", "5.0", "to", "19.8", "0.99", "99", "–", "yes"]
        (retrain,) = re.findall("^retrain .*$", result.out, re.MULTILINE)
        assert retrain.split() == ["retrain", "10.0", "–", "1.00", "100", "–", "yes"]
        content = json.loads(run("check", project, "--methods", "finetune", "--quiet", "--json").out)
        assert content["costs"]["finetune"]["seconds_range"] == [4.95, 19.8]
        assert content["costs"]["retrain"]["seconds_range"] is None
        request = ("forget", project, "--random", 0.1, "--dry-run", "--quiet", "--method", "finetune")
        assert "with finetune in about 9.9 s (measured: 5.0 to 19.8; on a CPU, CPU time), and" in " ".join(
            run(*request).out.split()
        )

    def test_seconds_alone_are_uncertain(self, run, here, project, monkeypatch):
        def estimate(methods, *_: object) -> dict[str, Estimate]:
            method_estimate = Estimate(10.8, 31.0, None, seconds_range=(9.0, 30.0))
            retrain = Estimate(10.0, 100.0, None, seconds_range=(9.0, 12.0))
            return {name: retrain if name == "retrain" else method_estimate for name in methods}

        monkeypatch.setattr(rounds, "estimate_all", estimate)
        result = run("check", project, "--methods", "lur:recover", "--quiet")
        sentence = "Retraining may cost less than lur:recover (1.08 times a retrain): "
        assert result.out.startswith(sentence) and "--method retrain" not in result.out
        content = json.loads(run("check", project, "--methods", "lur:recover", "--quiet", "--json").out)
        assert content["costlier_than_a_retrain"] == []
        assert content["costs"]["lur:recover"]["costs_more"] is None

    def test_json_names_the_methods(self, run, here, project, priced):
        priced(10.0, lur=16.6, finetune=9.9)
        content = json.loads(run("check", project, "--methods", "lur,finetune", "--quiet", "--json").out)
        assert content["costlier_than_a_retrain"] == ["lur"]

    def test_a_method_that_costs_less_is_not_named(self, run, here, project, priced):
        priced(10.0, finetune=9.9)
        result = run("check", project, "--methods", "finetune", "--quiet")
        assert (
            result.out.startswith(f"{project} can be used.\n") and "Retraining costs less" not in result.out
        )

    def test_where_nobody_said_how_to_retrain_nothing_is_said(self, run, here, tmp_path):
        place = projects.project(tmp_path / "mine", "train = None")
        content = json.loads(run("check", place, "--methods", "finetune", "--quiet", "--json").out)
        assert content["costlier_than_a_retrain"] == []

    @pytest.mark.parametrize(("retrain_seconds", "is_said"), [(10.0, True), (20.0, False)])
    def test_a_dry_run_says_it_too(self, run, here, project, priced, retrain_seconds, is_said):
        priced(retrain_seconds, lur__recover=16.6, finetune=9.9)
        request = ("forget", project, "--random", 0.1, "--dry-run", "--quiet")
        result, content = run(*request), json.loads(run(*request, "--json").out)
        sentence = "Retraining costs less than lur:recover (1.66 times a retrain): use --method retrain"
        assert result.out.startswith(sentence) == is_said
        assert result.out.splitlines()[2 if is_said else 0].startswith(
            "Would forget 9 of 90 examples with lur:recover"
        )
        assert content["costlier_than_a_retrain"] == (["lur:recover"] if is_said else [])

    def test_a_dry_run_of_retraining_compares_with_nothing(self, run, here, project, priced):
        priced(0.0)
        result = run("forget", project, "--random", 0.1, "--dry-run", "--quiet", "--method", "retrain")
        assert result.code == 0 and result.out.startswith("Would forget 9 of 90 examples with retrain")


def test_a_few_methods_are_priced_by_default_and_the_others_counted(run, here, project):
    result = run("check", project, "--quiet")
    default_methods = ["lur:recover", "joint:recover", "neggrad+:recover", "finetune"]
    assert list(costs(result.out)) == ["retrain", *default_methods]
    n_others = len(methods_for("classifier").keys() - {"original", "retrain", "finetune"})
    sentence = f"{n_others} other methods were not measured: --methods all measures them too."
    assert sentence in " ".join(result.out.split())
    for family in FAMILIES.values():
        assert all(family.method_named(name) for name in family.usual_methods)


def test_all_methods_but_the_references_are_priced(run, here, project):
    estimates = json.loads(run("check", project, "--methods", "all", "--quiet", "--json").out)["costs"]
    assert estimates.keys() == (
        methods_for("classifier").keys() | {*FAMILIES["classifier"].usual_methods}
    ) - {"original"}
    assert [name for name, each in estimates.items() if each["refused"]] == ["ct", "unsir"]


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (
            "train = None",
            r"no train\(dataset, seed\): references can't be retrained, so an audit will be INCONCL",
        ),
        (loads("given(model=Net(dropout=0.5))"), "1 dropout layer: off while unlearning"),
        (
            loads("given(test=Records(90, 0))"),
            "90 test examples are training examples as well, first 'r0/0': the model has seen them",
        ),
        (loads("given(train=Records(90, 0, classes=2))"), "labels .* that no training example has: 2"),
        (loads("given(train=Twice())"), "90 training examples are copies of others, first 'r0/0'"),
        (loads("given(model=half_frozen())"), "74% of the weights are frozen, first 'first.weight'"),
        (loads("given(model=Net(torch.bfloat16))"), "in bfloat16, .* load the model in float32"),
        (loads("given(model=Probable())"), "the outputs of each example are probabilities"),
        (loads("given(model=Noisy())"), r"two passes in evaluation mode differ by .* will not repeat"),
    ],
)
def test_what_would_go_wrong_is_noted(run, here, tmp_path, change, note):
    place = projects.project(tmp_path / "mine", f"{ODD}\n\n{change}")
    result = run("check", place, "--methods", "finetune", "--quiet")
    assert result.code == 0
    (sentence,) = re.findall(r"^- (.*)$", result.out, re.MULTILINE)
    assert re.search(note, sentence) and "No problem was found" not in result.out


class TestInfluence:
    """Trained, the model has memorised wrong labels; untrained, it answers all data alike."""

    NOTE = "- the model answers the forget set as data that it never saw: probably the forget set has no"

    def test_a_request_whose_records_look_unseen_is_noted(self, run, here, project):
        result = run("check", project, "--random", 0.2, "--methods", "finetune", "--quiet")
        assert self.NOTE in " ".join(result.out.split()) and "No problem was found" not in result.out

    @pytest.mark.parametrize(
        ("change", "asked"),
        [(TRAINED, ("--random", 0.4)), ("", ("--class", 0)), ("", ())],
    )
    def test_memorised_records_a_class_and_no_request_are_not(self, run, here, tmp_path, change, asked):
        place = projects.project(tmp_path / "trained", change)
        result = run("check", place, *asked, "--methods", "finetune", "--quiet")
        assert result.code == 0 and self.NOTE not in " ".join(result.out.split())


def test_too_many_examples_to_compare_are_noted(run, here, project, monkeypatch):
    monkeypatch.setattr(notes, "COMPARED", 80)
    result = run("check", project, "--methods", "finetune", "--quiet")
    output = " ".join(result.out.split())
    assert (
        "- copies among the 90 training examples, and test examples that are training examples as well"
        in output
    )
    assert "were not looked for: check compares at most 80 training examples" in output


def test_where_nothing_is_noted_that_is_said(run, here, project):
    result = run("check", project, "--methods", "finetune", "--quiet")
    assert "No problem was found." in result.out and "\n- " not in result.out


def test_out_keeps_what_was_found_and_the_same_again_goes_there(run, here, project):
    for _ in range(2):
        result = run("check", project, "--methods", "finetune", "--quiet", "--json", "--out", "kept")
        assert sorted(path.name for path in (here / "kept").iterdir()) == ["check.json", "run.json"]
        assert json.loads((here / "kept" / "check.json").read_text()) == json.loads(result.out)
    assert [path.name for path in here.iterdir()] == ["kept"]


ODD = """
class Twice(Records):
    def __init__(self):
        super().__init__(90, 0)
        self.x, self.labels = self.x.repeat(2, 1), self.labels.repeat(2)


class Probable(Net):
    def forward(self, x, scale):
        return super().forward(x, scale).softmax(-1)


class Noisy(Net):
    def forward(self, x, scale):
        return super().forward(x, scale) + torch.rand(1)


def half_frozen():
    model = Net()
    model.first.requires_grad_(False)
    return model
"""
