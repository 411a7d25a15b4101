"""Which attacks run: names, tiers and budgets."""

import pkgutil
from dataclasses import replace

import pytest

from audits.attacks.toy import PLAIN
from unweave.audits.attack_runs import plan as planning
from unweave.audits.attack_runs.plan import Request, attack_named, choose_attacks, plan_attacks
from unweave.audits.attacks import ATTACKS

DEAR = replace(PLAIN, name="dear", examine=lambda subject: {}, gradients=100)
DEARER = replace(DEAR, name="dearer", gradients=300)
BESIDE = replace(PLAIN, name="beside", tier=1)
SHADOWS = replace(PLAIN, name="shadows", tier=3, figures=None, function="elsewhere.run", default=False)


@pytest.fixture
def registry(monkeypatch) -> None:
    """Five attacks of other costs and tiers, the dearest first."""
    attacks = {each.name: each for each in (DEARER, DEAR, BESIDE, PLAIN, SHADOWS)}
    monkeypatch.setattr(planning, "ATTACKS", attacks)


def make_plan(names="all", tier=None, budget=None, retrained=10, has_models=True):
    return plan_attacks(Request(names, tier, budget), retrained=retrained, has_models=has_models)


@pytest.mark.usefixtures("registry")
class TestPlan:
    def test_the_cheapest_run_first_and_what_is_not_run_is_named(self):
        plan = make_plan()
        assert [each.name for each in plan.attacks] == ["beside", "plain", "dear", "dearer"]
        assert set(plan.not_run) == {"shadows"} and "call elsewhere.run" in plan.not_run["shadows"]
        assert [each.name for each in plan.model_attacks] == ["dear", "dearer"]

    def test_every_attack_is_planned_or_has_a_reason(self):
        for names in ("all", "default", "dear", "plain,shadows"):
            for tier in (None, 0, 1, 2, 3):
                plan = make_plan(names, tier)
                assert {each.name for each in plan.attacks} | plan.not_run.keys() == planning.ATTACKS.keys()
                assert not {each.name for each in plan.attacks} & plan.not_run.keys()

    def test_a_budget_runs_what_fits_and_says_what_the_rest_would_take(self):
        plan = make_plan(budget=130)
        assert [each.name for each in plan.attacks] == ["beside", "plain", "dear"]
        expected = "it takes about 300 gradient evaluations per model, and 30 of the budget are left"
        assert plan.not_run["dearer"] == expected
        assert [each.name for each in make_plan("dear", budget=99).attacks] == []
        assert [each.name for each in make_plan("dear", budget=100).attacks] == ["dear"]
        assert [each.name for each in make_plan(budget=0).attacks] == ["beside", "plain"]

    def test_a_tier_leaves_out_higher_ones(self):
        plan = make_plan(tier=0)
        assert [each.name for each in plan.attacks] == ["plain", "dear", "dearer"]
        assert plan.not_run["beside"] == "its tier is T1, and T0 was asked for"

    def test_answers_alone_can_not_be_examined(self):
        plan = make_plan(has_models=False)
        assert [each.name for each in plan.attacks] == ["beside", "plain"]
        assert "only their answers are known" in plan.not_run["dear"]

    def test_without_retrained_models_what_needs_one_is_not_run(self):
        assert make_plan(retrained=0).not_run["beside"] == "it needs at least 1 retrained models, found none"

    def test_default_is_a_part_of_all(self):
        assert [each.name for each in choose_attacks("default")] == ["dearer", "dear", "beside", "plain"]
        assert choose_attacks("plain, dear,plain") == [PLAIN, DEAR]


def test_unknown_names_and_tiers_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown attack 'rima' .did you mean 'rmia'"):
        attack_named("rima")
    with pytest.raises(ValueError, match="unknown attack 'every'"):
        Request("rmia,every")
    with pytest.raises(ValueError, match="attacks must be default, all, or names such as rmia, found ' , '"):
        Request(" , ")
    with pytest.raises(ValueError, match="a tier must be one of 0, 1, 2, 3, found 4"):
        Request(tier=4)
    with pytest.raises(ValueError, match="a budget must be 0 gradient evaluations or more, found -1"):
        Request(budget=-1)


def test_every_attack_runs_in_an_audit_or_names_a_function() -> None:
    for attack in ATTACKS.values():
        assert (attack.figures is None) == bool(attack.function) == bool(attack.function_cost)
        assert attack.examine is not None or attack.gradients == 0
        assert not attack.function or callable(pkgutil.resolve_name(attack.function))
