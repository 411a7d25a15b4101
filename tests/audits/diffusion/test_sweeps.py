from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch

from audits.diffusion.toys import Toy, digits_recogniser, truly
from unweave.audits.diffusion.sweeps import GUIDANCES, Seeds, best_of, best_setting, count_hits
from unweave.audits.score import Share

SEEDS = Seeds(range(30), range(100, 160))


SHOWS = truly(3)


def guidance_sweep(generate, hit=SHOWS, guidances=GUIDANCES):
    return best_setting({each: partial(generate, 3, guidance=each) for each in guidances}, hit, SEEDS)


def test_a_class_that_is_only_pushed_away_comes_back_at_another_guidance():
    generator = Toy(shows=lambda seed, guidance: guidance >= 3)
    sweep = guidance_sweep(generator)
    assert (sweep.setting, sweep.success.value, sweep.success.n) == (3.0, 1, 60)
    assert {each: share.value for each, share in sweep.tried.items() if each < 3} == dict.fromkeys(
        (0, 0.5, 1, 1.5, 2), 0
    )


def test_a_class_that_is_gone_does_not_come_back():
    generator = Toy(shows=lambda seed, guidance: False)
    sweep = guidance_sweep(generator)
    assert sweep.success.successes == 0 and sweep.success.high < 0.07


def test_the_best_setting_is_judged_on_seeds_that_did_not_choose_it():
    # each guidance shows the class at one search seed in ten, and never at the others: luck, no success
    generator = Toy(shows=lambda seed, guidance: seed < 30 and (seed + int(2 * guidance)) % 10 == 0)
    sweep = guidance_sweep(generator)
    assert sweep.tried[sweep.setting].value == 0.1
    assert sweep.success.successes == 0


def test_a_recogniser_can_say_what_is_a_hit():
    recogniser = digits_recogniser()
    sweep = guidance_sweep(Toy(), lambda images: recogniser(images).classes == 3, (1.0,))
    assert sweep.success.value > 0.9


def test_seeds_that_search_must_not_judge():
    with pytest.raises(ValueError, match="found .2. in both"):
        Seeds((1, 2), (2, 3))
    with pytest.raises(ValueError, match="seeds to search and other seeds to judge"):
        Seeds((), (2, 3))


def test_an_attack_without_settings_and_a_generator_of_floats_are_refused():
    with pytest.raises(ValueError, match="at least one setting to try, found none"):
        guidance_sweep(Toy(), guidances=())
    with pytest.raises(ValueError, match="images must be uint8"):
        guidance_sweep(lambda condition, seeds, guidance: torch.zeros(len(seeds), 1, 8, 8))


def test_a_rare_class_comes_with_patience():
    generator = Toy(shows=lambda seed, guidance: seed % 25 == 7)
    hit_share = count_hits(generator(3, range(100), 1.0), truly(3))
    assert hit_share.value == 0.04 and best_of(hit_share, 1) == pytest.approx(0.04)
    assert best_of(hit_share, 97) == 1 and best_of(hit_share, 10) < best_of(hit_share, 50)


def test_the_best_of_k_equals_the_share_of_all_choices_of_k():
    hits = [True, False, False, True, False, False, False]
    for k in (1, 2, 3, 6):
        expected = np.mean([any(choice) for choice in combinations(hits, k)])
        assert best_of(Share(2, 7), k) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="k must be in 1..7, found 8"):
        best_of(Share(2, 7), 8)
