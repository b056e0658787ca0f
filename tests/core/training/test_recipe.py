"""Recipes: what ships can be read, and what cannot be trained is refused in words."""

import pytest

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.training.recipe import Phase
from dreamvideo_core.training.recipe_files import RECIPES, load_recipe

PHASE = {
    "name": '"one"',
    "objective": '"diffusion"',
    "steps": "2",
    "batch_size": "2",
    "learning_rate": "1e-3",
    "trainable": '["unet"]',
}
HEAD = {"name": '"mine"', "preset": '"sprites"'}


@pytest.fixture
def write(tmp_path):
    def write(head=(), phase=(), phases=1):
        lines = [f"{key} = {value}" for key, value in {**HEAD, **dict(head)}.items() if value is not None]
        table = [f"{key} = {value}" for key, value in {**PHASE, **dict(phase)}.items() if value is not None]
        path = tmp_path / "mine.toml"
        path.write_text("\n".join([*lines, *(["[[phases]]", *table] * phases)]))
        return path

    return write


@pytest.mark.parametrize("name", [path.stem for path in RECIPES.glob("*.toml")])
def test_recipes_that_ship(name):
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.phases


def test_a_recipe_may_begin_with_a_byte_order_mark(write):
    path = write()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_recipe(path).name == "mine"


def test_the_shipped_recipe_drops_as_the_paper_does():
    with_image = [phase for phase in load_recipe("sprites").phases if "retention" in phase.trainable]
    assert {"temporal", "retention"} <= set(with_image[0].trainable) and "unet" not in with_image[0].trainable
    assert all((phase.drop_text, phase.drop_image) == (0.1, 0.1) for phase in with_image)


@pytest.mark.parametrize("name", ["paper", "single_gpu_24gb"])
def test_the_papers_phase_is_the_papers(name):
    (phase,) = load_recipe(name).phases
    assert (phase.sizes, phase.num_frames, phase.stride, phase.epochs) == (((256, 256),), 8, 4, 5)
    assert (set(phase.trainable), phase.drop_text, phase.drop_image) == ({"temporal", "retention"}, 0.1, 0.1)


def test_settings_of_the_command_line(write):
    recipe = load_recipe(write(), ["seed=4", "one.epochs=2", "one.sizes=[[32, 40]]"], data="clips")
    (phase,) = recipe.phases
    assert (recipe.seed, phase.epochs, phase.steps, phase.sizes, phase.data) == (4, 2, 0, ((32, 40),), "clips")


def test_videos_are_held_out_unless_the_recipe_says_otherwise(write):
    held_out = [load_recipe(write(), changes, data).phases[0].held_out for changes, data in (
        ((), None), ((), "clips"), (["one.held_out=0"], "clips"), (["one.held_out=9"], "clips"), (['one.data="clips"'], None),
    )]  # fmt: skip
    assert held_out == [0, 4, 0, 9, 4]


def test_a_recipe_by_its_path(write):
    recipe = load_recipe(write())
    assert recipe.phases == (Phase("one", "diffusion", 2, 2, 1e-3, trainable=("unet",)),)


@pytest.mark.parametrize(("key", "value", "words"), [
    ("colour", '"red"', "unknown: colour"),
    ("steps", None, "missing: steps"),
    ("steps", "0", "steps is 0; allowed: 1 or more"),
    ("steps", '"many"', "steps is 'many'; it must be a whole number"),
    ("steps", "1.5", "steps is 1.5; it must be a whole number"),
    ("steps", "true", "steps is True; it must be a whole number"),
    ("learning_rate", "0", "learning_rate is 0; it must be more than 0"),
    ("learning_rate", "nan", "learning_rate is nan; it must be more than 0"),
    ("objective", '"dream"', "objective is 'dream'; allowed: autoencoder, diffusion"),
    ("trainable", '["vae"]', r"trainable is 'vae'; allowed: unet, temporal"),
    ("trainable", '"unet"', "trainable is 'unet'; allowed: a list"),
    ("trainable", None, "`trainable` belongs to the diffusion objective"),
    ("objective", '"autoencoder"', "`trainable` belongs to the diffusion objective"),
    ("sizes", "[[64, 65]]", "sizes has 64 x 65, whose width is 65; allowed: multiples of 8. Take 64"),
    ("sizes", "[]", "sizes is empty"),
    ("sizes", "[64, 64]", r"sizes is \[64, 64\]; allowed: a list of"),
    ("sizes", "[[64, 64.0]]", "allowed: a list of"),
    ("margin", "0.5", "margin is 0.5; it is a share of a side"),
    ("drop_text", "1.5", "drop_text, a probability, is 1.5; allowed: 0 to 1"),
])  # fmt: skip
def test_settings_of_a_phase_that_cannot_be(write, key, value, words):
    with pytest.raises(ValueError, match=words):
        load_recipe(write(phase={key: value}))


@pytest.mark.parametrize(("key", "value", "words"), [
    ("preset", '"big"', "preset is 'big'; allowed: modelscope, paper, sprites"),
    ("preset", None, "missing: preset"),
    ("mixed_precision", '"fp8"', "mixed_precision is 'fp8'; allowed: auto, no, bf16, fp16"),
    ("seed", '"x"', "seed is 'x'; it must be a whole number"),
    ("phase", "3", "unknown: phase"),
])  # fmt: skip
def test_settings_of_a_recipe_that_cannot_be(write, key, value, words):
    with pytest.raises(ValueError, match=words):
        load_recipe(write(head={key: value}))


def test_phases_that_cannot_be(write, tmp_path):
    with pytest.raises(ValueError, match=r"no \[\[phases\]\]"):
        load_recipe(write(phases=0))
    with pytest.raises(ValueError, match="phases one, one; every phase needs a name of its own"):
        load_recipe(write(phases=2))
    with pytest.raises(ValueError, match=r"phases is 3; write one \[\[phases\]\] table"):
        load_recipe(write(head={"phases": "3"}, phases=0))


@pytest.mark.parametrize(("changes", "words"), [
    ({"gradient_checkpointing": "true"}, "gradient_checkpointing is True .* must be False"),
    ({"gradient_accumulation": "2"}, "gradient_accumulation is 2 .* must be 1"),
    ({"objective": '"autoencoder"', "trainable": None}, "objective is autoencoder .* must be diffusion"),
])  # fmt: skip
def test_graphs_do_not_go_with_everything(write, changes, words):
    with pytest.raises(ValueError, match=words):
        load_recipe(write(phase={"cuda_graphs": "true", **changes}))


def test_what_is_no_recipe(tmp_path):
    with pytest.raises(InputError, match=r"no recipe 'circus'.*sprites"):
        load_recipe("circus")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(ValueError, match=r"broken\.toml is no TOML file"):
        load_recipe(tmp_path / "broken.toml")
