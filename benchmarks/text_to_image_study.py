"""Which method makes a text-to-image model forget a concept as retraining would, and is it gone or hidden?

    python benchmarks/text_to_image_study.py --models models --out study --search 15
    python benchmarks/text_to_image_study.py --models models --out study --search 15 --seeds 0 --object three
    python benchmarks/text_to_image_study.py --models models --recipe garments --data FOLDER --search 15
        --factors object --search-object coat --seeds 0 --object pullover

The models are those of `text_to_image_models.py`. A search of each method has as many trials on the object
"five" and as many on the colour "green" of seed 3, which are not reported: its value is the audit's distance
to the model retrained without the concept, and how much sooner the concept is relearned. Then every method
runs with one setting on all objects, and with one on all colours, beside the original, the retrained model
and, where there is one, that of another seed. A search draws fewer images in fewer steps.

What is done is not done again: a search goes on with its journal, and each run is a file below --out. What
--record holds stays in it, and a search in it is not made again. So a study can be made in parts, of some
seeds or methods each, also on other machines: the record alone has to be there. A model that is not there is
left out. All in one process of one thread.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from frontier import round_numbers
from rows import write_json
from text_to_image_aims import print_aims, tabulate
from text_to_image_methods import BUDGET, ROWS, method_of, space_of
from text_to_image_tables import print_tables, summary
from torch import nn

from unweave.audits.diffusion.images_exam import Drawn
from unweave.audits.diffusion.latent_drawing import PromptedPipeline
from unweave.audits.diffusion.metrics import GENERATION
from unweave.audits.diffusion.real_concepts import RealImages
from unweave.audits.metrics import mean_gap
from unweave.bench.cache import file_name, read_or_make
from unweave.bench.cell import MEASURING_FORMAT, METHODS_FORMAT
from unweave.bench.ranges import nest_paths
from unweave.bench.search import Case, Trial, search
from unweave.bench.text_to_image_concept import (
    ConceptCase,
    EditExam,
    PracticeExam,
    PromptCounts,
    concept_prompts,
)
from unweave.bench.text_to_image_models import TextToImageModels
from unweave.bench.text_to_image_recipe import arrange, text_to_image_recipe
from unweave.descent.train import digest
from unweave.errors import Failed
from unweave.families.text_to_image import TextToImageFamily
from unweave.methods import Method
from unweave.methods.configure import configure
from unweave.record.checkpoint import contents
from unweave.record.files import read_object
from unweave.record.record import environment
from unweave.tables import as_table
from unweave.tasks.diffusion.concept_request import ConceptRequest, Erasure, make_request
from unweave.tasks.diffusion.sample import Sampler
from unweave.tasks.diffusion.stable_diffusion import StableDiffusion, load

SEARCHED = {"object": "five", "colour": "green"}
"""The concepts of the searches of digits, by factor."""

SEARCH_SEED = 3
Row = dict[str, Any]
FIRST_SEED = 10**12
"""The first seed of the images of a search; those of reported images start at zero."""

SEARCHING = TextToImageFamily(Sampler("dpm", steps=8, guidance=3.0), images=20)
FEW = PromptCounts(trained=2, paraphrased=1, combined=1, neighbours=1, others=0)
REPORTING = TextToImageFamily(Sampler("dpm", steps=10, guidance=3.0), images=25)
MANY = PromptCounts()
SECOND = "second retrained"
"""A model retrained without the concept from another seed: by how much two of them differ."""


@dataclass(frozen=True, eq=False)
class Study:
    """The models of a study, and its folders.

    Args:
        models: The recipe's data, autoencoder and recogniser.
        place: The folder of the pipelines, such as models/digits.
        out: The folder of searches and runs.
        attacks: The number of images of each setting of the attacks.
        attacked: The seeds on which all attacks run; on others only relearning does.
        searched: The concepts of the searches, by factor.
        requests: The requests that were made, by factor and value.
    """

    models: TextToImageModels
    place: Path
    out: Path
    attacks: int = 25
    attacked: Sequence[int] = (0,)
    searched: Mapping[str, str] = field(default_factory=lambda: SEARCHED)
    requests: dict[tuple[str, str], ConceptRequest] = field(default_factory=dict)

    def request(self, pipeline: StableDiffusion, factor: str, value: str) -> ConceptRequest:
        """The request to forget a concept: made once, because all models share one autoencoder."""
        if (factor, value) not in self.requests:
            train, held_out = self.models.data
            erasure = Erasure((value,), column=factor)
            self.requests[factor, value] = make_request(pipeline, train, held_out, erasure)
        return self.requests[factor, value]

    def pipeline(self, seed: int, name: str) -> StableDiffusion:
        """A model of a seed."""
        found = load(self.place / f"seed-{seed}" / name)
        arrange(found.unet, torch.channels_last)
        return found

    def has(self, seed: int, value: str) -> bool:
        """Whether the original and the retrained model of a seed are there."""
        return all((self.place / f"seed-{seed}" / name).exists() for name in ("original", f"without-{value}"))

    def case(self, seed: int, factor: str, value: str, *, searching: bool) -> ConceptCase:
        """The request to the original of a seed, with its exam."""
        family, counts = (SEARCHING, FEW) if searching else (REPORTING, MANY)
        recipe, pipeline = self.models.recipe, self.pipeline(seed, "original")
        attacker = replace(family.attacker, images=family.images if searching else self.attacks)
        kind = PracticeExam if searching else EditExam
        questions = kind(
            prompts=concept_prompts(recipe.drawings, factor, value, counts),
            recogniser=self.models.recogniser,
            real=RealImages(*self.models.data),
            sampler=family.sampler,
            count=family.images,
            budget=attacker,
            first_seed=FIRST_SEED if searching else 0,
            pipeline=pipeline,
        )
        return ConceptCase(pipeline, self.request(pipeline, factor, value), questions)

    def retrained(self, seed: int, value: str, case: ConceptCase) -> nn.Module:
        """The model of a seed that was retrained without a concept, under the prompts of the exam."""
        return PromptedPipeline(self.pipeline(seed, f"without-{value}"), case.questions.prompts.conditions)

    def other_seed(self, seed: int, value: str) -> int | None:
        """The next seed, or else the first, of which there is a model retrained without a concept."""
        found = [
            int(each.parent.name.removeprefix("seed-")) for each in self.place.glob(f"seed-*/without-{value}")
        ]
        others = sorted(set(found) - {seed})
        return next((each for each in others if each > seed), others[0] if others else None)

    def references(self, seed: int, value: str, case: ConceptCase) -> dict[str, Callable[[], nn.Module]]:
        """Functions that make the models to compare with, by name; a second retrained one if it is there."""
        own: dict[str, Callable[[], nn.Module]] = {
            "original": case.original,
            "retrained": partial(self.retrained, seed, value, case),
        }
        other = self.other_seed(seed, value)
        return own if other is None else {**own, SECOND: partial(self.retrained, other, value, case)}


def search_rows(
    study: Study, factor: str, names: Sequence[str], trials: int, done: Mapping[str, Row]
) -> dict[str, Row]:
    """Searches the settings of every method on one concept; keeps the searches that are done.

    Raises:
        ValueError: If one of them is another search, or there are no models to search on.
    """
    for name in (each for each in names if each in done):
        if done[name]["key"] != search_key(name) or trials not in (0, done[name]["trials"]):
            raise ValueError(f"the record has another search of {name}: give another --record")
    missing = [name for name in names if name not in done] if trials else []
    value, found = study.searched[factor], dict(done)
    if not missing:
        return found
    if not study.has(SEARCH_SEED, value):
        raise ValueError(f"a search needs the models original and without-{value} of seed {SEARCH_SEED}")
    case = study.case(SEARCH_SEED, factor, value, searching=True)
    exam, model = case.questions, study.retrained(SEARCH_SEED, value, case)
    retrained = exam.answers(model)
    values = {**exam.measure(retrained), **exam.probes(model)}
    for name in missing:
        original = case.original(text_encoder=ROWS[name].edits_words)
        # there is one retrained model, so the spread of two is not known
        cases = [Case(case, SEARCH_SEED, original, retrained, values, floor=0.0)]
        method, space = method_of(ROWS[name], SEARCHING), space_of(ROWS[name], SEARCHING)
        # without a setting to search, one trial says what the method is worth
        own, start = trials if space else 1, time.process_time()
        facts = {**case.facts(), "method": repr(method), "space": repr(space)}
        journal = study.out / "search" / factor / f"{file_name(name)}.journal"
        log = search(method, space, own, cases, place=journal, name=digest(facts))
        spent = (time.process_time() - start) / own
        each = {"values": [trial["value"] for trial in log], "best": best(log)}
        found[name] = {"key": search_key(name), "trials": trials, **each}
        print(f"{factor}  {name}  {own} trials of {spent:.0f} CPU-seconds, {best(log)}", flush=True)
    return found


def search_key(name: str) -> str:
    """What a search depends on, beside the settings of the study."""
    method, space = method_of(ROWS[name], SEARCHING), space_of(ROWS[name], SEARCHING)
    return digest({"method": repr(method), "space": repr(space)})


def best(trials: Sequence[Trial]) -> Trial | None:
    """The best trial within the budget; of all if none was within; None if all failed."""
    finished = [each for each in trials if each["value"] is not None]
    within = [each for each in finished if each["gradient_evaluations"] <= BUDGET]
    return min(within or finished, key=lambda each: each["value"], default=None)


def run_concept(
    study: Study, seed: int, factor: str, value: str, methods: Mapping[str, Method]
) -> dict[str, dict[str, Any]]:
    """Runs references and methods on one concept of one seed; each is one small file."""
    case = study.case(seed, factor, value, searching=False)
    exam, original = case.questions, case.original()
    folder, attack = study.out / "runs" / factor / value / f"seed-{seed}", seed in study.attacked
    known = {**case.facts(), "attacked": attack, "weights": contents(original.state_dict())}
    known |= {"format": [METHODS_FORMAT, MEASURING_FORMAT]}
    references, other = study.references(seed, value, case), study.other_seed(seed, value)
    kept: dict[str, Drawn] = {}

    def answers(name: str) -> Drawn:
        if name not in kept:
            of = f"-of-{other}" if name == SECOND else ""
            place = folder / f"{file_name(name)}{of}-{exam.digest}.npz"
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                exam.save(exam.answers(references[name]()), place)
            kept[name] = exam.load(place)
        return kept[name]

    def measured(model: nn.Module, found: Drawn, before: nn.Module) -> dict[str, Any]:
        values = {**exam.measure(found, answers("retrained")), **exam.drift(found, answers("original"))}
        _, *interval = exam.describe(found)["kid"]
        start = time.process_time()
        probes = probe(exam, model, before, whole=attack)
        spent = {"attack_cpu_seconds": time.process_time() - start}
        return {"values": {**values, **probes}, "kid interval": interval, **spent}

    runs: dict[str, dict[str, Any]] = {}
    for name in (*references, *methods):
        method = methods.get(name)

        def make(name: str = name, method: Method | None = method) -> dict[str, Any]:
            if method is not None:
                edited = case.original(text_encoder=ROWS[name].edits_words)
                return run(case, edited, seed, method, partial(measured, before=original))
            model = references[name]()
            return {"failed": None, **measured(model, answers(name), model)}

        facts = {**known, "method": repr(method), **({"seed of the model": other} if name == SECOND else {})}
        runs[name] = dict(read_or_make(folder / file_name(name), digest(facts), make))
        runs[name]["settings"] = digest({"method": repr(method)})
        print(f"{value}  seed {seed}  {name}", flush=True)
    wanted = runs["retrained"]["values"]
    for each in runs.values():
        each["gap"] = None if each["failed"] else mean_gap(each["values"], wanted, GENERATION)
    return runs


def run(case: ConceptCase, original: nn.Module, seed: int, method: Method, measured: Any) -> dict[str, Any]:  # noqa: ANN401  a closure
    """Runs a method; returns its cost and its figures, or the reason of its failure."""
    problem, start = case.problem(original, seed, {}), time.process_time()
    try:
        method(problem)
        spent = {"gradients": problem.cost.gradients, "cpu_seconds": time.process_time() - start}
        found = case.questions.answers(problem.model)
        return {"failed": None, **spent, **measured(problem.model, found)}
    except (ValueError, Failed) as error:
        return {"failed": str(error), "gradients": problem.cost.gradients, "values": {}}


def probe(exam: EditExam, model: nn.Module, before: nn.Module, *, whole: bool) -> dict[str, float]:
    """The course of relearning and, on some seeds, all attacks.

    Args:
        exam: The exam.
        model: The model.
        before: What it was made of, whose text encoder an attacker may have: the original, or itself.
        whole: Whether all attacks run.
    """
    return exam.relearn(model) | (exam.probes(model, before) if whole else {})


def main() -> None:
    """Runs what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--models", type=Path, required=True, help="--out of text_to_image_models.py; read only"
    )
    parser.add_argument("--out", type=Path, default=Path("unweave-text-to-image-study"))
    parser.add_argument("--recipe", default="digits", help="a name, or the path of a TOML file")
    parser.add_argument("--data", type=Path, help="the folder of the recipe's images, such as Fashion-MNIST")
    parser.add_argument("--methods", nargs="+", default=list(ROWS), choices=ROWS)
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
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # more are slower on models of this size
    recipe = text_to_image_recipe(arguments.recipe)
    if arguments.data is not None:
        recipe = recipe.with_data(arguments.data)
    models = TextToImageModels(recipe, arguments.models / "kept")
    place = arguments.models / Path(arguments.recipe).stem
    searched = {"object": arguments.search_object, "colour": arguments.search_colour}
    study = Study(models, place, arguments.out, arguments.attacks, tuple(arguments.attacked), searched)
    found = load_record(arguments.record, settings_of(study))
    for factor in arguments.factors:
        done = found["search"].get(factor, {})
        found["search"][factor] = search_rows(study, factor, arguments.methods, arguments.search, done)
    for factor, values in (("object", arguments.object), ("colour", arguments.colour)):
        methods = found_methods(arguments.methods, found["search"].get(factor, {}))
        refuse_other_methods(found["runs"].get(factor, {}), methods)
        for seed, value in product(arguments.seeds, values):
            if study.has(seed, value):
                runs = found["runs"].setdefault(factor, {}).setdefault(value, {}).setdefault(str(seed), {})
                runs.update(round_numbers(run_concept(study, seed, factor, value, methods)))
    if arguments.record and arguments.record.exists():  # another process may have written since
        latest = load_record(arguments.record, settings_of(study))
        found = {name: join_tables(latest[name], found[name]) for name in found}
        found["environments"] = latest["environments"]
    averages, aims = summary(found["runs"]), tabulate(found["runs"], recipe.train.steps or 0)
    found |= {"summary": round_numbers(averages), "aims": round_numbers(aims)}
    print_tables(averages)
    print_aims(aims)
    if arguments.record:
        write_json(arguments.record, found)


def found_methods(names: Sequence[str], searches: Mapping[str, Row]) -> dict[str, Method]:
    """The methods with the best settings that a search found; those of the start where there was none."""
    methods: dict[str, Method] = {}
    for name in names:
        method, trial = method_of(ROWS[name], REPORTING), searches.get(name, {}).get("best")
        methods[name] = method if trial is None else configure(method, nest_paths(trial["settings"]))
    return methods


def refuse_other_methods(runs: Mapping[str, Any], methods: Mapping[str, Method]) -> None:
    """Raises a ValueError if a method ran with other settings on any concept and seed of a factor."""
    for by_seed in runs.values():
        for by_method in by_seed.values():
            for name in methods.keys() & by_method.keys():
                if by_method[name]["settings"] != digest({"method": repr(methods[name])}):
                    raise ValueError(
                        f"the record has runs of {name} with other settings: give another --record"
                    )


def join_tables(first: Any, second: Any) -> Any:  # noqa: ANN401  JSON
    """The tables of two parts of a record, one in the other; what both have is the second's."""
    if not isinstance(first, dict) or not isinstance(second, dict):
        return second
    both = {name: join_tables(first[name], second[name]) for name in first.keys() & second.keys()}
    return {**first, **second, **both}


def settings_of(study: Study) -> Row:
    """What all searches and runs of a record share."""
    recipe = study.models.recipe
    drawings = replace(recipe.drawings, folder=None)  # a place on this machine
    return {
        "recipe": as_table(replace(recipe, drawings=drawings)),
        "budget": BUDGET,
        "searching": {
            "family": as_table(SEARCHING),
            "prompts": as_table(FEW),
            "seed": SEARCH_SEED,
            "concepts": dict(study.searched),
            "sees relearning": True,
        },
        "reporting": {"family": as_table(REPORTING), "prompts": as_table(MANY), "attacked": study.attacked},
        "attack images": study.attacks,
        "recogniser": study.models.recogniser.digest,
        "formats": [METHODS_FORMAT, MEASURING_FORMAT],
    }


def load_record(place: Path | None, settings: Row) -> Row:
    """The record of an earlier part of the study, or an empty one.

    Raises:
        ValueError: If the earlier part had other settings.
    """
    here = environment()
    empty = {"environments": [here], **json.loads(json.dumps(settings)), "search": {}, "runs": {}}
    if place is None or not place.exists():
        return empty
    found = read_object(place)
    other = [name for name in settings if found.get(name) != empty[name]]
    if other:
        raise ValueError(f"{place} was made with other settings ({', '.join(other)}): give another --record")
    found["environments"] += [here] if here not in found["environments"] else []
    return found


if __name__ == "__main__":
    main()
