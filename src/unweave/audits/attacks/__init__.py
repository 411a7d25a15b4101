"""Attacks on unlearned models, each one file that reads like its paper; `ATTACKS` lists them.

This room stands in `audits`: an attack is a pure function of answers that `descent.populations` and
`audits.classifier.collect` gathered, or of the numbers that it kept of a model when it examined it.
"""

from unweave.audits.attack import Attack
from unweave.audits.attacks import (
    backdoor,
    canaries,
    compression,
    forget_vs_unseen,
    forgetting_quality,
    functional_distance,
    klom,
    klom_gauss,
    label_inference,
    last_layer_bias,
    reidentification,
    relearning,
    representation,
    rmia,
    streisand,
    transfer,
    ulira,
    update_alignment,
    zrf,
)

_ALL = (
    forget_vs_unseen.ATTACK,
    transfer.ATTACK,
    rmia.ATTACK,
    functional_distance.ATTACK,
    streisand.ATTACK,
    representation.ATTACK,
    zrf.ATTACK,
    compression.ATTACK,
    relearning.ATTACK,
    update_alignment.ATTACK,
    label_inference.ATTACK,
    last_layer_bias.ATTACK,
    reidentification.ATTACK,
    ulira.ATTACK,
    forgetting_quality.ATTACK,
    klom.ATTACK,
    klom_gauss.ATTACK,
    backdoor.ATTACK,
    canaries.ATTACK,
)
ATTACKS: dict[str, Attack] = {attack.name: attack for attack in _ALL}
