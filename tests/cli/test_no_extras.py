"""The command line starts where no extra is installed, and without what only a report draws with."""

import subprocess
import sys

EXTRAS = ("diffusers", "transformers", "peft", "optuna", "torchvision")
DRAWING = ("matplotlib",)
HELP = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS + DRAWING}))  # an import of any of them raises ImportError
from unweave.cli import main
sys.exit(main(["demo", "--help"]))
"""


def test_help_needs_no_extra_and_draws_nothing():
    done = subprocess.run(
        [sys.executable, "-c", HELP], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "unweave demo" in done.stdout
