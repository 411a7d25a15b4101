"""Makes small text-to-image models: originals, references retrained without a concept, and what they draw.

    python benchmarks/text_to_image_models.py --out models --seeds 0 1 2 --object three seven --colour red
    python benchmarks/text_to_image_models.py --out models --object three --measure 40 --record found.json
    python benchmarks/text_to_image_models.py --out models --reconstruct three
    python benchmarks/text_to_image_models.py --out models --recipe garments --data FOLDER --object pullover

Each model is a folder for diffusers: models/digits/seed-0/original, models/digits/seed-0/without-three.
A second run continues an interrupted one: finished models stay, and an unfinished training resumes. With
--measure, N images of each object are drawn from every model that is named, under prompts of the training and
under prompts that were never trained; a recogniser of real images says what they show.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from rows import write_json
from torch import Tensor

from unweave.audits.diffusion.factor_recogniser import FactorRecogniser
from unweave.bench.text_to_image_models import TextToImageModels
from unweave.bench.text_to_image_recipe import text_to_image_recipe
from unweave.data.captioned_drawings import HELD_OUT_TEMPLATES, Drawings, write_captioned
from unweave.data.captions import TEXT, Concept
from unweave.result import replace_folder
from unweave.tables import as_table
from unweave.tasks.diffusion.autoencoder import decode, encode
from unweave.tasks.diffusion.sample import sample
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.diffusion.stable_diffusion import StableDiffusion, load
from unweave.tasks.diffusion.text_to_image import Prompts, make_task

Row = Mapping[str, str]
"""A prompt with the factors that it names."""


def make(models: TextToImageModels, folder: Path, seed: int, concept: Concept | None) -> None:
    """Trains and writes a model that is not there yet."""
    if folder.exists():
        print(f"{folder} is there", flush=True)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    start = time.process_time()
    cost = models.write(folder, seed, concept)
    seconds = time.process_time() - start
    print(f"{folder}  {cost.gradients} gradients, {seconds:.0f} CPU-seconds in this run", flush=True)


def prompt_groups(drawings: Drawings) -> dict[str, list[dict[str, str]]]:
    """The prompts to draw: those of the training, and those never trained."""
    return {
        "trained": drawings.prompts(),
        "held-out templates": drawings.prompts(HELD_OUT_TEMPLATES),
        "held-out pairs": drawings.prompts(held_out=True),
    }


def draw(
    pipeline: StableDiffusion, texts: Sequence[str], how: Sampler
) -> UInt8[Tensor, "n channel height width"]:
    """Draws an image of each prompt, from seeds 0, 1, 2, ..."""
    prompts = Prompts(tuple(dict.fromkeys(texts)))
    numbers = torch.tensor([prompts.number(text) for text in texts])
    task = make_task(prompts, pipeline.schedule)
    latents = sample(pipeline.model(prompts), task, numbers, shape=pipeline.shape, how=how, rounded=False)
    return decode(pipeline.autoencoder, latents)


def choose_spread_rows(rows: Sequence[Row], name: str, n: int) -> list[Row]:
    """N prompts of an object, spread evenly over those that name it."""
    group = [row for row in rows if row["object"] == name]
    return [
        group[place * len(group) // n] if n < len(group) else group[place % len(group)] for place in range(n)
    ]


def measure(
    pipeline: StableDiffusion, rows: Sequence[Row], recogniser: FactorRecogniser, n: int, how: Sampler
) -> dict[str, dict[str, float]]:
    """The share of images that show what their prompt names: by object, and in all."""
    prompt_rows = [row for name in recogniser.names["object"] for row in choose_spread_rows(rows, name, n)]
    recognition = recogniser.recognise(draw(pipeline, [row[TEXT] for row in prompt_rows], how))
    hits = {
        factor: [
            (row["object"], bool(recognition.shows(factor, row[factor])[place]))
            for place, row in enumerate(prompt_rows)
            if factor in row
        ]
        for factor in recogniser.names
    }
    by_object = {
        name: sum(each for label, each in hits["object"] if label == name) / n
        for name in recogniser.names["object"]
    }
    means = {factor: sum(each for _, each in pairs) / len(pairs) for factor, pairs in hits.items() if pairs}
    return {"by object": by_object, "all": means}


def measure_all(
    models: TextToImageModels, folders: Sequence[Path], n: int, guidance: float | None
) -> dict[str, Any]:
    """What models draw under each group of prompts, and the settings of the drawing."""
    recipe = models.recipe
    how = recipe.sampler if guidance is None else replace(recipe.sampler, guidance=guidance)
    measurements: dict[str, Any] = {"images of each object": n, "sampler": as_table(how)}
    for folder in folders:
        pipeline = load(folder)
        measurements["/".join(folder.parts[-2:])] = {
            group: measure(pipeline, rows, models.recogniser, n, how)
            for group, rows in prompt_groups(recipe.drawings).items()
        }
    return measurements


def measure_reconstruction(models: TextToImageModels, name: str) -> dict[str, str]:
    """How many held-out images of an object are recognised after an autoencoder that saw it, or never did."""
    concept, data = Concept(column="object", values=(name,)), models.data[1]
    images = data.images[concept.holds(data)]
    other = models.train_autoencoder(concept)
    autoencoders = {"no autoencoder": None, "of all images": models.autoencoder, "that never saw it": other}
    figures: dict[str, str] = {}
    for kind, autoencoder in autoencoders.items():
        output = images if autoencoder is None else decode(autoencoder, encode(autoencoder, images)[0])
        hits = models.recogniser.recognise(output).shows("object", name)
        error = (output.double() - images.double()).square().mean().sqrt() / 255
        figures[kind] = f"{int(hits.sum())} of {len(hits)}, error {float(error):.4f} a pixel"
    return figures


def facts_of(recogniser: FactorRecogniser) -> dict[str, str]:
    """The digest of the recogniser, and its errors on real held-out images."""
    errors = {factor: f"{share.successes} of {share.n}" for factor, share in recogniser.errors.items()}
    return {"digest": recogniser.digest, **errors}


def main() -> None:
    """Runs what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("unweave-text-to-image"))
    parser.add_argument("--recipe", default="digits", help="a name, or the path of a TOML file")
    parser.add_argument("--data", type=Path, help="the folder of the recipe's images, such as Fashion-MNIST")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--object", nargs="*", default=[], help="objects of references, such as three")
    parser.add_argument("--colour", nargs="*", default=[], help="colours of references, such as red")
    parser.add_argument("--measure", type=int, default=0, metavar="N", help="images of each object")
    parser.add_argument("--reconstruct", metavar="OBJECT", help="by an autoencoder that never saw it, too")
    parser.add_argument("--record", type=Path, help="a JSON file for all that was measured")
    parser.add_argument("--guidance", type=float, help="instead of the recipe's")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # more are slower on models of this size
    recipe = text_to_image_recipe(arguments.recipe)
    with_data = recipe if arguments.data is None else recipe.with_data(arguments.data)
    models = TextToImageModels(with_data, arguments.out / "kept")
    concepts: dict[str, Concept | None] = {"original": None}
    for factor, names in (("object", arguments.object), ("colour", arguments.colour)):
        concepts |= {f"without-{name}": Concept(column=factor, values=(name,)) for name in names}
    place = arguments.out / Path(arguments.recipe).stem
    if not (place / "data").exists():
        place.mkdir(parents=True, exist_ok=True)
        with replace_folder(place / "data") as draft_folder:
            write_captioned(draft_folder, *models.data)
    for seed in arguments.seeds:
        for name, concept in concepts.items():
            make(models, place / f"seed-{seed}" / name, seed, concept)
    if not arguments.measure and not arguments.reconstruct:
        return
    results: dict[str, Any] = {"recipe": as_table(recipe), "recogniser": facts_of(models.recogniser)}
    if arguments.reconstruct:
        results["reconstructed"] = {
            arguments.reconstruct: measure_reconstruction(models, arguments.reconstruct)
        }
    if arguments.measure:
        folders = [place / f"seed-{seed}" / name for seed in arguments.seeds for name in concepts]
        results |= measure_all(models, folders, arguments.measure, arguments.guidance)
    print(json.dumps({key: each for key, each in results.items() if key != "recipe"}, indent=1))
    write_json(arguments.record, results)


if __name__ == "__main__":
    main()
