"""Which modules of a model are its blocks."""

import pytest
import torch
from torch import nn

from for_each import for_each
from fsdp import Transformer, mlp
from unweave.weights.shard import find_blocks, shard_model
from unweave.weights.sharded_model import load_whole


class Stages(nn.Module):
    """A stem, two stages of blocks of two layers, and a head, as residual networks are built."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
        for name in ("layer1", "layer2"):
            setattr(
                self,
                name,
                nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2))),
            )


@for_each(
    ("model", "names"),
    [
        (mlp(), ["0", "2", "4"]),
        (Transformer(), ["blocks.0", "blocks.1"]),
        (Stages(), ["layer1.0", "layer1.1", "layer2.0", "layer2.1"]),
        (
            nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 3, enable_nested_tensor=False),
            [f"layers.{i}" for i in range(3)],
        ),
    ],
)
def test_repeated_layers_are_blocks(model, names):
    assert find_blocks(model) == names


def test_a_pattern_names_them():
    assert find_blocks(Transformer(), r"blocks\.\d+\.(qkv|up)$") == [
        f"blocks.{i}.{name}" for i in range(2) for name in ("qkv", "up")
    ]


def test_a_model_without_blocks_is_refused():
    model = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(
        ValueError, match="needs blocks, two or more in one nn.ModuleList or nn.Sequential, found none"
    ):
        find_blocks(model)
    with pytest.raises(ValueError, match="names that match 'layer', found none: .* the modules are 0"):
        find_blocks(model, "layer")


def test_without_a_process_group_there_is_nothing_to_shard_over():
    with pytest.raises(ValueError, match="found no process group: start the program"):
        shard_model(mlp())


def test_the_state_of_another_model_is_refused_by_its_first_tensor():
    model, state = mlp(), mlp().state_dict()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    first = next(iter(state))
    for change in ({"strange": state[first]}, {first: state[first][:1]}):
        with pytest.raises(ValueError, match=r"another architecture: tensor .* must be .*build the same"):
            load_whole(model, {**state, **change})
    state.pop(first)
    with pytest.raises(ValueError, match=f"tensor '{first}' must be .* found absent"):
        load_whole(model, state)
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())
