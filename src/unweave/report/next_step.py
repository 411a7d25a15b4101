"""What to do after an audit, by its verdict and reason: the last sentence of its output and of its report.

Records hold no such sentence, so that reports of earlier audits have one as well.
"""

from pathlib import Path

from unweave.audits.diffusion.image_attacks import CONCEPTS
from unweave.audits.margins import RETRAINS
from unweave.audits.verdict import SEEDS

NOT_AUDITED = "not audited yet"
"""A part of the reason of a model without an audit."""

MORE_MODELS = (
    f"a verdict needs {SEEDS + RETRAINS} retrained models. Give the project a train(), or forget a --recipe, "
    f"and audit without --references; or put {SEEDS + RETRAINS} into the folder of --reference."
)
STEPS = {
    NOT_AUDITED: "run unweave audit.",
    "no retrained model": MORE_MODELS,
    f"{SEEDS} needed": MORE_MODELS,
    f"{RETRAINS} needed": MORE_MODELS,
    "without the original": "audit again with --original.",
    "audit is invalid": "do not rely on it. Audit again with more retrained models, or other attacks.",
    "no attacks ran": "audit again with --attacks default.",
    "no attack could judge": "audit again with more retrained models, or with other attacks.",
    "no attack was run": "remove what the reason names, or choose other attacks with --attacks.",
    "nearest stratum": "audit again without --qualified, which retrains for this request.",
    "seeds are needed": (
        "audit once more with twice the retrained models, such as --references 20: every further look makes "
        "a wrong PASS likelier."
    ),
}
"""The step after an INCONCLUSIVE verdict, by a part of its reason; the first that fits counts."""

MORE_PIPELINES = (
    f"a verdict needs {SEEDS + RETRAINS} pipelines retrained without the concept, in the folder of "
    "--reference. Without them compare UA and the attacks with those of the original."
)
CONCEPT_STEPS = {
    **STEPS,
    NOT_AUDITED: "run unweave audit with this folder, --prompts and --data.",
    "no retrained model": MORE_PIPELINES,
    f"{SEEDS} needed": MORE_PIPELINES,
    f"{RETRAINS} needed": MORE_PIPELINES,
}
"""The same for text-to-image models, which nothing here retrains."""


def next_step(verdict: str, reason: str, models: Path | None = None, *, family: str | None = None) -> str:
    """A sentence or two that begin with "Next:".

    Args:
        verdict: PASS, FAIL or INCONCLUSIVE.
        reason: Its reason.
        models: The folder of the retrained models; None if none are kept, or if that is unknown.
        family: The family of the model, as its record names it.
    """
    reference = "a model retrained without the forget set" + (f", from {models}" if models else "")
    if verdict == "PASS":
        return "Next: deploy this model, and keep the report and record.json as the evidence."
    if verdict == "FAIL":
        return (
            f"Next: do not take this model for a retrained one. Deploy {reference}, or choose other settings "
            "by proxy requests, not by repeated audits of this request."
        )
    safe = f"keep the report as the evidence. To be safe, deploy {reference}."
    if "no measurable influence" in reason:
        return f"Next: the original already answers as models retrained without the forget set do; {safe}"
    steps = CONCEPT_STEPS if family == CONCEPTS else STEPS
    return "Next: " + next((step for part, step in steps.items() if part in reason), safe)
