import pytest

from unweave.tasks import require_task
from unweave.tasks.classifier import Classifier
from unweave.tasks.diffusion import Diffusion


def test_a_task_of_the_kind_comes_back_and_another_is_refused_by_name() -> None:
    task = Diffusion(3)
    assert require_task(task, Diffusion, "denoisers") is task
    with pytest.raises(ValueError, match="is for denoisers and needs the task Diffusion, found Classifier"):
        require_task(Classifier(3), Diffusion, "denoisers")
