"""An audit that attacks: an attack takes a PASS away, controls make it invalid, and all is in the record."""

import json
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

import unweave
from audits.answers import draw_evidence, take
from audits.attacks.toy import CALIBRATION, ORIGINAL, PLAIN, REFERENCES, answers, case, mean_of_forget
from for_each import for_each
from unweave.audits.answers import Answers
from unweave.audits.attack import EVENTS, Check
from unweave.audits.attack_runs import controls
from unweave.audits.attack_runs.compare import AuditedModels, figures_of, findings, null_of
from unweave.audits.attack_runs.controls import constant_answers, random_answers, run_controls
from unweave.audits.attack_runs.plan import Plan, Request, plan_attacks
from unweave.audits.attack_runs.power import DETECTABLE, chance_error, deviations
from unweave.audits.attack_runs.run import results_of, run_attacks
from unweave.audits.attack_runs.verdict import judge_with_attacks
from unweave.audits.attacks import ATTACKS
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.pictures import Pictures, png_of_levels
from unweave.audits.verdict import Judgement, Verdict
from unweave.record import record
from unweave.report import attack_tables, figures, html, tables

PASSED = Judgement(Verdict.PASS, "PASS: all is equal", {}, {})


def audit(model: Evidence, attacks: str | None = "default", references=REFERENCES, **more):
    return unweave.audit(
        model, references, calibration=CALIBRATION, original=ORIGINAL, attacks=attacks, **more
    )


def run_named(attacks: str, model: Evidence, faults=lambda answers, references: []):
    plan = plan_attacks(Request(attacks), retrained=10, has_models=False)
    return run_attacks(plan, case(model), faults)


@pytest.fixture(scope="module")
def passed():
    return audit(answers(50))


def attacks_of(result) -> dict:
    return result.record["stages"]["audit"]["attacks"]


def test_a_genuine_retrain_passes_and_what_ran_and_did_not_is_said(passed) -> None:
    assert passed.verdict is Verdict.PASS, passed.reason
    assert "attacks that find nothing: " in passed.reason
    attacks = attacks_of(passed)
    names = {row["attack"] for row in attacks["results"]}
    assert names | attacks["not_run"].keys() == ATTACKS.keys() and not names & attacks["not_run"].keys()
    assert (
        attacks["valid"] is True and attacks["tier"] == 2 and attacks["claim"].startswith("T2, 10 retrained")
    )
    assert [each["expected"] for each in attacks["controls"]] == ["passes", "fails", "fails", "fails"]
    assert attacks["power"].startswith("With 120 records the smallest shift that shows is 0.0")


def run_with_check(check: Check, **more):
    """The report of an attack that says this about its own figures."""
    attack = replace(PLAIN, check=lambda model, original: check, **more)
    models = case(answers(50))
    models = replace(models, unlearned=replace(models.unlearned, measurements={"plain": {}}))
    return run_attacks(Plan(Request(), [attack], {}), models, lambda answers, references: [])


def test_an_attack_whose_control_fails_is_not_run_and_takes_a_pass_away() -> None:
    report = run_with_check(Check(False, "it is invalid: its control finds 9 of 10"))
    assert report.results == {} and report.notes == {} and report.pictures == []
    assert report.plan.not_run == {"plain": "it is invalid: its control finds 9 of 10"}
    judgement = judge_with_attacks(PASSED, replace(report, controls=()))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.reason.endswith("no attack was run: plain: it is invalid: its control finds 9 of 10")


def test_an_attack_whose_control_holds_keeps_its_note_and_its_pictures() -> None:
    pictures = Pictures("7: re-identified", {"record": png_of_levels([0, 9], (1, 1, 2))})
    attacks = run_with_check(Check(True, "its control finds none"), draw=lambda model: [pictures]).as_record()
    assert [row["figure"] for row in attacks["results"]] == ["mean"]
    assert attacks["notes"] == {"plain": "its control finds none"}
    assert attacks["pictures"] == [
        {"attack": "plain", "title": pictures.title, "images": dict(pictures.images)}
    ]
    assert "its control finds none" in attack_tables.sentences(attacks)


def test_the_curve_behind_a_figure_is_kept_of_every_model_and_drawn() -> None:
    def examined(model: Answers, level: float) -> Answers:
        return replace(model, measurements={"plain": {"level": [level]}})

    models = case(answers(50), REFERENCES[:2], [])
    assert models.original is not None
    models = replace(
        models,
        unlearned=examined(models.unlearned, 0.5),
        original=examined(models.original, 0.9),
        retrained=[examined(each, 0.1) for each in models.retrained],
    )
    attack = replace(PLAIN, curves=lambda model: {"mean": [0.0, *model.measurements["plain"]["level"]]})
    attacks = run_attacks(Plan(Request(), [attack], {}), models, lambda answers, references: []).as_record()
    assert attacks["curves"] == [
        {
            "attack": "plain",
            "figure": "mean",
            "model": [0, 0.5],
            "original": [0, 0.9],
            "retrained": [[0, 0.1]] * 2,
        }
    ]
    (picture,) = figures.attack_curves({"attacks": attacks}).values()
    empty = {"attack": "plain", "figure": "mean", "model": [], "original": None, "retrained": []}
    (empty_picture,) = figures.attack_curves({"attacks": {"curves": [empty]}}).values()
    assert picture.count("stroke-width: 0.7") == 2 and "stroke-width: 0.7" not in empty_picture
    assert "the model, the original and retrained models" in picture
    del attacks["curves"]  # a record made before there were curves
    assert figures.attack_curves({"attacks": attacks}) == {}


def test_without_attacks_nothing_changes(passed) -> None:
    result = audit(answers(50), attacks=None)
    assert "attacks" not in result.record["stages"]["audit"]
    assert passed.reason.startswith(result.reason) and passed.scores.keys() == result.scores.keys()


def test_an_attack_takes_a_pass_away() -> None:
    report = run_named("forget-vs-unseen", answers(50, lift=1.0))
    judgement = judge_with_attacks(PASSED, report)
    assert judgement.verdict is Verdict.FAIL
    assert judgement.reason.startswith("FAIL: under-forgetting: the attack forget-vs-unseen finds ")
    opposite_judgement = judge_with_attacks(PASSED, run_named("forget-vs-unseen", answers(50, lift=-1.5)))
    assert opposite_judgement.reason.startswith("FAIL: over-forgetting: the attack forget-vs-unseen finds ")


def test_an_attack_gives_no_pass() -> None:
    report = run_named("forget-vs-unseen", answers(50))
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        judgement = Judgement(verdict, f"{verdict}: of the metrics", {}, {})
        assert judge_with_attacks(judgement, report) == judgement


def test_a_finding_is_named_where_the_verdict_is_inconclusive_and_changes_no_fail() -> None:
    report = replace(run_named("forget-vs-unseen", answers(50, lift=1.0)), controls=())
    judgement = judge_with_attacks(Judgement(Verdict.INCONCLUSIVE, "INCONCLUSIVE: few seeds", {}, {}), report)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.reason.startswith(
        "INCONCLUSIVE: few seeds; under-forgetting: the attack forget-vs-unseen finds "
    )
    failure = Judgement(Verdict.FAIL, "FAIL: so", {}, {})
    assert judge_with_attacks(failure, report) == failure


def test_what_examining_the_models_took_is_said() -> None:
    attacks = run_with_check(Check(True, "fine"), examine=lambda subject: {}, gradients=500).as_record()
    assert attacks["spent"] == (
        "Examining 24 models took about 12,000 gradient evaluations; of each model: plain 500."
    )
    assert attacks["spent"] in attack_tables.sentences(attacks)
    silent_attacks = run_with_check(Check(True, "fine")).as_record()
    assert silent_attacks["spent"] == "" and "" not in attack_tables.sentences(silent_attacks)


class TestControls:
    def test_an_audit_that_fails_genuine_retrains_is_invalid(self):
        report = run_named("forget-vs-unseen", answers(50), lambda answers, references: ["UA"])
        assert report.valid is False
        for verdict in (Verdict.PASS, Verdict.FAIL):
            judgement = judge_with_attacks(Judgement(verdict, f"{verdict}: so", {}, {}), report)
            assert judgement.verdict is Verdict.INCONCLUSIVE
            assert judgement.reason == (
                "INCONCLUSIVE: the audit is invalid: 10 of 10 genuine retrains are told from other retrained "
                "models by UA"
            )

    def test_an_audit_that_passes_the_original_or_a_broken_model_is_invalid(self):
        models = replace(case(answers(50)), original=case(answers(60)).unlearned)
        results = {each.name: each for each in run_controls(models, [], lambda answers, references: [])}
        assert results["a genuine retrain"].is_right
        for name in ("the original", "a constant model", "a random model"):
            assert (
                not results[name].is_right
                and results[name].says == f"nothing tells {name} from retrained models"
            )

    def test_two_retrains_of_ten_may_fail_and_not_three(self):
        for n_wrong, is_right in ((2, True), (3, False)):
            ids = {id(each) for each in REFERENCES[:n_wrong]}
            faults = lambda answers, references, ids=ids: ["UA"] * (id(answers) in ids)  # noqa: E731
            first = controls.retrain_control(case(answers(50)), [], faults)
            assert first.is_right is is_right and first.name == f"{n_wrong} of 10 genuine retrains"

    def test_the_figures_of_retrains_are_computed_once(self):
        figures = Mock(side_effect=mean_of_forget)
        models, attack = case(answers(50)), replace(PLAIN, figures=figures)
        nulls = [(attack, null_of(attack, models))]
        figures.reset_mock()
        assert controls.retrain_control(models, nulls, lambda answers, references: []).is_right
        assert figures.call_count == 0

    def test_without_the_models_of_a_verdict_none_runs(self):
        assert run_controls(case(answers(50), REFERENCES[:9]), [], lambda answers, references: []) == []

    def test_the_broken_models_know_nothing(self):
        for model in (constant_answers(ORIGINAL), random_answers(ORIGINAL)):
            labels, logits = model.labels["forget"], model.logits["forget"]
            true_logits = logits[np.arange(len(labels)), labels].mean()
            assert abs(true_logits - logits.mean()) < 3 * logits.std() / len(labels) ** 0.5 + 1e-9
            assert model.finite and not (model.logits["test"] == ORIGINAL.logits["test"]).all()


class TestPower:
    def test_the_standard_error_is_that_of_the_rank_test(self):
        assert chance_error(1000, 1000) == pytest.approx(0.0129, abs=1e-4)  # evaluation by simulation: 0.013
        rng = np.random.default_rng(0)
        areas = [(rng.normal(size=(40, 1)) > rng.normal(size=50)).mean() for _ in range(4000)]
        assert chance_error(40, 50) == pytest.approx(np.std(areas), rel=0.04)

    def test_a_shift_has_its_size_in_deviations(self):
        rng = np.random.default_rng(0)
        area = (rng.normal(0.3, size=400_000) > rng.normal(size=400_000)).mean()
        assert deviations(area - 0.5) == pytest.approx(0.3, abs=0.01)

    def test_the_two_models_alone_have_the_power_of_their_examples(self):
        attacks = attacks_of(audit(answers(50), references=[], tier=0))
        shift = DETECTABLE * chance_error(120, 120)
        assert f"the smallest shift that shows is {shift:.3f}" in attacks["power"] and attacks["tier"] == 0
        assert all(row["finding"] is None for row in attacks["results"]) and attacks["valid"] is None


class TestBadInput:
    def test_nothing_that_runs_is_no_pass(self):
        result = audit(answers(50), attacks="inversion")
        assert result.verdict is Verdict.INCONCLUSIVE
        assert result.reason.startswith("INCONCLUSIVE: no attack was run: inversion: it needs the models")

    def test_a_model_that_answers_nan_fails_as_before(self):
        broken_answers = answers(50)
        broken_answers.logits["test"][0, 0] = np.nan
        result = audit(broken_answers)
        assert result.verdict is Verdict.FAIL and "NaN" in result.reason
        assert attacks_of(result)["results"] == []
        assert "contain NaN" in attacks_of(result)["not_run"]["rmia"]

    def test_other_ids_are_refused(self):
        other = answers(51)
        ids = {**other.ids, "forget": other.ids["forget"] + 1}
        with pytest.raises(ValueError, match="must hold the same examples as the reference"):
            audit(answers(50), references=[*REFERENCES[:9], replace(other, ids=ids)])

    def test_a_reference_that_is_the_original_is_refused(self):
        with pytest.raises(ValueError, match="reference 3 answers as the original"):
            audit(answers(50), references=[*REFERENCES[:3], ORIGINAL, *REFERENCES[4:]])

    def test_a_tier_without_attacks_is_refused(self):
        with pytest.raises(ValueError, match="a tier and a budget are of attacks, found none"):
            audit(answers(50), attacks=None, tier=1)


class TestRecord:
    def test_it_is_written_and_read_and_old_records_stay_readable(self, passed, tmp_path):
        record.write(passed.record, tmp_path)
        (stage,) = record.load(tmp_path)["stages"].values()
        results = json.dumps(attacks_of(passed)["results"]).replace("NaN", "null")
        assert stage["attacks"]["results"] == json.loads(results)
        content = json.loads((tmp_path / record.FILE).read_text())
        del content["stages"]["audit"]["attacks"]
        record.validate(content)

    def test_an_unknown_key_is_refused(self, passed):
        stage = {**passed.record["stages"]["audit"]}
        stage["attacks"] = {**stage["attacks"], "more": 1}
        with pytest.raises(ValueError, match="attacks does not follow schema"):
            record.validate({**passed.record, "stages": {"audit": stage}})

    def test_every_report_has_one_table_of_attacks(self, passed):
        page, text, card = html.render(passed.record), str(passed), tables.markdown(passed.record)
        for form in (page, text, card):
            assert form.count("auc of modified entropy") == 1
            assert "The controls hold: " in form and "Not run: " in form and "smallest shift" in form
        assert ATTACKS["rmia"].cannot in page


def few_unseen(model: Evidence, attacks: str, n: int = 22):
    """An audit with few unseen examples."""
    subject, original = (take(each, calibration=slice(n)) for each in (model, ORIGINAL))
    models = [take(each, calibration=slice(n)) for each in (*REFERENCES, *CALIBRATION)]
    return unweave.audit(subject, models[:10], calibration=models[10:], original=original, attacks=attacks)


def test_a_rate_of_few_events_is_shown_but_not_judged_and_what_it_needs_is_named() -> None:
    result = few_unseen(answers(50), "default")
    assert result.verdict is Verdict.PASS, result.reason
    needs = "rmia (tpr at 10 % fpr) needs at least 200 unseen examples, found 22"
    assert "not judged: forget-vs-unseen (tpr at 10 % fpr) needs at least 100" in result.reason
    assert needs in result.reason
    attacks = attacks_of(result)
    row = next(
        row for row in attacks["results"] if (row["attack"], row["figure"]) == ("rmia", "tpr at 10 % fpr")
    )
    assert row["margin"] is None and row["finding"] is None and row["value"] >= 0
    assert attacks["unjudged"]["rmia (tpr at 10 % fpr)"] == "needs at least 200 unseen examples, found 22"
    assert "Inconclusive: rmia (tpr at 10 % fpr): it needs" in " ".join(attack_tables.sentences(attacks))


def test_a_figure_that_no_retrained_model_has_is_not_judged_and_its_attack_finds_nothing_by_silence() -> None:
    models = case(answers(50))

    def figures(model, references):
        assert PLAIN.figures is not None
        return PLAIN.figures(model, references) if model is models.unlearned else {}

    unjudged_attack = replace(PLAIN, name="alone", figures=figures)
    plans = [Plan(Request(), attacks, {}) for attacks in ([unjudged_attack, PLAIN], [unjudged_attack])]
    report, report_of_one = (run_attacks(plan, models, lambda answers, references: []) for plan in plans)
    assert report.judging == ["plain"] and report_of_one.judging == []
    pass_judgement = judge_with_attacks(PASSED, replace(report, controls=()))
    assert pass_judgement.reason.endswith("not judged: alone (mean) has no figure of a retrained model")
    judgement = judge_with_attacks(PASSED, replace(report_of_one, controls=()))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.reason.endswith("no attack could judge: alone (mean) has no figure of a retrained model")


def test_if_no_figure_can_be_judged_nothing_passes() -> None:
    attack = replace(PLAIN, fewest_unseen={"mean": 500})
    report = run_attacks(Plan(Request(), [attack], {}), case(answers(50)), lambda answers, references: [])
    judgement = judge_with_attacks(PASSED, replace(report, controls=()))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.reason.endswith(
        "no attack could judge: plain (mean) needs at least 500 unseen examples, found 120"
    )


def test_a_tail_of_a_few_forget_examples_is_no_finding() -> None:
    attack, tail = ATTACKS["streisand"], {}
    for count in (8, 60):
        model = answers(50)
        model.logits["forget"][:count] -= (
            40 * np.eye(model.n_classes, dtype=np.float32)[model.labels["forget"][:count]]
        )
        models = case(model)
        tail[count] = results_of(attack, models, null_of(attack, models))["tail"]
    assert tail[8].value == pytest.approx(8 / 120, abs=0.03) and tail[8].finding is None
    assert tail[8].margin >= EVENTS / 120 and tail[60].finding == "F stands out"


def drawn_models(seed: int, records: int, unseen: int) -> AuditedModels:
    """A genuine retrain with references, calibration models and original, of these numbers of examples."""
    rng = np.random.default_rng([seed, 5])
    base = draw_evidence(seed, {"forget": records, "retain": 10, "calibration": unseen, "test": 10})

    def noisy(lift: float = 0.0) -> Answers[Evidence]:
        noise = {part: rng.normal(size=each.shape) for part, each in base.logits.items()}
        noise["forget"][np.arange(records), base.labels["forget"]] += lift
        logits = {part: (each + noise[part]).astype(np.float32) for part, each in base.logits.items()}
        return Answers(replace(base, logits=logits))

    models = [noisy() for _ in range(23)]
    return AuditedModels(models[22], models[:10], models[10:22], noisy(3.0))


@pytest.mark.slow
@for_each("sizes", [(22, 22), (146, 22), (100, 100)])
def test_a_genuine_retrain_passes_at_any_size_and_the_original_is_found(sizes: tuple[int, int]) -> None:
    attacks = plan_attacks(Request(), retrained=10, has_models=False).attacks
    false_alarms, detections = [], []
    for seed in range(400):
        models = drawn_models(seed, *sizes)
        nulls = [(attack, null_of(attack, models)) for attack in attacks]
        assert models.original is not None
        for model, outcomes in ((models.unlearned, false_alarms), (models.original, detections)):
            outcomes.append(
                any(
                    findings(attack, figures_of(attack, model, models.retrained), null)
                    for attack, null in nulls
                )
            )
    assert np.mean(false_alarms) <= 0.05
    assert np.mean(detections) >= (1.0 if min(sizes) >= 100 else 0.95)
