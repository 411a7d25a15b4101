"""The methods and stages by name. A new one is one new file and one new line here."""

from collections.abc import Collection, Mapping
from typing import ClassVar, Protocol, runtime_checkable

from unweave.choices import suggest_word
from unweave.methods.about import About
from unweave.methods.amnesiac import Amnesiac
from unweave.methods.bad_teacher import BadTeacher
from unweave.methods.cfw import CFW
from unweave.methods.conflict import MGDA, CAGrad, MUNBa, PCGrad, UPGrad
from unweave.methods.ct import ConvolutionTranspose
from unweave.methods.defences import Obfuscate, Prune
from unweave.methods.erasediff import EraseDiff
from unweave.methods.esd import ESD
from unweave.methods.fcs import FCS
from unweave.methods.fisher_forgetting import FisherForgetting
from unweave.methods.gdr_gma import GDRGMA
from unweave.methods.influence import Influence
from unweave.methods.kde import KDE
from unweave.methods.last_layers import CFk, EUk
from unweave.methods.lur import LUR
from unweave.methods.meta_unlearning import MetaUnlearning
from unweave.methods.msg import MaskedSmallGradients
from unweave.methods.pipeline import JOINT, Pipeline
from unweave.methods.prmq import PRMQ
from unweave.methods.recover import Recover
from unweave.methods.reset_tokens import ResetTokens
from unweave.methods.rni import RNI
from unweave.methods.sa import SelectiveAmnesia
from unweave.methods.salun import SalUn
from unweave.methods.scissorhands import Scissorhands
from unweave.methods.scrub import SCRUB
from unweave.methods.sfron import SFRon
from unweave.methods.simple import (
    FineTune,
    FromScratch,
    GradientAscent,
    L1Sparse,
    NegGradPlus,
    Original,
    RandomLabel,
    Shrink,
)
from unweave.methods.ssd import SelectiveSynapticDampening
from unweave.methods.starts import Fresh, Redraw, ShrinkPerturb
from unweave.methods.uce import UCE
from unweave.methods.unsir import UNSIR
from unweave.problem import Problem
from unweave.targets import Level

__all__ = ["DEFAULT", "METHODS", "STAGES", "Method", "method_named", "methods_for"]


@runtime_checkable
class Method(Protocol):
    """A frozen dataclass of hyper-parameters that edits a problem's model in place."""

    about: ClassVar[About]

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        ...


METHODS: Mapping[str, Method] = {
    "lur": LUR(),
    "lur-exact": LUR(mode="exact"),
    "lur-lagged": LUR(mode="lagged"),
    "lur-match": LUR(forget=Level()),
    "joint": LUR(mode="joint"),
    "joint-match": LUR(mode="joint", forget=Level()),
    "meta-unlearning": MetaUnlearning(),
    "short-retrain": FromScratch(),
    "shrink": Shrink(),
    "finetune": FineTune(),
    "ascent": GradientAscent(),
    "random-label": RandomLabel(),
    "neggrad+": NegGradPlus(),
    "l1-sparse": L1Sparse(),
    "salun": SalUn(),
    "scissorhands": Scissorhands(),
    "scrub": SCRUB(),
    "bad-teacher": BadTeacher(),
    "influence": Influence(),
    "fisher-forgetting": FisherForgetting(),
    "msg": MaskedSmallGradients(),
    "ct": ConvolutionTranspose(),
    "cfw": CFW(),
    "prmq": PRMQ(),
    "rni": RNI(),
    "kde": KDE(),
    "fcs": FCS(),
    "munba": MUNBa(),
    "pcgrad": PCGrad(),
    "mgda": MGDA(),
    "cagrad": CAGrad(),
    "upgrad": UPGrad(),
    "amnesiac": Amnesiac(),
    "unsir": UNSIR(),
    "gdr-gma": GDRGMA(),
    "sfron": SFRon(),
    "cf-k": CFk(),
    "eu-k": EUk(),
    "ssd": SelectiveSynapticDampening(),
    "sa": SelectiveAmnesia(),
    "esd": ESD(),
    "erasediff": EraseDiff(),
    "uce": UCE(),
    "original": Original(),
    "retrain": FromScratch(),
}


STAGES: Mapping[str, Method] = {
    "shrink-perturb": ShrinkPerturb(),
    "redraw": Redraw(),
    "fresh": Fresh(),
    "recover": Recover(),
    "reset-tokens": ResetTokens(),
    "obfuscate": Obfuscate(),
    "prune": Prune(),
}
"""Starts, recoveries and last stages: methods that are useful in a pipeline only."""


DEFAULT = "lur:recover"
"""The default method of `forget` and the default headline of recipes, for classifiers."""


def methods_for(family: str) -> Mapping[str, Method]:
    """The methods that support a family, in the order of the registry."""
    return {name: method for name, method in METHODS.items() if method.about.serves(family)}


def guess_pipelines(name: str, methods: Collection[str]) -> list[str]:
    """The pipelines of two stages that a name means if one of its hyphens stands for `JOINT`."""
    splits = ((name[:place], name[place + 1 :]) for place, letter in enumerate(name) if letter == "-")
    return [JOINT.join(stages) for stages in splits if set(stages) <= set(methods)]


def method_named(name: str, family: str | None = None, among: Mapping[str, Method] = METHODS) -> Method:
    """The method, stage or pipeline with its default settings.

    Args:
        name: Its name in the registry; for a pipeline the names of its stages, joined by ":".
        family: The family of models that it must support, if any.
        among: The methods with the settings of a family; further stages come from `STAGES`.

    Raises:
        ValueError: If the name is unknown, or the method does not support the family.
    """
    methods = {**STAGES, **METHODS, **among}
    if JOINT in name:
        names = name.split(JOINT)
        if not all(names):
            raise ValueError(f"a pipeline is names joined by {JOINT!r}, such as {DEFAULT!r}, found {name!r}")
        return Pipeline(*(method_named(each, family, among) for each in names), names=names)
    if name not in methods:
        hint = suggest_word(name, [*methods, *guess_pipelines(name, methods)])
        raise ValueError(f"unknown method {name!r}{hint}: `unweave methods` lists them")
    method = methods[name]
    if family is not None and not method.about.serves(family):
        raise ValueError(
            f"method {name!r} is for models of the family {' or '.join(method.about.families)}, and this is "
            f"about {family}: use another"
        )
    return method
