"""`unweave bench`: compares methods over seeds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cyclopts import App

from unweave.audits.verdict import SEEDS
from unweave.bench.bench import bench as run_bench
from unweave.bench.bench import compare, select_methods
from unweave.bench.recipe import Recipe
from unweave.bench.recipe import load as load_recipe
from unweave.bench.setup import Against
from unweave.bench.workers import Listener
from unweave.cli.inputs import out
from unweave.cli.inputs.executor import HERE, Executor, count_jobs
from unweave.cli.inputs.plan import Plan, extends, refuse_unreadable
from unweave.cli.inputs.request import NOTHING, Request, positions
from unweave.cli.options import DEFAULTS, CommonFlags, parse_fractions, parse_names
from unweave.cli.project.place import Place, is_given, load_project
from unweave.cli.project.stage import UserModelStage, stage_of
from unweave.cli.table import as_text, summary, table
from unweave.cli.terminal import progress, show
from unweave.record import record
from unweave.report import html
from unweave.report.protocol import Protocol
from unweave.report.protocol import summary as summary_of

app = App(name="bench", sort_key=4.5)
app.command(table)


@app.default
def bench(
    recipes: list[str],
    /,
    *,
    request: Request = NOTHING,
    recipe: str | None = None,
    data: str | None = None,
    methods: str | None = None,
    seeds: int | None = None,
    tune: int | None = None,
    against: Against | None = None,
    tuned: Path | None = None,
    budgets: str | None = None,
    protocol: Protocol | None = None,
    attacks: str | None = None,
    storage: str | None = None,
    executor: Executor = HERE,
    flags: CommonFlags = DEFAULTS,
) -> int:
    """Compare methods over seeds with equal tuning: cells, record.json and report.html.

    Give the same command again to resume an interrupted run. If you give your own model, it is the original
    for every seed; seeds then vary the methods and the retrained models.

    Args:
        recipes: TOML files, or names of recipes that come with unweave, such as digits-trace; or one model:
            project.py, or a folder.
        request: The forget set of a given model.
        recipe: The recipe, if the model's folder has none.
        data: The images for a diffusers folder: a folder with one sub-folder per class, or an .npz file.
        methods: Method names separated by commas, such as lur:recover,salun; all by default.
        seeds: The number of the recipes' seeds to run; a verdict needs ten.
        tune: The number of tuning trials per method, on seeds that are not reported.
        against: The forget set of trials: "proxy", a proxy request drawn from the retain set, which needs no
            retraining for the request itself; or "retrain", the request itself, the best case. By default
            that of the recipe, which is proxy.
        tuned: The folder `tuning` of an earlier run; uses its searches instead of new ones.
        budgets: Budgets of the methods relative to a retraining, separated by commas, such as 0.1,0.3. Each
            is searched and run separately; the smallest at which a method passes is its cost of a PASS.
        protocol: Print the columns of another benchmark: deep-unlearn, for classifiers over ten seeds.
        attacks: Attack the answers of each method and seed, and those of the retrained models: default, all,
            or names of attacks that need answers alone, separated by commas.
        storage: With --tune, the URL of a database for the trials, which several machines share:
            postgresql+psycopg://USER@HOST/NAME. By default they are files below --out.
        executor: Where the cells run.
        flags: The flags of every verb.
    """
    plan = Plan(
        methods, seeds, tune, against, tuned, parse_fractions(budgets), executor, protocol, attacks, storage
    )
    if is_given(recipes):
        place = Place(single_place(recipes), recipe, data)
        print_summary(run_model(place, request, plan, flags), flags, protocol)
        return 0
    if recipe is not None or data is not None or request.flags():
        raise ValueError("--recipe, --data and what to forget go with a model: recipes define their own")
    print_summary(
        run_recipes([load_recipe(place) for place in recipes], "unweave-bench", plan, flags),
        flags,
        protocol,
    )
    return 0


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
        run_bench(
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


@contextmanager
def claim_folder(what: str, place: Path, facts: out.Facts, *, quiet: bool) -> Iterator[Listener]:
    """Claims a folder for the body, which writes a record there; then writes the page of the record."""
    start = f"Running {what} in {place}"
    with out.open_folder(place, facts), progress.show_progress(start, quiet=quiet) as listener:
        yield listener
        html.write(record.load(place), place / html.FILE)


def single_place(places: Sequence[str]) -> str:
    """Returns the only place; raises if there are several."""
    if len(places) > 1:
        raise ValueError(f"bench takes several recipes or one model, found {', '.join(places)}")
    return places[0]


def run_model(place: Place, request: Request, plan: Plan, flags: CommonFlags) -> Path:
    """Runs methods on a given original and writes them into a folder; returns the folder."""
    device, names = flags.device or "cpu", parse_names(plan.methods)
    plan.executor.refuse_unfit(device)
    stage = load_stage(place, request, plan, flags)
    recipe = stage.recipe
    methods = tuple(name for name in select_methods(recipe, names) if name != "retrain")
    facts = {
        "verb": "bench",
        "given": {**stage.facts(), "split": stage.split().digest()},
        "seeds": [list(recipe.seeds)],
        "methods": list(methods),
        **plan.facts(),
        "against": recipe.tuning.against if plan.searches else None,
        "budgets": [list(recipe.tuning.budgets)],
        "device": device,
    }
    preferred_folder = flags.out or Path("unweave-bench")
    out.refuse_within(preferred_folder, load_project(place, device).source, place.data)
    folder = out.choose_folder(preferred_folder, facts, goes_on=extends)
    stage = replace(stage, folder=folder, storage=plan.storage)
    what = f"{', '.join(methods)} on {place.model}"
    with (
        plan.executor.crew(device, 1) as crew,
        claim_folder(what, folder, facts, quiet=flags.quiet) as listener,
    ):
        for seed in (None, *recipe.tuning.seeds) if plan.tune else (None,):
            stage.exam(seed)  # raises before any training if there are too few images
        compare(
            [stage.with_retraining_cost(plan.tuned) if plan.searches else stage],
            folder,
            methods=methods,
            crew=crew,
            tune=plan.tune or 0,
            tuned=plan.tuned,
            attacks=plan.choose_attacks,
            listener=listener,
        )
    return folder


def load_stage(place: Place, request: Request, plan: Plan, flags: CommonFlags) -> UserModelStage:
    """The stage of a given original and its request, with the seeds and the tuning of a plan; no folder yet.

    Raises:
        ValueError: If it can't be run as planned.
    """
    device = flags.device or "cpu"
    forget = positions(request, load_project(place, device), flags.seed or 0)
    stage = stage_of(place, tuple(forget.tolist()), Path(), device)
    recipe = plan.apply_to(stage.recipe, flags.seed)
    plan.refuse_other_families([recipe])
    if len(recipe.seeds) < SEEDS:  # without a verdict no margins are needed
        recipe = replace(recipe, calibration_seeds=())
    stage = replace(stage, recipe=recipe)
    if plan.searches:
        stage.refuse_unsearchable()
    return stage


def print_summary(folder: Path, flags: CommonFlags, protocol: Protocol | None = None) -> None:
    """Prints the tables of a run, in the columns of a protocol or our own, and its folder."""
    whole_record = record.load(folder)
    if flags.json:
        places = {"out": str(folder), "record": str(folder / record.FILE), "report": str(folder / html.FILE)}
        more = {} if protocol is None else {"protocol": summary_of(whole_record)}
        more |= {"frontier": whole_record["frontier"]} if "frontier" in whole_record else {}
        show.print_json({**places, "stages": summary(whole_record), **more})
        return
    width = show.console().width
    show.print_stages(whole_record) if protocol is None else print(
        as_text(whole_record, "text", protocol, width=width), end=""
    )
    show.print_lines("", f"Report: {folder / html.FILE}")
