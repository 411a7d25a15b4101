"""Attacks on unlearned models, each one file that reads like its paper; `ATTACKS` lists them.

This room stands in `audits`: a membership attack is a pure function of answers that `descent.populations`
and `audits.classifier.collect` gathered, and never sees a model. Only the inversion of an update needs one.
"""

from unweave.audits.attacks import forget_vs_unseen, forgetting_quality, inversion, klom, rmia, ulira
from unweave.audits.attacks.result import Attack

_ALL = (
    Attack(
        name="forget-vs-unseen",
        paper="Yeom et al., 2018, arXiv 1709.01604; Song & Mittal, 2021, arXiv 2003.10595",
        evidence="logits of one unlearned model and of retrained ones",
        fewest=forget_vs_unseen.FEWEST,
        says="How well one threshold on one statistic tells forget examples from unseen ones.",
        cannot=forget_vs_unseen.CANNOT,
    ),
    Attack(
        name="rmia",
        paper="Zarifzadeh et al., ICML 2024, arXiv 2312.03262",
        evidence="confidences of one unlearned model and of retrained ones",
        fewest=rmia.FEWEST,
        says="How much more the model believes in a forget example than references do, relative to others.",
        cannot=rmia.CANNOT,
    ),
    Attack(
        name="u-lira",
        paper="Hayes et al., 2024, arXiv 2403.01218",
        evidence="margins of antithetic pairs of shadow models, unlearned and retrained",
        fewest=2 * ulira.FEWEST,
        says="How often an attack on each record alone tells unlearned from never seen.",
        cannot=ulira.CANNOT,
    ),
    Attack(
        name="forgetting-quality",
        paper="Triantafillou et al., 2024, arXiv 2406.09073",
        evidence="margins of many unlearned models and of as many retrained ones",
        fewest=forgetting_quality.FEWEST,
        says="How few rules tell unlearned from retrained models, example by example; 1 is as retraining.",
        cannot=forgetting_quality.CANNOT,
    ),
    Attack(
        name="klom",
        paper="Georgiev et al., 2024, arXiv 2410.23232",
        evidence="margins of many unlearned models and of as many retrained ones",
        fewest=klom.FEWEST,
        says="How far the margins of an example are distributed otherwise than among retrained models.",
        cannot=klom.CANNOT,
    ),
    Attack(
        name="inversion",
        paper="Hu et al., S&P 2024, arXiv 2404.03233",
        evidence="the weights before and after a deletion, and candidate records",
        fewest=1,
        says="How often the deleted record is nearest to what its deletion lets an attacker reconstruct.",
        cannot=inversion.CANNOT,
    ),
)
ATTACKS: dict[str, Attack] = {attack.name: attack for attack in _ALL}
