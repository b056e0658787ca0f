"""Eq. 5 and its orders: scales to weights, and weights to one guided prediction."""

import itertools
import random
from dataclasses import replace

import pytest
import torch
from tiny import config, inputs, random_model

from dreamvideo_core.models.config import ScheduleConfig
from dreamvideo_core.models.dreamvideo import DreamVideo
from dreamvideo_core.sampling.guidance import EMPTY, ORDERS, Evaluation, Guidance, guidance_weights, rescale_guidance, two_terms
from dreamvideo_core.sampling.guided_step import GuidedModel
from dreamvideo_core.sampling.schedule import NoiseSchedule

CONDITIONS = list(itertools.product((True, False), repeat=2))


def written_out(f, order: str, s_t: float, s_i: float, t: bool = True, i: bool = True):
    """The sum as the paper writes it, every evaluation run; what is not there is the empty condition."""
    if order == "text_first":
        return f(0, 0) + s_t * (f(t, 0) - f(0, 0)) + s_i * (f(t, i) - f(t, 0))
    return f(0, 0) + s_i * (f(0, i) - f(0, 0)) + s_t * (f(t, i) - f(0, i))


def scales(count: int = 6) -> list[tuple[float, float]]:
    draw = random.Random(0)
    drawn = [(draw.uniform(0, 12), draw.uniform(0, 12)) for _ in range(count)]
    return [*drawn, (0, 0), (1, 1), (3, 3), (1, 4), (4, 1), (0, 2), (2, 0)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("t", "i"), CONDITIONS)
def test_the_weighted_sum_is_the_equation_written_out(order, t, i):
    values = {(text, image): 1.0 + 2.3 * text + 5.7 * image + 11.1 * text * image for text, image in CONDITIONS}
    for s_t, s_i in scales():
        weights = guidance_weights(s_t, s_i, order, has_text=t, has_image=i)
        total = sum(weight * values[evaluation] for evaluation, weight in weights.items())
        expected = written_out(lambda text, image: values[bool(text), bool(image)], order, s_t, s_i, t, i)
        assert total == pytest.approx(expected, abs=1e-9)
        assert sum(weights.values()) == pytest.approx(1)


@pytest.mark.parametrize("order", ORDERS)
def test_the_two_terms_are_the_sum(order):
    values = {
        evaluation: 1.0 + 2.3 * evaluation.text + 5.7 * evaluation.image for evaluation in map(Evaluation._make, CONDITIONS)
    }
    for s_t, s_i in scales():
        weights = guidance_weights(s_t, s_i, order)
        effective, scale = two_terms(weights, values)
        empty = values[EMPTY]
        assert scale != 0
        assert empty + scale * (effective - empty) == pytest.approx(sum(w * values[e] for e, w in weights.items()), abs=1e-9)
        if EMPTY in weights and weights[EMPTY] != 1:
            assert effective == pytest.approx(two_terms(weights, {**values, EMPTY: 100.0})[0], abs=1e-9)  # free of f(0,0)


@pytest.mark.parametrize(("s_t", "s_i", "conditions", "order", "needed"), [
    (3, 2, {}, "text_first", {"00", "10", "11"}),
    (3, 2, {}, "image_first", {"00", "01", "11"}),
    (3, 3, {}, "text_first", {"00", "11"}),
    (3, 3, {}, "image_first", {"00", "11"}),
    (1, 2, {}, "text_first", {"10", "11"}),
    (3, 1, {}, "image_first", {"01", "11"}),
    (1, 1, {}, "text_first", {"11"}),
    (1, 1, {}, "image_first", {"11"}),
    (3, 0, {}, "text_first", {"00", "10"}),
    (0, 0, {}, "text_first", {"00"}),
    (3, 2, {"has_image": False}, "text_first", {"00", "10"}),
    (3, 2, {"has_text": False}, "text_first", {"00", "01"}),
    (1, 2, {"has_image": False}, "text_first", {"10"}),
    (3, 1, {"has_text": False}, "image_first", {"01"}),
    (3, 2, {"has_text": False, "has_image": False}, "text_first", {"00"}),
])  # fmt: skip
def test_only_evaluations_that_count_are_run(s_t, s_i, conditions, order, needed):
    weights = guidance_weights(s_t, s_i, order, **conditions)
    assert {f"{e.text:d}{e.image:d}" for e in weights} == needed


@pytest.mark.parametrize(("s_t", "s_i", "order", "message"), [
    (-1, 1, "text_first", "text_scale is -1"),
    (1, float("nan"), "text_first", "image_scale is nan"),
    (float("inf"), 1, "text_first", "text_scale is inf"),
    (1, 1, "image", "order is 'image'; allowed: text_first, image_first"),
])  # fmt: skip
def test_scales_and_orders_that_cannot_be_used(s_t, s_i, order, message):
    with pytest.raises(ValueError, match=message):
        guidance_weights(s_t, s_i, order)


class Counted:
    """Counts how often each step of a model runs."""

    def __init__(self, model: DreamVideo, monkeypatch: pytest.MonkeyPatch):
        self.calls = dict.fromkeys(("encode", "retain", "decode", "image_map"), 0)
        for name in self.calls:
            monkeypatch.setattr(model, name, self._counting(name, getattr(model, name)))

    def _counting(self, name, function):
        def count(*arguments):
            self.calls[name] += 1
            return function(*arguments)

        return count


@pytest.fixture(scope="module", params=["add", "concat"])
def model(request) -> DreamVideo:
    return random_model(config(fusion=request.param))


def conditions(batch: int = 2):
    latents, _, text, image = inputs(batch)
    texts = {True: text, False: text.flip(1) * 0.5}
    return latents, texts, {True: image, False: torch.ones_like(image)}


@torch.no_grad()
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("t", "i"), CONDITIONS)
def test_the_guided_model_is_the_equation_over_full_passes(model, order, t, i, together):
    latents, texts, images = conditions()
    timesteps = torch.full((2,), 500)
    passes = {(a, b): model(latents, timesteps, texts[a], images[b]) for a, b in CONDITIONS}
    for s_t, s_i in scales(2):
        guided = GuidedModel(model, texts, images, Guidance(s_t, s_i, order), together=together, has_text=t, has_image=i)
        expected = written_out(lambda a, b: passes[bool(a), bool(b)], order, s_t, s_i, t, i)
        torch.testing.assert_close(guided(latents, 500), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_skipping_and_merging_change_nothing(model):
    latents, texts, images = conditions()

    class AllFour(Guidance):
        def weights(self, timestep, **given):
            few = super().weights(timestep, **given)
            return {Evaluation(a, b): few.get((a, b), 0.0) for a, b in CONDITIONS}

    for order, (s_t, s_i) in itertools.product(ORDERS, [(3.0, 3.0), (1.0, 1.0), (1.0, 2.5), (2.5, 1.0), (0.0, 2.0)]):
        skipped, full = (GuidedModel(model, texts, images, kind(s_t, s_i, order))(latents, 300) for kind in (Guidance, AllFour))
        torch.testing.assert_close(skipped, full, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("s_t", "s_i", "encodes", "evaluations"), [(3, 2, 2, 3), (3, 3, 2, 2), (1, 2, 1, 2), (1, 1, 1, 1)])
def test_one_encoding_per_text_and_one_image_map_per_run(model, monkeypatch, s_t, s_i, encodes, evaluations):
    latents, texts, images = conditions()
    counted = Counted(model, monkeypatch)
    guided = GuidedModel(model, texts, images, Guidance(s_t, s_i))
    for timestep in (900, 500):
        guided(latents, timestep)
    maps = len({e.image for e in guidance_weights(s_t, s_i)})
    expected = {"encode": 2 * encodes, "retain": 2 * evaluations, "decode": 2 * evaluations, "image_map": maps}
    assert counted.calls == expected


@torch.no_grad()
def test_together_a_step_is_one_batch(model, monkeypatch):
    latents, texts, images = conditions()
    counted = Counted(model, monkeypatch)
    GuidedModel(model, texts, images, Guidance(3.0, 2.0), together=True)(latents, 900)
    assert counted.calls == {"encode": 1, "retain": 1, "decode": 1, "image_map": 2}


@torch.no_grad()
def test_together_residuals_are_used_again_as_one_by_one(model):
    """The second step, without guidance, has no new ones; the fourth has guidance again, and a batch of another size."""
    latents, texts, images = conditions()
    together, apart = (GuidedModel(model, texts, images, Guidance(3.0, 2.0, end=0.3), 2, mode) for mode in (True, False))
    for timestep in (999, 500, 400, 999):
        torch.testing.assert_close(together(latents, timestep), apart(latents, timestep), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_residuals_are_used_again_between_the_branchs_steps(model, monkeypatch):
    latents, texts, images = conditions()
    counted = Counted(model, monkeypatch)
    reusing, exact = (GuidedModel(model, texts, images, Guidance(3.0, 2.0), every) for every in (2, 1))
    first, second = ([guided(latents, t) for t in (900, 500, 200)] for guided in (reusing, exact))
    assert counted.calls["retain"] == 3 * 2 + 3 * 3
    for step, same in enumerate((True, False, True)):
        assert torch.equal(first[step], second[step]) == same


@torch.no_grad()
def test_a_model_without_a_branch_is_guided_by_text_alone():
    model = random_model(config(retention=False))
    latents, texts, _ = conditions()
    timesteps = torch.full((2,), 500)
    guided = GuidedModel(model, texts, {}, Guidance(3.0, 7.0), has_image=False)
    with_text, without = (model(latents, timesteps, texts[key]) for key in (True, False))
    torch.testing.assert_close(guided(latents, 500), without + 3 * (with_text - without), rtol=1e-4, atol=1e-4)


def test_guidance_is_on_inside_its_interval_alone():
    guidance = Guidance(3.0, 2.0, start=0.2, end=0.7)
    timesteps = NoiseSchedule(ScheduleConfig()).timesteps(10)  # 999, 899, ... 99: shares 0.0, 0.1, ... 0.9
    guided = [guidance.weights(t) == guidance_weights(3.0, 2.0) for t in timesteps]
    assert guided == [0.2 <= share <= 0.7 for share in (round(i * 0.1, 1) for i in range(10))]
    assert all(guidance.weights(t) == {Evaluation(True, True): 1.0} for t, on in zip(timesteps, guided, strict=True) if not on)


@torch.no_grad()
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_clean_latents_are_rescaled_to_the_spread_of_the_conditional_ones(prediction_type):
    schedule = ScheduleConfig(prediction_type=prediction_type)
    model = random_model(replace(config(), schedule=schedule))
    latents, texts, images = conditions()

    def clean(guidance: Guidance) -> torch.Tensor:
        guided = GuidedModel(model, texts, images, guidance)(latents, 700)
        return NoiseSchedule(schedule).split(latents, guided, torch.full((2,), 700))[0]

    conditional = clean(Guidance(1.0, 1.0))
    plain, half, whole = (clean(Guidance(4.0, 3.0, rescale=amount)) for amount in (0.0, 0.5, 1.0))
    torch.testing.assert_close(half, rescale_guidance(plain, conditional, 0.5), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whole.std((1, 2, 3, 4)), conditional.std((1, 2, 3, 4)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("settings", "message"), [
    ({"start": 0.6, "end": 0.5}, "guidance_start is 0.6 and guidance_end is 0.5"),
    ({"end": 1.5}, "guidance_end is 1.5"),
    ({"rescale": -0.1}, "rescale is -0.1; allowed: 0"),
])  # fmt: skip
def test_guidance_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        Guidance(2.0, 2.0, **settings)
