"""A model cut over two processes ends where a whole one does; what can't be right is refused by name."""

import json
import warnings

import pytest
import torch
import torch.distributed.checkpoint
from safetensors.torch import load_file

import fsdp
from for_each import for_each
from unweave.record import checkpoint
from unweave.weights.sharded_files import load_sharded

pytestmark = pytest.mark.slow  # cli/test_lora.py has two sharded processes


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fsdp")


@pytest.fixture(scope="module")
def results(place) -> list[dict[str, fsdp.Found]]:
    return fsdp.together(2, place)


@for_each("name", fsdp.QUICK)
def test_sharded_processes_end_where_one_does(name: str, results):
    compare_with_one(name, results[0][name])


@pytest.fixture(scope="module", params=[2, 4])
def slow_results(request, tmp_path_factory) -> list[dict[str, fsdp.Found]]:
    return fsdp.together(request.param, tmp_path_factory.mktemp("slow"), slow=True)


@for_each("name", fsdp.SLOW)
def test_two_and_four_sharded_processes_end_where_one_does_by_other_methods(name: str, slow_results):
    compare_with_one(name, slow_results[0][name], len(slow_results))


def compare_with_one(name: str, shared: fsdp.Found, count: int = 2) -> None:
    kind, dtype, method = fsdp.CASES[name]
    single = fsdp.unlearn_case(kind, dtype, method, sharded=False)
    assert isinstance(single, dict) and isinstance(shared, dict), (single, shared)
    assert shared.keys() == single.keys()
    start = dict(fsdp.model(kind, dtype).named_parameters())
    difference, movement, size = (
        torch.stack([(a[k].double() - b[k].double()).norm() for k in start]).norm()
        for a, b in ((shared, single), (single, start), (single, {k: torch.zeros(()) for k in start}))
    )
    if name.endswith("bf16"):  # bfloat16 keeps 8 bits, and each process rounds the gradient of its rows
        assert difference < count * 2**-7 * movement
    else:
        assert difference < (1e-12 if dtype == torch.float64 else 1e-6) * size
    assert movement > 1e-3 * size


def test_a_model_may_be_sharded_in_part_and_checkpointed(results):
    single = fsdp.root_whole(sharded=False)
    for each in results:
        for key, value in single.items():
            torch.testing.assert_close(each["root whole"][key], value, rtol=0, atol=1e-12)


def test_vectors_over_pieces_are_those_over_whole_weights(results):
    single = fsdp.vectors(sharded=False)
    for each in results:
        vectors = each["vectors"]
        assert vectors.keys() == single.keys()
        for key, value in single.items():
            torch.testing.assert_close(
                vectors[key], value, rtol=1e-14, atol=0, msg=lambda m, key=key: f"{key}: {m}"
            )


@pytest.mark.parametrize("key", ["answers", "answers with LoRA"])
def test_the_model_is_edited_in_place_and_the_original_still_answers(results, key: str):
    for each in results:
        answers = each[key]
        assert bool(answers["same object"])
        assert torch.equal(answers["original"], answers["before"])
        assert not torch.allclose(answers["edited"], answers["before"])
        for name, answer in (("edited", answers["edited"]), ("original", answers["before"])):
            torch.testing.assert_close(answers[f"{name} in audit"].double(), answer, rtol=0, atol=1e-5)


def test_one_file_is_saved_and_reads_into_a_whole_model(results, place):
    model = fsdp.Transformer().double()
    sidecar = checkpoint.load(place / "saved", model)
    expected = results[0]["transformer, nested"]
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    original = fsdp.model("transformer", torch.float64).state_dict()
    assert sidecar["original"] == checkpoint.contents(original)
    record = json.loads((place / "saved" / "record.json").read_text())
    (stage,) = record["stages"].values()
    assert stage["request"]["model"] == "Transformer"
    assert load_file(place / "saved" / "model.safetensors").keys() == original.keys()


def test_a_model_in_pieces_reads_into_sharded_and_whole_models(results, place):
    expected = results[0]["transformer, nested"]
    for each in results:
        weights = each["read in pieces"]
        assert weights.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in weights.items())
    model = fsdp.Transformer().double()
    facts = load_sharded(model, place / "pieces")
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert facts["original"] == checkpoint.contents(fsdp.model("transformer", torch.float64).state_dict())


def test_a_model_in_pieces_is_no_one_file_and_torch_reads_it(results, place):
    folder = place / "pieces"
    assert {each.name for each in folder.iterdir()} == {"sharded", "split.json", "record.json"}
    assert len([*(folder / "sharded").glob("*.distcp")]) == 2
    state = {name: torch.empty_like(each) for name, each in results[0]["transformer, nested"].items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that there is one process
        torch.distributed.checkpoint.load(state, checkpoint_id=folder / "sharded")
    assert all(torch.equal(value, state[name]) for name, value in results[0]["transformer, nested"].items())


def test_a_model_in_pieces_of_another_architecture_is_refused(results, place, tmp_path):
    with pytest.raises(ValueError, match=r"tensor '0.weight' must be .*; build the model that was saved$"):
        load_sharded(fsdp.mlp().double(), place / "pieces")
    with pytest.raises(ValueError, match="its tensors have other types"):
        load_sharded(fsdp.Transformer(), place / "pieces")
    with pytest.raises(ValueError, match=r"expected a sharded model in .*saved.sharded, found none"):
        load_sharded(fsdp.Transformer(), place / "saved")


def test_additions_are_saved_once_and_merge_into_the_whole_original(results, place):
    from peft import PeftModel

    original = fsdp.model("transformer", torch.float64)
    model = PeftModel.from_pretrained(original, str(place / "saved with LoRA" / "lora")).merge_and_unload()
    weights = load_file(place / "saved with LoRA" / "model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


REFUSED = {
    "exact": "need whole weights, found sharded ones: use mode 'nested'",
    "curvature": "need whole weights, found sharded ones",
    "fisher": "gradients of single examples need whole weights, found sharded ones",
    "proxy": "a sharded model can't be copied, and this method or target needs a copy",
    "fresh": "fresh weights for a sharded model need a function that builds it: pass build=",
    "msg": "msg ranks the weights of each matrix, and each process holds a piece of a sharded one",
    "statistics": "norm='train' normalises by the shard of a process, so several would not equal one",
    "search": "a sharded model can't be copied, and erasediff's search for the least loss needs a copy",
    "replay": "a sharded model can't be copied, and this method or target needs a copy",
    "compiled": "the passes of a sharded model are not compiled yet",
    "adafactor": "optimizer 'adafactor' needs the rows and columns of whole tensors",
    "columns": "must be cut into rows over all 2 processes, found 0.weight",
    "wrapped": "expected a model that is not wrapped, found DistributedDataParallel",
}


@for_each(("name", "sentence"), REFUSED.items())
def test_what_can_not_be_right_is_refused_by_name(name: str, sentence: str, results):
    for each in results:
        assert sentence in each["refusals"][name]


def test_a_run_that_fails_late_leaves_the_original_weights(results):
    for each in results:
        before, after = each["failed late"]["before"], each["failed late"]["after"]
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
