"""Make a trained model forget a part of its data, and show how close it came to retraining."""

from unweave.auditing import audit
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.references import Retrain
from unweave.descent.lur_backward import lur_backward
from unweave.methods import METHODS
from unweave.methods.lora import LoRA
from unweave.methods.lur import LUR
from unweave.methods.pipeline import Pipeline
from unweave.methods.recover import Recover
from unweave.problem import Problem
from unweave.split import Split
from unweave.unlearning import unlearn

__all__ = [
    "LUR",
    "METHODS",
    "Evidence",
    "LoRA",
    "Pipeline",
    "Problem",
    "Recover",
    "Retrain",
    "Split",
    "audit",
    "lur_backward",
    "unlearn",
]

__version__ = "0.1.0"
