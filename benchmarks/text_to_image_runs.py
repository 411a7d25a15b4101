"""The runs of the study of text-to-image models: references and methods on one concept of one seed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from text_to_image_cases import SECOND, Study
from text_to_image_methods import ROWS
from torch import nn

from unweave.audits.diffusion.images_exam import Drawn
from unweave.audits.diffusion.metrics import GENERATION
from unweave.audits.metrics import mean_gap
from unweave.bench.cache import file_name, read_or_make
from unweave.bench.cell import MEASURING_FORMAT, METHODS_FORMAT
from unweave.bench.text_to_image_concept import ConceptCase
from unweave.descent.train import digest
from unweave.errors import Failed
from unweave.methods import Method
from unweave.record.checkpoint import contents

Run = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ConceptRuns:
    """References and methods on one concept of one seed; each run is one small file.

    Args:
        study: The study.
        seed: The seed of the original.
        factor: The factor of the concept.
        value: Its value.
        kept: The answers of the references, by name.
    """

    study: Study
    seed: int
    factor: str
    value: str
    kept: dict[str, Drawn] = field(default_factory=dict)

    @cached_property
    def case(self) -> ConceptCase:
        """The request, with its exam."""
        return self.study.case(self.seed, self.factor, self.value, searching=False)

    @cached_property
    def original(self) -> nn.Module:
        """The original, with a text encoder that is frozen."""
        return self.case.original()

    @cached_property
    def references(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Functions that make the models to compare with, by name."""
        return self.study.references(self.seed, self.value, self.case)

    @property
    def other_seed(self) -> int | None:
        """The seed of the second retrained model."""
        return self.study.other_seed(self.seed, self.value)

    @property
    def attacked(self) -> bool:
        """Whether all attacks run, or relearning alone."""
        return self.seed in self.study.attacked

    @property
    def folder(self) -> Path:
        """The folder of the runs."""
        return self.study.out / "runs" / self.factor / self.value / f"seed-{self.seed}"

    @cached_property
    def facts(self) -> Run:
        """What all runs depend on."""
        own_facts = {"attacked": self.attacked, "weights": contents(self.original.state_dict())}
        return {**self.case.facts(), **own_facts, "format": [METHODS_FORMAT, MEASURING_FORMAT]}

    def run_all(self, methods: Mapping[str, Method]) -> dict[str, Run]:
        """Runs what is not there yet; adds the gap of each run that did not fail."""
        runs: dict[str, Run] = {}
        for name in (*self.references, *methods):
            method = methods.get(name)
            facts = {**self.facts, "method": repr(method)}
            facts |= {"seed of the model": self.other_seed} if name == SECOND else {}
            make = partial(self.run, name, method)
            runs[name] = dict(read_or_make(self.folder / file_name(name), digest(facts), make))
            runs[name]["settings"] = digest({"method": repr(method)})
            print(f"{self.value}  seed {self.seed}  {name}", flush=True)
        expected = runs["retrained"]["values"]
        for each in runs.values():
            each["gap"] = None if each["failed"] else mean_gap(each["values"], expected, GENERATION)
        return runs

    def run(self, name: str, method: Method | None) -> Run:
        """Runs a method, or measures the reference of this name if there is no method."""
        if method is not None:
            return self.run_method(method, edits_words=ROWS[name.partition("@")[0]].edits_words)
        model = self.references[name]()
        return {"failed": None, **self.measure(model, self.answers(name), model)}

    def run_method(self, method: Method, *, edits_words: bool) -> Run:
        """Runs a method; returns its cost and its figures, or the reason of its failure."""
        problem = self.case.problem(self.case.original(text_encoder=edits_words), self.seed, {})
        start = time.process_time()
        try:
            method(problem)
            costs = {"gradients": problem.cost.gradients, "cpu_seconds": time.process_time() - start}
            answers = self.case.questions.answers(problem.model)
            return {"failed": None, **costs, **self.measure(problem.model, answers, self.original)}
        except (ValueError, Failed) as error:
            return {"failed": str(error), "gradients": problem.cost.gradients, "values": {}}

    def measure(self, model: nn.Module, answers: Drawn, before: nn.Module) -> Run:
        """The figures of a model: of its answers, of relearning and, on some seeds, of all attacks.

        Args:
            model: The model.
            answers: Its answers.
            before: What it was made of, whose text encoder an attacker may have: the original, or itself.
        """
        exam = self.case.questions
        values = exam.measure(answers, self.answers("retrained")) | exam.drift(
            answers, self.answers("original")
        )
        _, *interval = exam.describe(answers)["kid"]
        start = time.process_time()
        probes = exam.relearn(model) | (exam.probes(model, before) if self.attacked else {})
        seconds = time.process_time() - start
        return {"values": {**values, **probes}, "kid interval": interval, "attack_cpu_seconds": seconds}

    def answers(self, name: str) -> Drawn:
        """The answers of a reference, which are drawn once and stored."""
        exam = self.case.questions
        if name not in self.kept:
            of = f"-of-{self.other_seed}" if name == SECOND else ""
            place = self.folder / f"{file_name(name)}{of}-{exam.digest}.npz"
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                exam.save(exam.answers(self.references[name]()), place)
            self.kept[name] = exam.load(place)
        return self.kept[name]
