from unweave.audits.diffusion.relearning import Relearning
from unweave.audits.score import Share


def test_steps_by_hand():
    curve = Relearning(((0, Share(0, 10)), (5, Share(4, 10)), (9, Share(5, 10)), (12, Share(9, 10))))
    assert (curve.steps(), curve.steps(0.4), curve.steps(0.95)) == (9, 5, float("inf"))
