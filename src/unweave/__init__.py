"""Make a trained model forget a part of its data, and show how close it came to retraining."""

from unweave.auditing import audit as audit
from unweave.audits.classifier.evidence import Evidence as Evidence
from unweave.audits.references import Retrain as Retrain
from unweave.descent.backward import lur_backward as lur_backward
from unweave.methods import METHODS as METHODS
from unweave.methods.lur import LUR as LUR
from unweave.methods.pipeline import Pipeline as Pipeline
from unweave.methods.recover import Recover as Recover
from unweave.problem import Problem as Problem
from unweave.split import Split as Split
from unweave.unlearning import unlearn as unlearn

__version__ = "0.1.0"
