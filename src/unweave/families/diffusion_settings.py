"""The methods with settings for class-conditional denoisers, by the names of the registry.

The defaults of the registry are settings for classifiers, or for large denoisers. These are starting points
for a small denoiser that was trained with Adam on the mean squared error: short runs, at about a twentieth of
its rate, in batches of 32. None is from a paper; a search may start from them. LUR and the joint loss lead
away from the class or the concept and stay near the original elsewhere (decision 38).
"""

from collections.abc import Mapping
from dataclasses import replace

from unweave.descent.descend import Descent
from unweave.methods import METHODS, Method
from unweave.methods.bad_teacher import BadTeacher
from unweave.methods.conflict import MGDA, CAGrad, MUNBa, PCGrad, UPGrad
from unweave.methods.ct import ConvolutionTranspose
from unweave.methods.erasediff import EraseDiff
from unweave.methods.esd import ESD
from unweave.methods.lur import LUR
from unweave.methods.meta_unlearning import MetaUnlearning
from unweave.methods.msg import MaskedSmallGradients
from unweave.methods.pipeline import Stage
from unweave.methods.recover import Recover
from unweave.methods.sa import SelectiveAmnesia
from unweave.methods.salun import SalUn
from unweave.methods.scissorhands import Scissorhands
from unweave.methods.sfron import SFRon
from unweave.methods.simple import (
    FineTune,
    FromScratch,
    GradientAscent,
    L1Sparse,
    NegGradPlus,
    RandomLabel,
    Shrink,
)
from unweave.space import Choice, Log, Range, Tunable, Uniform
from unweave.targets import Match, Mislabel
from unweave.targets.away import Away
from unweave.targets.estimators.proxy import Proxy
from unweave.tasks.diffusion.sampler import Sampler

EDIT = Descent(lr=1e-4, steps=100, batch=32, optimizer="adam")
"""The descent of unlearning or recovery from trained weights."""

TRAIN = Descent(lr=1e-3, steps=300, batch=32, optimizer="adam", schedule="cosine", warmup=0.05)
"""The descent from fresh weights, for a fraction of a training."""

AWAY = LUR(alpha=0.1, weight=0.5, forget=Away(), retain="both", how=EDIT)
"""The target: away from the output under the class or the concept, by negative guidance."""

REDIRECT = LUR(alpha=0.1, weight=0.33, forget=Mislabel(), how=EDIT)
"""The target: the output of the original under another class."""

MATCH = replace(REDIRECT, forget=Match(Proxy(how=TRAIN)), weight=1.0)
"""The target: the output of a model that never saw the class."""


def modes_of(lur: LUR) -> dict[str, Method]:
    """The methods that differ in LUR's mode alone."""
    return {
        "lur": lur,
        "lur-exact": replace(lur, mode="exact"),
        "lur-lagged": replace(lur, mode="lagged", alpha=0.01),
        "joint": replace(lur, mode="joint"),
    }


PRESETS: Mapping[str, Method] = {
    **modes_of(AWAY),
    "lur-match": MATCH,
    "joint-match": replace(MATCH, mode="joint"),
    "meta-unlearning": MetaUnlearning(alpha=0.3, weight=0.33, forget=Mislabel(), how=EDIT),
    "short-retrain": FromScratch(TRAIN),
    "shrink": Shrink(how=EDIT),
    "finetune": FineTune(EDIT),
    "ascent": GradientAscent(how=replace(EDIT, steps=10, max_norm=1.0)),
    "random-label": RandomLabel(retain_weight=3.0, how=EDIT),
    "neggrad+": NegGradPlus(how=replace(EDIT, max_norm=1.0)),
    "bad-teacher": BadTeacher(EDIT),
    "l1-sparse": L1Sparse(penalty=1e-6, how=EDIT),
    "salun": SalUn(feed="paired", retain_weight=3.0, how=EDIT),
    # the decoder's attention alone, as in the code released for Stable Diffusion
    "scissorhands": Scissorhands(trim=0.03, eligible=r"^up_blocks\..*attentions", how=EDIT),
    "sfron": SFRon(strength=1.0, how=replace(EDIT, max_norm=1.0)),
    "msg": MaskedSmallGradients(rate=0.02, how=EDIT),
    "ct": ConvolutionTranspose(EDIT),
    "munba": MUNBa(how=replace(EDIT, max_norm=1.0)),
    "pcgrad": PCGrad(forget_weight=0.33, how=EDIT),
    "mgda": MGDA(forget_weight=0.33, how=EDIT),
    "cagrad": CAGrad(forget_weight=0.33, how=EDIT),
    "upgrad": UPGrad(forget_weight=0.33, how=EDIT),
    # for the mean over pixels and the Fisher information of samples; the published weight fits neither
    "sa": SelectiveAmnesia(
        pull=640.0,
        per_class=50,
        sampler=Sampler(steps=20),
        fisher_images=50,
        fisher_times=2,
        how=replace(EDIT, max_norm=1.0, ema=0.9999),
    ),
    "esd": ESD(sampler=Sampler(steps=10, guidance=3.0, spacing="leading"), how=EDIT),
    "erasediff": EraseDiff(weight=0.33, passes=0, how=replace(EDIT, ema=0.99)),
    "original": METHODS["original"],
    "retrain": FromScratch(replace(TRAIN, steps=3000)),
}
"""All methods that support denoisers."""

WITHOUT_NULL: Mapping[str, Method] = {**PRESETS, **modes_of(REDIRECT)}
"""The same for a denoiser that never learned a null condition, and has no answer to be led away to."""

STAGE_PRESETS: Mapping[str, Method] = {"recover": Recover(until=None, how=replace(EDIT, steps=50))}
"""The stages with other settings for denoisers."""

RATE = Log(3e-5, 1e-3)
"""The learning rates in searches from trained weights."""

LOOKAHEAD: Mapping[str, Range] = {"alpha": Log(1e-3, 1e-1), "weight": Log(0.03, 3.0)}

FORGET_WEIGHT: Mapping[str, Range] = {"forget_weight": Log(0.03, 3.0)}

RANGES: Mapping[str, Mapping[str, Range]] = {
    "lur": LOOKAHEAD,
    "lur-exact": LOOKAHEAD,
    "lur-lagged": {"alpha": Log(1e-4, 1e-2), "weight": Log(0.03, 3.0)},
    "lur-match": LOOKAHEAD,
    "joint": {"weight": Log(0.03, 3.0)},
    "joint-match": {"weight": Log(0.03, 3.0)},
    "meta-unlearning": {"alpha": Log(0.03, 3.0), "ahead": Choice((0.5, 1.0)), "weight": Log(0.03, 3.0)},
    "short-retrain": {"how.lr": Log(3e-4, 1e-2)},
    "shrink": {"factor": Uniform(0.02, 0.9)},
    "random-label": {"retain_weight": Log(0.3, 30.0)},
    "neggrad+": {"retain_weight": Uniform(0.6, 0.999)},
    "l1-sparse": {"penalty": Log(1e-8, 1e-4)},
    "salun": {"fraction": Uniform(0.1, 0.9), "retain_weight": Log(0.3, 30.0)},
    "scissorhands": {"trim": Log(1e-4, 0.1), "forget_weight": Log(0.03, 3.0)},
    "sfron": {"strength": Log(0.03, 3.0), "threshold": Log(0.3, 30.0)},
    "msg": {"rate": Uniform(0.0, 0.3)},
    "pcgrad": FORGET_WEIGHT,
    "mgda": FORGET_WEIGHT,
    "cagrad": {"c": Uniform(0.1, 0.9), **FORGET_WEIGHT},
    "upgrad": FORGET_WEIGHT,
    "sa": {"pull": Log(10.0, 1e6), "retain_weight": Log(0.3, 10.0)},
    "esd": {"eta": Uniform(0.3, 3.0)},
    "erasediff": {"weight": Log(0.03, 3.0)},
}
"""The other ranges of a search, because those of classifiers do not suit denoisers."""

LENGTHS = ("how.steps", "budget", "until", "forget.proxy.how.steps")
"""The settings of a method's own search space that set its length."""


def search_space(name: str, method: Stage, budget: int) -> Mapping[str, Range]:
    """The lengths of a method's own search space, and otherwise ranges for denoisers."""
    if not isinstance(method, Tunable):
        return {}
    lengths = {path: each for path, each in method.space(budget).items() if path in LENGTHS}
    return {"how.lr": RATE, **lengths, **RANGES.get(name, {})}
