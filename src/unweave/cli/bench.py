"""`unweave bench`: compares methods over seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cyclopts import App

from unweave.bench.other_recipes import is_text_to_image
from unweave.bench.recipe import load as load_recipe
from unweave.bench.setup import Against
from unweave.bench.study import REFERENCES
from unweave.cli.bench_runs.model import run_model
from unweave.cli.bench_runs.recipes import run_recipes
from unweave.cli.inputs.executor import HERE, Executor
from unweave.cli.inputs.extra import require_diffusion
from unweave.cli.inputs.plan import Plan
from unweave.cli.inputs.request import NOTHING, Request
from unweave.cli.options import DEFAULTS, CommonFlags, parse_fractions
from unweave.cli.project.place import Place, is_given
from unweave.cli.table import as_text, summary, table
from unweave.cli.terminal import show
from unweave.errors import Failed
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
    concept: tuple[str, ...] = (),
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
        data: The images for a diffusers folder: a folder with one sub-folder per class, or an .npz file. With
            a text-to-image recipe: the folder of its images, such as Fashion-MNIST's four files.
        concept: With a text-to-image recipe, such as digits: a concept to erase, such as three or red; can be
            given several times. Such a run has one seed and uses the CPU. By default it compares the methods
            that the recipe has settings of; all others have settings that nobody tried.
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
            or names of attacks that need answers alone, separated by commas. With a text-to-image recipe:
            all attacks on such models, or names of some.
        storage: With --tune, the URL of a database for the trials, which several machines share:
            postgresql+psycopg://USER@HOST/NAME. By default they are files below --out.
        executor: Where the cells run.
        flags: The flags of every verb.
    """
    if concept or (len(recipes) == 1 and is_text_to_image(recipes[0])):
        refuse_other_places(recipes)
        refuse_other_flags(
            {
                **request.flags(),
                "recipe": recipe,
                "seeds": None if seeds == 1 else seeds,
                "tune": tune,
                "against": against,
                "tuned": tuned,
                "budgets": budgets,
                "protocol": protocol,
                "storage": storage,
            }
        )
        with require_diffusion():
            from unweave.cli.bench_runs.concepts import read_concept_bench, run_concept_bench
        comparison = read_concept_bench(recipes[0], concept, data, attacks)
        folder = run_concept_bench(comparison, Path("unweave-bench"), methods, executor, flags)
        print_summary(folder, flags)
        return 0
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


def refuse_other_places(places: Sequence[str]) -> None:
    """Raises if concepts are to be erased from anything but one recipe."""
    if len(places) > 1:
        raise ValueError(f"--concept goes with one text-to-image recipe, found {', '.join(places)}")
    if is_given(list(places)):
        raise ValueError(
            f"--concept goes with a text-to-image recipe, found the model {places[0]}: erase a concept from "
            "it by unweave forget"
        )


def refuse_other_flags(flags: Mapping[str, object]) -> None:
    """Raises at a flag that does not go with a text-to-image recipe."""
    for name, value in flags.items():
        if value is not None:
            advice = "choose its one seed by --seed" if name == "seeds" else "leave it out"
            raise ValueError(f"--{name} does not go with a text-to-image recipe: {advice}")


def single_place(places: Sequence[str]) -> str:
    """Returns the only place; raises if there are several."""
    if len(places) > 1:
        raise ValueError(f"bench takes several recipes or one model, found {', '.join(places)}")
    return places[0]


def print_summary(folder: Path, flags: CommonFlags, protocol: Protocol | None = None) -> None:
    """Prints the tables of a run, in the columns of a protocol or our own, and its folder.

    Raises:
        Failed: If no method finished, after all is printed; the record holds the reasons.
    """
    whole_record = record.load(folder)
    print_tables(whole_record, folder, flags, protocol)
    rows = [
        (name, row["failed"])
        for stage in whole_record["stages"].values()
        for name, row in stage["methods"].items()
        if name not in REFERENCES
    ]
    if rows and all(failure is not None for _, failure in rows):
        raise Failed(f"no method finished: {rows[0][0]}: {rows[0][1]}; all reasons are in {folder}")


def print_tables(
    whole_record: Mapping[str, Any], folder: Path, flags: CommonFlags, protocol: Protocol | None
) -> None:
    """Prints the tables of a record, as text or as JSON, and where it lies."""
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
