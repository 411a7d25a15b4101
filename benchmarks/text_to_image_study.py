"""Which method makes a text-to-image model forget a concept as retraining would, and is it gone or hidden?

    python benchmarks/text_to_image_study.py --models models --out study --search 15
    python benchmarks/text_to_image_study.py --models models --out study --search 15 --seeds 0 --object three
    python benchmarks/text_to_image_study.py --models models --recipe garments --data FOLDER --search 15
        --factors object --search-object coat --seeds 0 --object pullover

The models are those of `text_to_image_models.py`. A search of each method has as many trials on the object
"five" and as many on the colour "green" of seed 3, which are not reported: its value is the audit's distance
to the model retrained without the concept, beyond that of a second one of another seed, and how much sooner
the concept is relearned. Then every method
runs with one setting on all objects, and with one on all colours, beside the original, the retrained model
and, where there is one, that of another seed. A search draws fewer images in fewer steps.

What is done is not done again: a search goes on with its journal, and each run is a file below --out. What
--record holds stays in it, and a search in it is not made again. So a study can be made in parts, of some
seeds or methods each, also on other machines: the record alone has to be there. On another processor the
recogniser gets other bits, so all runs of one seed are made on processors of one kind. A model that is not
there is left out. All in one process of one thread.
"""

import argparse
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch
from compact import write_compact
from rows import round_numbers
from text_to_image_aims import print_aims, tabulate
from text_to_image_cases import SEARCHED, Study
from text_to_image_methods import ROWS
from text_to_image_record import join_tables, load_record, refuse_other_recogniser, shared_settings
from text_to_image_runs import ConceptRuns
from text_to_image_search import SEARCH_SEED, found_methods, search_rows
from text_to_image_tables import print_tables, summary

from unweave.bench.text_to_image_models import TextToImageModels
from unweave.bench.text_to_image_recipe import text_to_image_recipe
from unweave.descent.train import digest
from unweave.methods import Method


def make_parser() -> argparse.ArgumentParser:
    """What the study can be asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--models", type=Path, required=True, help="--out of text_to_image_models.py; read only"
    )
    parser.add_argument("--out", type=Path, default=Path("unweave-text-to-image-study"))
    parser.add_argument("--recipe", default="digits", help="a name, or the path of a TOML file")
    parser.add_argument("--data", type=Path, help="the folder of the recipe's images, such as Fashion-MNIST")
    parser.add_argument(
        "--methods",
        nargs="+",
        type=row_name,
        default=list(ROWS),
        help="or joint@lur, joint with lur's settings",
    )
    parser.add_argument("--search", type=int, default=0, metavar="N", help="trials of each method and factor")
    parser.add_argument("--factors", nargs="+", default=list(SEARCHED), choices=SEARCHED, help="to search on")
    for factor, value in SEARCHED.items():
        parser.add_argument(
            f"--search-{factor}", default=value, help="the concept of searches, never reported"
        )
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="to report; none searches alone")
    parser.add_argument("--object", nargs="*", default=[], help="objects to report, such as three")
    parser.add_argument("--colour", nargs="*", default=[], help="colours to report, such as red")
    parser.add_argument("--attacks", type=int, default=25, help="images of each setting of an attack")
    parser.add_argument("--attacked", type=int, nargs="*", default=[0], help="seeds on which all attacks run")
    parser.add_argument("--record", type=Path, help="a JSON file for all that was found")
    return parser


def row_name(name: str) -> str:
    """A row, or two joined by "@": the first with the settings that the search of the second found.

    Raises:
        argparse.ArgumentTypeError: If there is no such row.
    """
    for each in name.split("@", 1):
        if each not in ROWS:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(ROWS)}, found {each!r}")
    return name


def main() -> None:
    """Runs what the arguments ask for."""
    arguments = make_parser().parse_args()
    torch.set_num_threads(1)  # more are slower on models of this size
    study = study_of(arguments)
    settings = shared_settings(study)
    content = load_record(arguments.record, settings)
    recogniser = study.models.recogniser.digest
    seeds = [*arguments.seeds, *([SEARCH_SEED] if arguments.search else [])]
    refuse_other_recogniser(content["recognisers"], dict.fromkeys(map(str, seeds), recogniser))
    for factor in arguments.factors:
        searches = content["searches"].get(factor, {})
        if arguments.search:
            content["recognisers"].setdefault(str(SEARCH_SEED), recogniser)
        content["searches"][factor] = search_rows(
            study, factor, arguments.methods, arguments.search, searches
        )
    values_by_factor = {"object": arguments.object, "colour": arguments.colour}
    for factor, values in ((factor, values) for factor, values in values_by_factor.items() if values):
        methods = found_methods(arguments.methods, content["searches"].get(factor, {}))
        refuse_other_methods(content["runs"].get(factor, {}), methods)
        for seed, value in product(arguments.seeds, values):
            if study.has(seed, value):
                runs = content["runs"].setdefault(factor, {}).setdefault(value, {}).setdefault(str(seed), {})
                runs.update(round_numbers(ConceptRuns(study, seed, factor, value).run_all(methods)))
                content["recognisers"][str(seed)] = recogniser
    if arguments.record and arguments.record.exists():  # another process may have written since
        latest = load_record(arguments.record, settings)
        refuse_other_recogniser(latest["recognisers"], content["recognisers"])
        content = {name: join_tables(latest[name], content[name]) for name in content}
        content["environments"] = latest["environments"]
    print_tables(summary(content["runs"]))
    print_aims(tabulate(content["runs"], study.models.recipe.train.steps or 0))
    if arguments.record:
        write_compact(content, arguments.record)


def study_of(arguments: argparse.Namespace) -> Study:
    """The study that is asked for."""
    recipe = text_to_image_recipe(arguments.recipe)
    if arguments.data is not None:
        recipe = recipe.with_data(arguments.data)
    models = TextToImageModels(recipe, arguments.models / "kept")
    place = arguments.models / Path(arguments.recipe).stem
    searched_values = {"object": arguments.search_object, "colour": arguments.search_colour}
    return Study(models, place, arguments.out, arguments.attacks, tuple(arguments.attacked), searched_values)


def refuse_other_methods(runs: Mapping[str, Any], methods: Mapping[str, Method]) -> None:
    """Raises a ValueError if a method ran with other settings on any concept and seed of a factor."""
    for by_seed in runs.values():
        for by_method in by_seed.values():
            for name in methods.keys() & by_method.keys():
                if by_method[name]["settings"] != digest({"method": repr(methods[name])}):
                    raise ValueError(
                        f"the record has runs of {name} with other settings: give another --record"
                    )


if __name__ == "__main__":
    main()
