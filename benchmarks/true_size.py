"""Erasing a concept at the size of Stable Diffusion 1.5: memory, time, and what `check` foresees.

    python benchmarks/true_size.py --folder sd --record records/true-size.json      # two hours of one core
    python benchmarks/true_size.py --folder sd --record true-size.json --rows uce lora

The folder is a pipeline with the architecture of Stable Diffusion 1.5 and random weights, 4 GB in float32. It
is written first if it is missing; nothing is downloaded. Each row runs in a process of its own, from the
folder to the unlearned weights; rows that the record already has with these steps are not measured again. The
row `uce` encodes four images of 512 px and saves its result; the others get random latents. `whole-lagged`
trains all weights with Adafactor, needs 24 GiB, and runs only if it is named.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import diffusers
import torch
from rows import ENVIRONMENT, read_rows, write_json, write_rows
from transformers import CLIPTextConfig, CLIPTextModel

from unweave.bench.peak_memory import peak_memory
from unweave.cli.checks.rounds import estimate_all
from unweave.cli.checks.timing import method_rounds
from unweave.cli.inputs.concept_work import ConceptWork, make_work
from unweave.cli.inputs.concepts import Concepts
from unweave.cli.inputs.scope import TrainedWeights
from unweave.data.captions import FILE, TEXT, CaptionedImages
from unweave.data.latents import Latents
from unweave.families.text_to_image_settings import text_to_image_method
from unweave.methods import Method
from unweave.methods.configure import configure
from unweave.record.record import environment
from unweave.split import Split
from unweave.tables import merge_tables
from unweave.tasks.diffusion.concept_request import ConceptRequest
from unweave.tasks.diffusion.scopes import Scope
from unweave.tasks.diffusion.stable_diffusion import StableDiffusion, load
from unweave.tasks.diffusion.text_to_image import make_task, number_prompts
from unweave.tasks.diffusion.word_tokenizer import make_tokenizer

T = TypeVar("T")

UNET: Mapping[str, Any] = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
}
"""`unet_config` of v1-inference.yaml, https://github.com/CompVis/stable-diffusion; 859,520,964 weights."""

VAE: Mapping[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
"""`first_stage_config` of the same file; 83,653,863 weights."""

TEXT_ENCODER: Mapping[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
}
"""CLIP ViT-L/14's (Radford et al., 2021, https://arxiv.org/abs/2103.00020, table 20); 123,060,480 weights."""

NOISE: Mapping[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""`linear_start` and `linear_end` of the same file."""

CAPTIONS = ("a red three", "a red four", "a blue three", "a blue four")
CONCEPTS = Concepts(concept=("a three",), target="a four")


@dataclass(frozen=True)
class Row:
    """A run to measure.

    Args:
        method: The name of the method.
        settings: Its settings beside those of the presets.
        scope: The weights to train.
    """

    method: str
    settings: Mapping[str, Any]
    scope: Scope = "cross-attention"

    def make_method(self, steps: int) -> Method:
        """The method, with one image of each part in a step."""
        how = {} if self.method == "uce" else {"how": {"steps": steps, "batch": 1, "forget_batch": 1}}
        return configure(text_to_image_method(self.method), merge_tables(how, self.settings), self.method)


LAGGED, NESTED = Row("lur-lagged", {}), Row("lur", {"mode": "nested"})
ROWS: Mapping[str, Row] = {
    "uce": Row("uce", {}),
    "lagged": LAGGED,
    "nested": NESTED,
    "salun": Row("salun", {}),
    "esd": Row("esd", {"sampler": {"steps": 4, "guidance": 3.0}}),
    "lora": replace(NESTED, scope="lora"),
    # alpha is small since the curvature of random weights is large
    "whole-lagged": Row("lur-lagged", {"alpha": 1e-4, "how": {"optimizer": "adafactor"}}, "all"),
}
LARGE = ("whole-lagged",)
"""The rows that run only if they are named."""


def write_folder(folder: Path) -> None:
    """Writes the pipeline."""
    torch.manual_seed(0)
    words = make_tokenizer({word for text in CAPTIONS for word in text.split()}, 77)
    parts: dict[str, Any] = {
        "vae": diffusers.AutoencoderKL(**VAE),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER)),
        "tokenizer": words,
        "unet": diffusers.UNet2DConditionModel(**UNET),
        "scheduler": diffusers.DDIMScheduler(**NOISE),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    diffusers.StableDiffusionPipeline(**parts).save_pretrained(folder)


def random_images(size: int) -> tuple[CaptionedImages, CaptionedImages]:
    """Random images: one of the concept and one to keep to train on, and as many held out."""
    draw = torch.Generator().manual_seed(1)
    images = torch.randint(256, (len(CAPTIONS), 3, size, size), generator=draw).byte()
    rows = tuple({FILE: f"{i}.png", TEXT: text} for i, text in enumerate(CAPTIONS))
    data = CaptionedImages(images, rows, Path("random"))
    return data.part(torch.tensor([0, 1])), data.part(torch.tensor([2, 3]))


def random_request(pipeline: StableDiffusion) -> ConceptRequest:
    """The same request over random latents."""
    draw = torch.Generator().manual_seed(1)
    mean = torch.randn(len(CAPTIONS), *pipeline.shape, generator=draw)
    data = Latents(mean, torch.full_like(mean, 0.1), torch.arange(len(CAPTIONS)))
    forgotten = [text for text in CAPTIONS if "three" in text]
    prompts = number_prompts(CAPTIONS, concepts=CONCEPTS.concept, forgotten=forgotten, target=CONCEPTS.target)
    train, held_out = (data.rows(torch.tensor(rows)) for rows in ([0, 1], [2, 3]))
    return ConceptRequest(prompts, make_task(prompts, pipeline.schedule), Split(train, [0], held_out))


@dataclass
class Stages:
    """The stages of a run, each with its peak memory and its time."""

    found: dict[str, dict[str, float]]

    def measure(self, name: str, body: Callable[[], T]) -> T:
        """Runs a stage."""
        wall, start = time.perf_counter(), time.process_time()
        with peak_memory("cpu") as peak:
            result = body()
        assert peak.mib is not None
        seconds = {"cpu_seconds": time.process_time() - start, "wall_seconds": time.perf_counter() - wall}
        self.found[name] = {"peak_mib": round(peak.mib), **{k: round(v, 1) for k, v in seconds.items()}}
        print(name, self.found[name], flush=True)
        return result


def read_folder(folder: Path, row: Row, stages: Stages, *, encode: bool = False) -> ConceptWork:
    """The pipeline and the request to it, as `forget` has them."""
    pipeline = stages.measure("load", lambda: load(folder))
    scope = TrainedWeights(scope=row.scope)
    if encode:
        images = random_images(pipeline.image_shape[1])
        return stages.measure("request", lambda: make_work(pipeline, CONCEPTS, scope, *images))
    request = random_request(pipeline)
    model = stages.measure("request", lambda: pipeline.shared_model(request.prompts, row.scope))
    return ConceptWork(CONCEPTS, scope, pipeline, request, model)


def run_row(folder: Path, row: Row, steps: int, out: Path) -> dict[str, Any]:
    """What one run costs, from the folder to the unlearned weights, or to the folder `out` of them."""
    stages = Stages({})
    work = read_folder(folder, row, stages, encode=row.method == "uce")
    result = stages.measure("run", lambda: work.run(row.make_method(steps), seed=0, device=None))
    if row.method == "uce":
        stages.measure("save", lambda: work.save(result, out, name=row.method))
    weights = sum(p.numel() for p in work.model.parameters() if p.requires_grad)
    cost = {"gradients": result.cost.gradients, "examples": result.cost.examples}
    return {"scope": row.scope, "trained weights": weights, "steps": steps, **cost, "stages": stages.found}


def check_row(folder: Path, row: Row, steps: int) -> dict[str, Any]:
    """What `check` foresees of it."""
    stages = Stages({})
    work = read_folder(folder, row, stages)
    rounds = {"": method_rounds(row.make_method(steps), work.model, work.request.split, work)}
    estimate = stages.measure("check", lambda: estimate_all(rounds, torch.device("cpu"), lambda _: None)[""])
    if estimate.refused is not None:
        raise ValueError(estimate.refused)
    return {
        "peak_mib": estimate.peak_mib,
        "gradients": estimate.gradients,
        "stages": stages.found,
    }


def in_own_process(folder: Path, name: str, kind: str, steps: int) -> dict[str, Any]:
    """What a fresh process finds; what it writes lies beside the folder until it ends."""
    with TemporaryDirectory(dir=folder.resolve().parent) as work_folder:
        place = Path(work_folder) / "record.json"
        paths = ["--folder", str(folder), "--record", str(place)]
        command = [sys.executable, __file__, *paths, "--steps", str(steps), f"--{kind}", name]
        subprocess.run(command, check=True)
        return json.loads(place.read_text())


def name_row(name: str, steps: int) -> str:
    """The name of a row of N steps."""
    return f"{name}, {steps} steps"


def measure(folder: Path, place: Path, names: list[str], steps: int, foreseen: list[str]) -> None:
    """Measures what the record lacks."""
    rows = read_rows(place, "rows")
    if not (folder / "model_index.json").exists():
        write_folder(folder)
    for name in names:
        row = rows.setdefault(name_row(name, steps), {})
        kinds = ["run", *(["check"] if name in foreseen else [])]
        for kind in kinds:
            if kind not in row:
                result = in_own_process(folder, name, kind, steps)
                row[kind] = {**result, ENVIRONMENT: environment()}
                write_rows(place, "rows", rows)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, required=True, help="the pipeline; results lie beside it for a while"
    )
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument(
        "--rows", nargs="+", choices=ROWS, default=[each for each in ROWS if each not in LARGE]
    )
    parser.add_argument("--foresee", nargs="*", choices=ROWS, help="the rows to check; all if not given")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--run", choices=ROWS, help="run one row in this process")
    parser.add_argument("--check", choices=ROWS, help="check one row in this process")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.run:
        output = arguments.record.with_name("out")
        write_json(arguments.record, run_row(arguments.folder, ROWS[arguments.run], arguments.steps, output))
    elif arguments.check:
        write_json(arguments.record, check_row(arguments.folder, ROWS[arguments.check], arguments.steps))
    else:
        foreseen = arguments.rows if arguments.foresee is None else arguments.foresee
        measure(arguments.folder, arguments.record, arguments.rows, arguments.steps, foreseen)


if __name__ == "__main__":
    main()
