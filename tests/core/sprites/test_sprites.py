"""The small world: what is rendered is what the sentence says."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dreamvideo_core.sprites import (
    ACTIONS,
    COLOURS,
    SHAPES,
    Clip,
    phrases,
    render,
    render_batch,
    sample_clip,
    sample_scene,
    sentence,
)
from dreamvideo_core.sprites.scene import (
    GROWTH,
    MARGIN,
    SPEED,
    SPLITS,
    Background,
    Scene,
    Sprite,
    pick,
    sample_background,
    seeded,
)
from dreamvideo_core.sprites.sentences import COMMANDS, PARTICIPLES, SYNONYMS, WORDINGS

SCENES = [sample_scene(seeded("test", 0, i)) for i in range(60)]
PAIRS = [scene for scene in SCENES if len(scene.sprites) == 2]


def every_clip(scene: Scene) -> list[Clip]:
    return [Clip(scene, actor, action) for actor in range(len(scene.sprites)) for action in ACTIONS]


def alone(shape: str = "circle", size: float = 0.15, x: float = 0.5, y: float = 0.5) -> Scene:
    """A blue sprite on black."""
    background = Background("plain", ((0.0,) * 3, (0.0,) * 3), sample_background(seeded("test", 0, 0)).waves)
    return Scene(background, (Sprite(shape, "blue", size, x, y),))


def mass(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Area and centroid (x, y), in shorter sides, of the blue in frames (T, 3, H, W)."""
    cover = (frames[:, 2] + 1) / 2 / COLOURS["blue"][2]
    shorter = min(frames.shape[-2:])
    area = cover.sum((1, 2))
    y, x = ((torch.arange(n) + 0.5) / shorter for n in frames.shape[-2:])
    return area / shorter**2, (cover.sum(1) * x).sum(1) / area, (cover.sum(2) * y).sum(1) / area


def test_the_same_seed_gives_the_same_pixels():
    first, second = (render(sample_clip(seeded("train", 3, 14))) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, render(sample_clip(seeded("train", 3, 15))))
    assert not torch.equal(first, render(sample_clip(seeded("train", 4, 14))))


def test_splits_share_no_scenes():
    scenes = {split: {sample_scene(seeded(split, 0, i)) for i in range(100)} for split in SPLITS}
    assert all(len(found) == 100 for found in scenes.values())
    assert all(scenes[a].isdisjoint(scenes[b]) for a, b in itertools.combinations(SPLITS, 2))


def test_an_unknown_split():
    with pytest.raises(ValueError, match="split is 'dev'; allowed: train, validation, test"):
        seeded("dev", 0, 0)


def test_a_pick_is_numpys_choice():
    streams = [np.random.default_rng(0) for _ in range(2)]
    assert [pick(streams[0], SHAPES) for _ in range(100)] == [streams[1].choice(SHAPES) for _ in range(100)]


@pytest.mark.parametrize("scene", SCENES[:8])
def test_every_clip_of_a_scene_begins_with_the_same_picture(scene):
    clips = every_clip(scene)
    frames = render_batch(clips, num_frames=3)
    assert all(torch.equal(f[0], frames[0, 0]) for f in frames)
    still = [f for f, clip in zip(frames, clips, strict=True) if clip.action == "still"]
    assert all(torch.equal(f, still[0]) for f in still)
    assert torch.equal(still[0], still[0][:1].expand_as(still[0]))
    ends = frames[:, -1].flatten(1)
    different = len({tuple(end.tolist()) for end in ends})
    assert different == len(clips) - len(still) + 1


def test_pixels_are_in_range():
    frames = render_batch([sample_clip(seeded("test", 0, i)) for i in range(20)], num_frames=2)
    assert frames.shape == (20, 2, 3, 64, 64)
    assert frames.amin() >= -1 and frames.amax() <= 1


def test_a_batch_is_its_clips():
    clips = [sample_clip(seeded("test", 0, i)) for i in range(10)]
    together = render_batch(clips, num_frames=3, height=24, width=32)
    for clip, frames in zip(clips, together, strict=True):
        torch.testing.assert_close(frames, render(clip, num_frames=3, height=24, width=32))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("action", "dx", "dy"), [("left", -1, 0), ("right", 1, 0), ("up", 0, -1), ("down", 0, 1), ("still", 0, 0)]
)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 96)])
def test_moves_have_their_direction_and_speed(shape, action, dx, dy, height, width):
    area, x, y = mass(render(Clip(alone(shape), 0, action), num_frames=6, height=height, width=width))
    torch.testing.assert_close(x.diff(), torch.full((5,), dx * SPEED), atol=2e-3, rtol=0)
    torch.testing.assert_close(y.diff(), torch.full((5,), dy * SPEED), atol=2e-3, rtol=0)
    torch.testing.assert_close(area, area[:1].expand(6), rtol=0.03, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("action", "rate"), [("grow", GROWTH), ("shrink", -0.7 * GROWTH)])
def test_growing_and_shrinking(shape, action, rate):
    area, x, y = mass(render(Clip(alone(shape), 0, action), num_frames=6, height=128, width=128))
    torch.testing.assert_close((area / area[0]).sqrt(), 1 + rate * torch.arange(6), rtol=0.02, atol=0)
    torch.testing.assert_close(torch.stack([x, y]), torch.stack([x, y])[:, :1].expand(2, 6), atol=3e-3, rtol=0)


def test_only_the_named_sprite_moves():
    for scene in PAIRS[:8]:
        for actor in (0, 1):
            frames = render(Clip(scene, actor, "grow"), num_frames=4)
            changed = (frames[3] - frames[0]).abs().amax(0) > 1e-4
            y, x = (torch.nonzero(changed).float().T + 0.5) / 64
            sprite = scene.sprites[actor]
            reach = sprite.size * (1 + 3 * GROWTH) * 1.25 + 0.03
            assert (torch.hypot(x - sprite.x, y - sprite.y) < reach).all()


def test_two_sprites_never_share_a_colour_nor_touch():
    assert 20 <= len(PAIRS) <= 40
    for scene in PAIRS:
        a, b = scene.sprites
        assert a.colour != b.colour
        assert np.hypot(a.x - b.x, a.y - b.y) > a.size + b.size


def test_a_small_margin_leaves_sprites_partly_outside():
    def outside(margin: float) -> int:
        clips = [sample_clip(seeded("validation", 0, i), margin) for i in range(40)]
        sprites = [sprite for clip in clips for sprite in clip.scene.sprites]
        return sum(min(s.x, s.y, 1 - s.x, 1 - s.y) < s.size for s in sprites)

    assert outside(MARGIN) == 0
    assert outside(0.05) > 10


@pytest.mark.parametrize("index", range(6))
def test_a_scene_is_the_same_at_any_size(index):
    clip = sample_clip(seeded("test", 1, index))
    small, large = (render(clip, num_frames=4, height=n, width=n) for n in (64, 128))
    difference = (F.avg_pool2d(large, 2) - small).abs()
    assert difference.mean() < 0.01
    assert difference.amax() < 0.5


def test_sentences_name_the_sprite_and_tell_clips_apart():
    for scene in SCENES:
        sentences = [sentence(clip) for clip in every_clip(scene)]
        assert len(set(sentences)) == len(sentences)
        for clip, text in zip(every_clip(scene), sentences, strict=True):
            assert scene.sprites[clip.actor].name in text


def many_sentences(action: str) -> set[str]:
    rng = np.random.default_rng(0)
    return {sentence(Clip(alone(), 0, action), rng) for _ in range(2000)}


@pytest.mark.parametrize("words", [WORDINGS, PARTICIPLES, COMMANDS])
def test_every_wording_belongs_to_one_action_and_is_used(words):
    said = [word for action in ACTIONS for word in words[action]]
    assert len(set(said)) == len(said)
    for action in ACTIONS:
        texts = many_sentences(action)
        for word in words[action]:
            before, after = word.split("{}") if "{}" in word else ("", word)
            assert any(text.startswith(before) and text.endswith(after) for text in texts), word


def test_sentences_in_other_words_name_the_sprite_and_never_another_action():
    by_action = {action: many_sentences(action) for action in ACTIONS}
    assert len(set.union(*by_action.values())) == sum(map(len, by_action.values()))
    names = ("circle", *SYNONYMS["circle"])
    for text in set.union(*by_action.values()):
        assert any(f"blue {name}" in text for name in names)
    assert all(any(f"blue {name}" in text for text in by_action["up"]) for name in names)
    assert any(text.startswith("a video of the blue circle that") for text in by_action["up"])


def test_without_a_stream_the_sentence_is_the_plainest():
    assert sentence(Clip(alone(), 0, "up")) == "the blue circle moves up"


def test_phrases_hold_every_word_of_the_sentences():
    words = {word for phrase in phrases() for word in phrase.split()}
    rng = np.random.default_rng(0)
    assert all(set(sentence(clip, rng).split()) <= words for scene in SCENES for clip in every_clip(scene))


def test_clips_that_cannot_be():
    with pytest.raises(ValueError, match="action is 'jump'; allowed: left"):
        Clip(alone(), 0, "jump")
    with pytest.raises(ValueError, match="actor is 1; the scene has sprites 0 to 0"):
        Clip(alone(), 1, "up")
    with pytest.raises(ValueError, match="at least 1"):
        render(Clip(alone(), 0, "up"), num_frames=0)


def test_the_acting_sprite_is_in_front():
    near = replace(alone(), sprites=(Sprite("circle", "red", 0.2, 0.45, 0.5), Sprite("circle", "blue", 0.2, 0.55, 0.5)))
    for actor, colour in enumerate(("red", "blue")):
        middle = (render(Clip(near, actor, "still"), num_frames=1)[0, :, 32, 32] + 1) / 2
        torch.testing.assert_close(middle, torch.tensor(COLOURS[colour]), atol=0.02, rtol=0)
