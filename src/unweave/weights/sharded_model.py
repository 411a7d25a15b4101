"""Models that FSDP2's `fully_shard` has cut over processes: they are edited in place and never copied."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unweave.errors import UnfitProcesses
from unweave.record.checkpoint import contents, difference, shapes
from unweave.tasks import evaluating
from unweave.weights.sharded import cut, is_sharded, local_rows


def is_model_sharded(model: nn.Module) -> bool:
    """Whether a model has sharded weights."""
    return any(map(is_sharded, model.parameters()))


def prepare_sharded(model: nn.Module) -> None:
    """Lets a sharded model free its whole weights after every pass, and add up its gradients by a plain sum.

    So no whole weight outlives an edit. For a mean in float32, gloo of torch 2.8 gives the sum.

    Raises:
        ValueError: If it is sharded in a way that is not supported.
    """
    from torch.distributed.fsdp import FSDPModule

    for name, p in model.named_parameters():
        if is_sharded(p):
            refuse_other_placement(name, p)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(True, recurse=False)
            module.set_force_sum_reduction_for_comms(True)


def refuse_other_placement(name: str, tensor: Tensor) -> None:
    """Raises unless a tensor is cut into rows over all processes."""
    mesh, placements = tensor.device_mesh, tensor.placements  # pyright: ignore[reportAttributeAccessIssue]
    if mesh.ndim != 1 or mesh.size() != dist.get_world_size() or not placements[0].is_shard(0):
        raise UnfitProcesses(
            f"a sharded model must be cut into rows over all {dist.get_world_size()} processes, found {name} "
            f"as {placements} over {tuple(mesh.shape)}: use fully_shard with a mesh of one dimension"
        )


def refuse_wrapped(model: nn.Module) -> None:
    """Raises if a module of torch's earlier kinds of data parallelism wraps the model or a part of it."""
    kinds = ("DistributedDataParallel", "FullyShardedDataParallel")
    kind = next((type(m).__name__ for m in model.modules() if type(m).__name__ in kinds), None)
    if kind is not None:
        raise ValueError(
            f"expected a model that is not wrapped, found {kind}: give the model itself, whose gradients "
            "unweave adds up, or shard it by torch.distributed.fsdp.fully_shard"
        )


def refuse_copy(model: nn.Module, needed_by: str) -> None:
    """Raises if a model is sharded, for what needs a copy of it."""
    if is_model_sharded(model):
        raise UnfitProcesses(
            f"a sharded model can't be copied, and {needed_by} needs a copy: choose another, or use "
            "processes that each hold the whole model"
        )


def reshard(model: nn.Module) -> None:
    """Frees the whole weights that a pass may have left."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


class ShardedOriginal(nn.Module):
    """Answers as a sharded model did before it was edited.

    A copy of the model is impossible. So each process keeps its pieces of the trainable weights, puts them in
    the place of the present ones for a pass, and then puts the present ones back, bit for bit.

    Args:
        model: The sharded model, not yet edited.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._edited = (model,)  # in a tuple: it is no module of this one, which has nothing to train
        changeable = changeable_tensors(model)
        self._names = tuple(changeable)
        self.kept = nn.ParameterList(
            nn.Parameter(local_rows(each).clone(), requires_grad=False) for each in changeable.values()
        )

    @property
    def edited_model(self) -> nn.Module:
        """The model that is edited."""
        return self._edited[0]

    def forward(self, *args: object, **kwargs: object) -> object:
        """The answer of the original, in evaluation mode and without a gradient."""
        with torch.no_grad(), evaluating(self.edited_model), self.put_back():
            return self.edited_model(*args, **kwargs)

    @contextmanager
    def put_back(self) -> Iterator[nn.Module]:
        """Yields the model with its original weights."""
        self._exchange()
        try:
            yield self.edited_model
        finally:
            self._exchange()

    def restore(self) -> None:
        """Puts the original weights back into the model; this one then answers as the edited model did."""
        self._exchange()

    def has_changed(self) -> bool:
        """Whether any of this process's weights or buffers differs from the original's."""
        return any(not torch.equal(piece, local_rows(now)) for piece, now in self._pairs())

    def _exchange(self) -> None:
        reshard(self.edited_model)
        for piece, each in self._pairs():
            rows = local_rows(each)
            # an earlier pass may still need an unchanged buffer for its gradient
            if is_sharded(each) or not torch.equal(rows, piece):
                backup = rows.clone()
                rows.copy_(piece)
                piece.copy_(backup)

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each kept piece with the tensor of the edited model, which a method may have frozen since."""
        now = {**dict(self.edited_model.named_parameters()), **dict(self.edited_model.named_buffers())}
        return ((piece, now[name].detach()) for piece, name in zip(self.kept, self._names, strict=True))


def changeable_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The trainable weights and the buffers of a model."""
    trainable = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    return {**trainable, **dict(model.named_buffers())}


def class_name(model: nn.Module) -> str:
    """The name of a model's class, without what sharding makes of it."""
    return plain_class(model.edited_model if isinstance(model, ShardedOriginal) else model).__name__


def plain_class(module: nn.Module) -> type[nn.Module]:
    """The class of a module before it was sharded."""
    if type(module).__name__.startswith("FSDP") and type(module).__mro__[1].__name__ == "FSDPModule":
        return type(module).__mro__[2]
    return type(module)


def whole_state(model: nn.Module) -> Mapping[str, Tensor]:
    """The state of a model; of a sharded one on the CPU of the first process, and empty on the others.

    All processes that share a model must call this together.
    """
    if isinstance(model, ShardedOriginal):
        with model.put_back() as original:
            return whole_state(original)
    state = model.state_dict()
    if not is_model_sharded(model):
        return state
    tensors = ((name, gather(each)) for name, each in state.items())
    return {name: each.cpu() for name, each in tensors if dist.get_rank() == 0}


def digest_weights(model: nn.Module) -> str:
    """The digest of a model's state, as `checkpoint.contents` has it; one sharded tensor is whole at a time.

    All processes that share a model must call this together.
    """
    if isinstance(model, ShardedOriginal):
        with model.put_back() as original:
            return digest_weights(original)
    return contents(model.state_dict(), gather)


def load_whole(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads a whole state, which every process holds, into a model that may be sharded.

    Raises:
        ValueError: If it is the state of another architecture.
    """
    model_state = model.state_dict()
    mismatch = difference(shapes(model_state), shapes(state))
    if mismatch:
        raise ValueError(f"the weights to load are of another architecture: {mismatch}: build the same model")
    model.load_state_dict({name: cut(each, model_state[name]) for name, each in state.items()})


def gather(tensor: Tensor) -> Tensor:
    """The whole of a tensor, on every process."""
    return tensor.detach().full_tensor() if is_sharded(tensor) else tensor.detach()  # pyright: ignore[reportAttributeAccessIssue]


def gather_on_first(model: nn.Module) -> nn.Module:
    """A whole copy of a sharded model, on the CPU of the first process; the model itself elsewhere.

    All processes that share a model must call this together.
    """
    if not is_model_sharded(model):
        return model
    state = whole_state(model)
    return whole_copy(model, state) if dist.get_rank() == 0 else model


def whole_copy(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A model that is not sharded, of the same class and settings, to be written.

    Args:
        model: The sharded model.
        state: Its whole state, from `whole_state`.
    """
    return _copy_module(model, "", partial(_whole_tensor, state, {}))


def _whole_tensor(
    state: Mapping[str, Tensor], tensors: dict[int, Tensor], name: str, tensor: Tensor | None
) -> Tensor | None:
    """The whole tensor of that name; the same object for a tied one."""
    if tensor is None:
        return None
    if id(tensor) not in tensors:
        value = state[name] if name in state else gather(tensor).cpu()  # a buffer that is not saved
        is_weight = isinstance(tensor, nn.Parameter)
        tensors[id(tensor)] = nn.Parameter(value, requires_grad=tensor.requires_grad) if is_weight else value
    return tensors[id(tensor)]


def _copy_module(
    module: nn.Module, path: str, whole: Callable[[str, Tensor | None], Tensor | None]
) -> nn.Module:
    module_copy = object.__new__(plain_class(module))
    hooks = {name: type(value)() for name, value in vars(module).items() if name.endswith("_hooks")}
    module_copy.__dict__ |= {**vars(module), **hooks}  # sharding works by hooks
    module_copy._parameters = {name: whole(path + name, p) for name, p in module._parameters.items()}  # pyright: ignore[reportAttributeAccessIssue]
    module_copy._buffers = {name: whole(path + name, b) for name, b in module._buffers.items()}
    module_copy._modules = {
        name: None if child is None else _copy_module(child, f"{path}{name}.", whole)
        for name, child in module._modules.items()
    }
    return module_copy
