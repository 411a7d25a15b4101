"""Resetting the words of a concept: which rows of the table move, and how they are drawn."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from text_to_image import pipeline, request
from unweave.methods import method_named
from unweave.methods.reset_tokens import TABLE, ResetTokens, embeddings_of, own_tokens
from unweave.weights.sharded_model import gather


def test_the_words_that_only_forgotten_prompts_hold_are_drawn_anew():
    of = request("text encoder")
    before = {name: value.clone() for name, value in of.model.state_dict().items()}
    ResetTokens()(of)
    (name,) = [each for each in before if each.endswith(TABLE)]
    names = {key for key, value in of.model.state_dict().items() if not torch.equal(value, before[key])}
    assert names == {name} and of.cost.gradients == 0
    old, new = before[name], embeddings_of(of.model).detach()
    rows = (old != new).any(1).nonzero()[:, 0]
    tokenizer, texts = pipeline().tokenizer, of.task.prompts.texts
    forgotten = {token for text in texts if "three" in text for token in tokenizer(text)["input_ids"]}
    others = {token for text in ["", *texts] if "three" not in text for token in tokenizer(text)["input_ids"]}
    assert rows.tolist() == sorted(forgotten - others) == own_tokens(of).tolist()
    assert 0.5 < float(new[rows].std() / old.std()) < 2


def test_other_words_of_a_forgotten_prompt_stay():
    of = request("text encoder")
    texts, concept = of.task.prompts.texts, pipeline().tokenizer("a three")["input_ids"]
    red = [number for number, text in enumerate(texts) if "red" in text]
    prompts = replace(of.task.prompts, forgotten=tuple({*of.task.prompts.forgotten, *red}))
    of.task = replace(of.task, prompts=prompts)
    assert {*own_tokens(of).tolist()} <= {*concept}  # "red" is in forgotten prompts alone now


def test_the_seed_decides():
    tables = []
    for seed in (0, 0, 1):
        of = request("text encoder", seed=seed)
        ResetTokens()(of)
        tables.append(embeddings_of(of.model).detach().clone())
    assert torch.equal(tables[0], tables[1]) and not torch.equal(tables[0], tables[2])


@pytest.fixture
def one_process():
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_a_sharded_table_gets_the_same_words(one_process):
    full, sharded_problem = request("text encoder"), request("text encoder")
    fully_shard(sharded_problem.model, mesh=one_process)
    for of in (full, sharded_problem):
        ResetTokens()(of)
    assert torch.equal(gather(embeddings_of(sharded_problem.model)), embeddings_of(full.model))


def test_it_is_a_stage_and_refuses_what_it_cannot_edit():
    assert isinstance(method_named("reset-tokens", "text-to-image"), ResetTokens)
    with pytest.raises(ValueError, match='load it with the scope "text encoder"'):
        ResetTokens()(request("all"))
    problem = request("text encoder")
    problem.model.words.requires_grad_(False)  # and maybe in memory that it shares with the original
    with pytest.raises(ValueError, match="its embeddings are frozen: load the model"):
        ResetTokens()(problem)
    of = request("text encoder")
    prompts = replace(of.task.prompts, forgotten=of.task.prompts.forgotten[:1], concepts=())
    of.task = replace(of.task, prompts=prompts)
    with pytest.raises(ValueError, match="every word of the concept is in prompts to keep too"):
        ResetTokens()(of)
