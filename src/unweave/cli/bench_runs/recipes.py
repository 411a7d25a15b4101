"""A run of recipes, one stage each."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unweave.bench.bench import bench, select_methods
from unweave.bench.recipe import Recipe
from unweave.cli.bench_runs.folder import claim_folder
from unweave.cli.inputs import out
from unweave.cli.inputs.executor import count_jobs
from unweave.cli.inputs.plan import Plan, extends, refuse_unreadable
from unweave.cli.options import CommonFlags, parse_names


def run_recipes(recipes: Sequence[Recipe], name: str, plan: Plan, flags: CommonFlags) -> Path:
    """Runs recipes and writes them into a folder; returns the folder.

    Args:
        recipes: One recipe per stage.
        name: The default name of the folder.
        plan: The options of the run.
        flags: The flags of every verb.
    """
    device, methods = flags.device or "cpu", parse_names(plan.methods)
    plan.executor.refuse_unfit(device)
    recipes = [plan.apply_to(recipe, flags.seed) for recipe in recipes]
    plan.refuse_other_families(recipes)
    refuse_unreadable(recipes, device)
    tables = [replace(recipe, tuning=replace(recipe.tuning, budgets=())).table() for recipe in recipes]
    facts = {
        "verb": "bench",
        "recipes": [{key: table[key] for key in table if key != "seeds"} for table in tables],
        "seeds": [list(recipe.seeds) for recipe in recipes],
        "budgets": [list(recipe.tuning.budgets) for recipe in recipes],
        "methods": list(
            dict.fromkeys(name for recipe in recipes for name in select_methods(recipe, methods))
        ),
        **plan.facts(),
        "device": device,
    }
    place = out.choose_folder(flags.out or Path(name), facts, goes_on=extends)
    names = ", ".join(dict.fromkeys(recipe.name for recipe in recipes))  # several budgets share a name
    with (
        plan.executor.crew(device, count_jobs(device)) as crew,
        claim_folder(names, place, facts, quiet=flags.quiet) as listener,
    ):
        bench(
            recipes,
            place,
            methods=methods,
            crew=crew,
            tune=plan.tune or 0,
            tuned=plan.tuned,
            attacks=plan.choose_attacks,
            device=device,
            storage=plan.storage,
            listener=listener,
        )
    return place
