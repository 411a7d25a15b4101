"""Makes a copy of a model forget, with checks before and after."""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType

import torch
from torch import Tensor, nn

from unweave.descent.timing import run_and_time
from unweave.errors import Failed
from unweave.methods.about import refuse_family, refuse_no_method
from unweave.methods.lora import LoRA
from unweave.methods.pipeline import Pipeline, Stage
from unweave.methods.unfit_targets import refuse_unfit_targets
from unweave.problem import Problem
from unweave.record.checkpoint import difference, shapes
from unweave.record.record import package_digest
from unweave.result import Method, Result
from unweave.split import Split
from unweave.tasks import Checking, OfFamily, Task
from unweave.tasks.classifier import Classifier
from unweave.tasks.copies import editable_copy
from unweave.weights.identity import digest_function, digest_model, plain_repr
from unweave.weights.processes import Processes
from unweave.weights.sharded import names_where, not_finite
from unweave.weights.sharded_model import (
    ShardedOriginal,
    digest_weights,
    is_model_sharded,
    refuse_wrapped,
)
from unweave.weights.state_folder import States

log = logging.getLogger(__name__)

__all__ = ["unlearn"]


def unlearn(
    model: nn.Module,
    split: Split,
    method: Method,
    *,
    task: Task | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    build: Callable[[], nn.Module] | None = None,
    state_folder: Path | str | None = None,
    save_every: int = 50,
) -> Result:
    """Makes a copy of a model forget; the model itself stays unchanged.

    A model that `fully_shard` has cut over several processes can't be copied: it is edited in place, and
    `Result.original` answers as it did before. Each process keeps its pieces of the original for that, and
    puts them back if the run fails. All processes must call this together, with the same arguments.

    Args:
        model: A model trained on the forget set and the retain set of `split`.
        split: The data, with the forget set.
        method: A method such as `unweave.LUR()`, or any function that edits a `Problem`.
        task: Scores the model; required unless it is a classifier. None: classification into the classes of
            the split.
        seed: The seed of all randomness.
        device: The device to work on; that of the model if None.
        build: Makes a model of the same architecture with fresh weights, for methods that train from scratch.
            By default a copy whose modules redraw their weights.
        state_folder: Saves the states of the method's descents there. The same call with the same folder
            resumes an interrupted run, also on another number of processes. The states stay: delete the
            folder once the result is saved. None saves none.
        save_every: The number of steps between two saved states.

    Raises:
        ValueError: If the model has no trainable weights or holds NaN, if the test data is the training data,
            if the method or its target does not suit the model or its family, or replaces the model by
            another object, or if the folder holds the states of another run.
        Failed: If the run ends without a usable model: NaN, a single answer to everything, or no change.
    """
    refuse_no_method(method, "the method")
    refuse_no_request(model, split)
    refuse_wrapped(model)
    refuse_unusable(model)
    task = task or Classifier(split.n_classes)
    refuse_family(method, task)
    if isinstance(task, OfFamily):
        refuse_unfit_targets(method, task.family, "method")
    is_sharded = is_model_sharded(model)
    if is_sharded:
        log.info("the model is sharded, so it is edited in place: it can't be copied")
    forms, original = shapes(model.state_dict()), ShardedOriginal(model) if is_sharded else model
    place = torch.device(device) if device is not None else next(model.parameters()).device
    copy_model = editable_copy if leaves_frozen(method) else copy.deepcopy
    working_model = model if is_sharded else copy_model(model).to(place)
    held_out, calibration = split.held_out.to(place), split.calibration.tolist()
    on_device = Split(split.train.to(place), split.forget, held_out, calibration=calibration)
    generator = torch.Generator().manual_seed(seed)
    states = None if state_folder is None else States(Path(state_folder), save_every)
    if states is not None:
        facts = run_facts(original, split, method, task, seed)
        claim_states(states, None if facts is None else {**facts, "model": digest_model(model)})
    problem = Problem(task, working_model, on_device, generator, build, caller_model=original, states=states)
    refuse_unfit_data(problem)
    with restore_after_error(original):
        cost = run_and_time(problem, method)
        refuse_useless(problem, original, forms)
    unlearned = problem.model.eval()
    additions = problem.additions if isinstance(method, LoRA) else None  # other stages may have moved more
    return Result(
        unlearned, method, split, task, seed, original, cost, problem.curves, problem.traces, additions
    )


@contextmanager
def restore_after_error(original: nn.Module) -> Iterator[None]:
    """Gives a sharded model, which is edited in place, its original weights again if the body raises."""
    try:
        yield
    except BaseException:
        if isinstance(original, ShardedOriginal):
            original.restore()
        raise


def refuse_no_request(model: object, split: object) -> None:
    """Raises if something is no model, such as its weights or its class, or no split, such as a data set."""
    kind = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model must be an nn.Module, found {kind}: load weights into a model first")
    if not isinstance(split, Split):
        kind = type(split).__name__
        raise ValueError(f"the split must be a Split, found {kind}: make Split(train, forget, test)")


def leaves_frozen(method: Method | Stage) -> bool:
    """Whether a method is known to leave frozen weights alone: those of the package do, a user's may not."""
    match method:
        case Pipeline():
            return all(map(leaves_frozen, method.stages))
        case LoRA():
            return leaves_frozen(method.method)
        case _:
            return type(method).__module__.startswith("unweave.")


def run_facts(
    original: nn.Module, split: Split, method: Method, task: Task, seed: int
) -> dict[str, object] | None:
    """What the states of a run depend on, on the first process; all processes must call this together."""
    digest = digest_weights(original)
    if Processes.current().rank > 0:
        return None
    code = digest_function(method) if isinstance(method, FunctionType) else ""
    return {
        "method": f"{plain_repr(method)} {code}".strip(),
        "task": plain_repr(task),
        "seed": seed,
        "split": split.digest(),
        "original": digest,
        "code": package_digest(),
    }


def claim_states(states: States, facts: Mapping[str, object] | None) -> None:
    """Marks the folder of the states as that of this run; raises on every process if it is another's."""

    def claim() -> None:
        assert facts is not None  # this is the first process
        states.claim(facts)

    Processes.current().from_first(claim)


def refuse_unusable(model: nn.Module) -> None:
    """Raises if no weight is trainable, or a weight is NaN or infinite."""
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("the model has no trainable weights: set requires_grad on those to train")
    for name in names_where(numbers(model), not_finite):
        raise ValueError(f"weights must be finite, found NaN or infinity in {name!r}: train the model again")


def refuse_unfit_data(problem: Problem) -> None:
    """Raises if the test data is the training data, or the task finds data that does not suit the model."""
    train, test = problem.split.train, problem.split.held_out
    if len(train) == len(test) and train.digest() == test.digest():
        raise ValueError(
            "expected test data that the model was not trained on, found the training data: give other data"
        )
    if isinstance(problem.task, Checking):
        for name, source in (("train", train), ("test", test)):
            problem.task.refuse_unfit(problem.model, source, name)


def refuse_useless(problem: Problem, original: nn.Module, forms: Mapping[str, str]) -> None:
    """Raises if a run has ended without a usable model; `forms` are the shapes of the original's weights."""
    refuse_other_shapes(forms, problem.model)
    refuse_nonfinite(problem.model)
    refuse_unchanged(original, problem)
    if isinstance(problem.task, Checking):
        problem.task.refuse_collapsed(problem.model, *problem.split.part("retain"))


def refuse_other_shapes(before: Mapping[str, str], after: nn.Module) -> None:
    """Raises if a method has changed the names or shapes of the weights."""
    changes = difference(before, shapes(after.state_dict()))
    if changes:
        raise ValueError(f"the method must keep the shapes of the weights: {changes}")


def refuse_nonfinite(model: nn.Module) -> None:
    """Raises if a weight or buffer is NaN or infinite."""
    for name in names_where(numbers(model), not_finite):
        raise Failed(f"{name!r} is no longer finite: the learning rate or the forget loss is too strong")


def refuse_unchanged(before: nn.Module, problem: Problem) -> None:
    """Raises if no weight or buffer has changed."""
    if isinstance(before, ShardedOriginal):
        has_changed = problem.processes.anywhere(before.has_changed(), problem.device)
    else:
        pairs = zip(state(before).values(), state(problem.model).values(), strict=True)
        has_changed = any(not torch.equal(old.cpu(), new.cpu()) for old, new in pairs)
    if not has_changed:
        raise Failed("nothing changed: the method left every weight as it was")


def state(model: nn.Module) -> dict[str, Tensor]:
    """All weights and buffers by name, in order."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def numbers(model: nn.Module) -> dict[str, Tensor]:
    """The weights and buffers that hold floating-point numbers."""
    return {name: each for name, each in state(model).items() if each.is_floating_point()}
