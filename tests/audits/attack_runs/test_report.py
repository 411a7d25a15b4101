"""An audit that attacks: an attack takes a PASS away, controls make it invalid, and all is in the record."""

import json
from dataclasses import replace

import numpy as np
import pytest

import unweave
from audits.attacks.toy import CALIBRATION, ORIGINAL, PLAIN, REFERENCES, answers, case
from unweave.audits.attack import Check
from unweave.audits.attack_runs import controls
from unweave.audits.attack_runs.controls import constant_answers, random_answers, run_controls
from unweave.audits.attack_runs.plan import Plan, Request, plan_attacks
from unweave.audits.attack_runs.power import DETECTABLE, chance_error, deviations
from unweave.audits.attack_runs.report import judge_with_attacks, run_attacks
from unweave.audits.attacks import ATTACKS
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.pictures import Pictures, png_of_levels
from unweave.audits.verdict import Judgement, Verdict
from unweave.record import record
from unweave.report import attack_tables, html, tables

PASSED = Judgement(Verdict.PASS, "PASS: all is equal", {}, {})


def audit(model: Evidence, attacks: str | None = "default", references=REFERENCES, **more):
    return unweave.audit(
        model, references, calibration=CALIBRATION, original=ORIGINAL, attacks=attacks, **more
    )


def reported(attacks: str, model: Evidence, faults=lambda answers, references: []):
    plan = plan_attacks(Request(attacks), retrained=10, has_models=False)
    return run_attacks(plan, case(model), faults)


@pytest.fixture(scope="module")
def passed():
    return audit(answers(50))


def attacks_of(found) -> dict:
    return found.record["stages"]["audit"]["attacks"]


def test_a_genuine_retrain_passes_and_what_ran_and_did_not_is_said(passed) -> None:
    assert passed.verdict is Verdict.PASS, passed.reason
    assert "attacks that find nothing: " in passed.reason
    found = attacks_of(passed)
    run = {row["attack"] for row in found["results"]}
    assert run | found["not_run"].keys() == ATTACKS.keys() and not run & found["not_run"].keys()
    assert found["valid"] is True and found["tier"] == 2 and found["claim"].startswith("T2, 10 retrained")
    assert [each["expected"] for each in found["controls"]] == ["passes", "fails", "fails", "fails"]
    assert found["power"].startswith("With 120 records the smallest shift that shows is 0.0")


def checked(check: Check, **more):
    """The report of an attack that says this about its own figures."""
    attack = replace(PLAIN, check=lambda model, original: check, **more)
    models = case(answers(50))
    models = replace(models, unlearned=replace(models.unlearned, measurements={"plain": {}}))
    return run_attacks(Plan(Request(), [attack], {}), models, lambda answers, references: [])


def test_an_attack_whose_control_fails_is_not_run_and_takes_a_pass_away() -> None:
    found = checked(Check(False, "it is invalid: its control finds 9 of 10"))
    assert found.results == {} and found.notes == {} and found.pictures == {}
    assert found.plan.not_run == {"plain": "it is invalid: its control finds 9 of 10"}
    judged = judge_with_attacks(PASSED, replace(found, controls=()))
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert judged.reason.endswith("no attack was run: plain: it is invalid: its control finds 9 of 10")


def test_an_attack_whose_control_holds_keeps_its_note_and_its_pictures() -> None:
    shown = Pictures("7: re-identified", {"record": png_of_levels([0, 9], (1, 1, 2))})
    found = checked(Check(True, "its control finds none"), draw=lambda model: [shown]).as_record()
    assert [row["figure"] for row in found["results"]] == ["mean"]
    assert found["notes"] == {"plain": "its control finds none"}
    assert found["pictures"] == [{"attack": "plain", "title": shown.title, "images": dict(shown.images)}]
    assert "its control finds none" in attack_tables.sentences(found)


def test_without_attacks_nothing_changes(passed) -> None:
    plain = audit(answers(50), attacks=None)
    assert "attacks" not in plain.record["stages"]["audit"]
    assert passed.reason.startswith(plain.reason) and passed.scores.keys() == plain.scores.keys()


def test_an_attack_takes_a_pass_away() -> None:
    report = reported("forget-vs-unseen", answers(50, lift=1.0))
    found = judge_with_attacks(PASSED, report)
    assert found.verdict is Verdict.FAIL
    assert found.reason.startswith("FAIL: under-forgetting: the attack forget-vs-unseen finds ")
    other = judge_with_attacks(PASSED, reported("forget-vs-unseen", answers(50, lift=-1.5)))
    assert other.reason.startswith("FAIL: over-forgetting: the attack forget-vs-unseen finds ")


def test_an_attack_gives_no_pass() -> None:
    report = reported("forget-vs-unseen", answers(50))
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        before = Judgement(verdict, f"{verdict}: of the metrics", {}, {})
        assert judge_with_attacks(before, report) == before


class TestControls:
    def test_an_audit_that_fails_genuine_retrains_is_invalid(self):
        report = reported("forget-vs-unseen", answers(50), lambda answers, references: ["UA"])
        assert report.valid is False
        for verdict in (Verdict.PASS, Verdict.FAIL):
            found = judge_with_attacks(Judgement(verdict, f"{verdict}: so", {}, {}), report)
            assert found.verdict is Verdict.INCONCLUSIVE
            assert found.reason == (
                "INCONCLUSIVE: the audit is invalid: 10 of 10 genuine retrains are told from other retrained "
                "models by UA"
            )

    def test_an_audit_that_passes_the_original_or_a_broken_model_is_invalid(self):
        of = replace(case(answers(50)), original=case(answers(60)).unlearned)
        found = {each.name: each for each in run_controls(of, [], lambda answers, references: [])}
        assert found["a genuine retrain"].is_right
        for name in ("the original", "a constant model", "a random model"):
            assert (
                not found[name].is_right and found[name].says == f"nothing tells {name} from retrained models"
            )

    def test_two_retrains_of_ten_may_fail_and_not_three(self):
        for wrong, held in ((2, True), (3, False)):
            failing = {id(each) for each in REFERENCES[:wrong]}
            faults = lambda answers, references, failing=failing: ["UA"] * (id(answers) in failing)  # noqa: E731
            first = controls.retrain_control(case(answers(50)), [], faults)
            assert first.is_right is held and first.name == f"{wrong} of 10 genuine retrains"

    def test_without_the_models_of_a_verdict_none_runs(self):
        assert run_controls(case(answers(50), REFERENCES[:9]), [], lambda answers, references: []) == []

    def test_the_broken_models_know_nothing(self):
        for broken in (constant_answers(ORIGINAL), random_answers(ORIGINAL)):
            labels, logits = broken.labels["forget"], broken.logits["forget"]
            own = logits[np.arange(len(labels)), labels].mean()
            assert abs(own - logits.mean()) < 3 * logits.std() / len(labels) ** 0.5 + 1e-9
            assert broken.finite and not (broken.logits["test"] == ORIGINAL.logits["test"]).all()


class TestPower:
    def test_the_standard_error_is_that_of_the_rank_test(self):
        assert chance_error(1000, 1000) == pytest.approx(0.0129, abs=1e-4)  # evaluation by simulation: 0.013
        rng = np.random.default_rng(0)
        drawn = [(rng.normal(size=(40, 1)) > rng.normal(size=50)).mean() for _ in range(4000)]
        assert chance_error(40, 50) == pytest.approx(np.std(drawn), rel=0.04)

    def test_a_shift_has_its_size_in_deviations(self):
        rng = np.random.default_rng(0)
        area = (rng.normal(0.3, size=400_000) > rng.normal(size=400_000)).mean()
        assert deviations(area - 0.5) == pytest.approx(0.3, abs=0.01)

    def test_the_two_models_alone_have_the_power_of_their_examples(self):
        found = attacks_of(audit(answers(50), references=[], tier=0))
        shift = DETECTABLE * chance_error(120, 120)
        assert f"the smallest shift that shows is {shift:.3f}" in found["power"] and found["tier"] == 0
        assert all(row["finding"] is None for row in found["results"]) and found["valid"] is None


class TestBadInput:
    def test_nothing_that_runs_is_no_pass(self):
        found = audit(answers(50), attacks="inversion")
        assert found.verdict is Verdict.INCONCLUSIVE
        assert found.reason.startswith("INCONCLUSIVE: no attack was run: inversion: it needs the models")

    def test_a_model_that_answers_nan_fails_as_before(self):
        broken = answers(50)
        broken.logits["test"][0, 0] = np.nan
        found = audit(broken)
        assert found.verdict is Verdict.FAIL and "NaN" in found.reason
        assert attacks_of(found)["results"] == []
        assert "contain NaN" in attacks_of(found)["not_run"]["rmia"]

    def test_other_ids_are_refused(self):
        other = answers(51)
        ids = {**other.ids, "forget": other.ids["forget"] + 1}
        with pytest.raises(ValueError, match="must hold the same examples as the reference"):
            audit(answers(50), references=[*REFERENCES[:9], replace(other, ids=ids)])

    def test_one_class_is_refused(self):
        def narrow(each: Evidence) -> Evidence:
            logits = {part: logits[:, :1] for part, logits in each.logits.items()}
            return Evidence(logits, {part: 0 * labels for part, labels in each.labels.items()}, each.ids)

        plan = plan_attacks(Request(), retrained=0, has_models=False)
        of = case(narrow(answers(50)), references=[], calibration=[])
        with pytest.raises(ValueError, match="attacks need at least two classes, found 1"):
            run_attacks(plan, of, lambda answers, references: [])

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
        written = json.dumps(attacks_of(passed)["results"]).replace("NaN", "null")
        assert stage["attacks"]["results"] == json.loads(written)
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
