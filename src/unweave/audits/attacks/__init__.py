"""Attacks on unlearned models, each one file that reads like its paper; `ATTACKS` lists them.

This room stands in `audits`: an attack is a pure function of answers that `descent.populations` and
`audits.classifier.collect` gathered, or of the numbers that it kept of a model when it examined it.
"""

from unweave.audits.attacks import forget_vs_unseen, forgetting_quality, inversion, klom, rmia, ulira
from unweave.audits.attacks.attack import Attack

_ALL = (
    forget_vs_unseen.ATTACK,
    rmia.ATTACK,
    ulira.ATTACK,
    forgetting_quality.ATTACK,
    klom.ATTACK,
    inversion.ATTACK,
)
ATTACKS: dict[str, Attack] = {attack.name: attack for attack in _ALL}
