"""Sentences to tokens and embeddings."""

import pytest
import torch
from tiny import DYNAMICRAFTER, TINY

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.models.text_encoder import TextEncoder, count_tokens, tokenize

START, END = 49406, 49407


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(TINY.text_encoder).eval()


def test_known_tokens():
    assert tokenize(["a photo of a cat"])[0, :8].tolist() == [START, 320, 1125, 539, 320, 2368, END, END]


def test_the_empty_text_is_start_and_end_tokens():
    assert tokenize([""])[0].tolist() == [START] + [END] * 76


def test_stable_diffusion_2_fills_texts_with_0():
    assert tokenize(["", "a"], pad_token_id=0).tolist() == [[START, END] + [0] * 75, [START, 320, END] + [0] * 74]
    encoder = TextEncoder(DYNAMICRAFTER.text_encoder).eval()
    assert torch.equal(encoder.encode(["a"]), encoder(tokenize(["a"], pad_token_id=0)))


def test_long_texts_are_cut_and_still_end():
    tokens = tokenize(["circle " * 200, "circle"])
    assert tokens.shape == (2, 77)
    assert tokens[0, 0] == START and tokens[0, -1] == END and (tokens[0] == END).sum() == 1
    assert len(tokens[0, 1:-1].unique()) == 1


@pytest.mark.parametrize("read", [count_tokens, lambda text: tokenize(["circle", text])])
def test_half_a_character_is_refused_in_words(read):
    with pytest.raises(InputError, match="a text has half a character"):
        read("a \ud83d circle")


def test_case_and_spaces_do_not_matter():
    assert torch.equal(tokenize(["The Red  circle"]), tokenize(["the red circle "]))


def test_embeddings_are_one_vector_per_token_and_repeatable(encoder):
    texts = ["the red circle moves left", "the red circle moves right"]
    embeddings = encoder.encode(texts)
    assert embeddings.shape == (2, 77, 16)
    assert torch.equal(embeddings, encoder.encode(texts))
    torch.testing.assert_close(encoder.encode(texts[:1]), embeddings[:1])
    assert not torch.allclose(embeddings[0], embeddings[1], atol=1e-2)


def test_tokens_see_only_what_is_before_them(encoder):
    left, right = encoder.encode(["the red circle moves left", "the red circle moves right"])
    torch.testing.assert_close(left[:5], right[:5])


def test_the_last_layer_is_normalised(encoder):
    embeddings = encoder.encode(["a star"])
    torch.testing.assert_close(embeddings.mean(-1), torch.zeros(1, 77), rtol=0, atol=1e-4)


def test_weights_go_to_a_file_and_back(encoder):
    state = encoder.file_state()
    assert all(name.startswith("text_model.") for name in state)
    other = TextEncoder(TINY.text_encoder).eval()
    assert not torch.allclose(other.encode(["a star"]), encoder.encode(["a star"]), atol=1e-2)
    other.load_file_state(state)
    assert torch.equal(other.encode(["a star"]), encoder.encode(["a star"]))


def test_words_of_the_given_texts_start_apart_and_all_others_at_zero():
    words = TextEncoder(TINY.text_encoder).initialise(["moves left", "moves right"]).model.get_input_embeddings().weight
    left, right, up = (words[tokenize([word])[0, 1]] for word in ("left", "right", "up"))
    assert (left - right).norm() > 0.5 * left.norm() > 0
    assert not up.any()


def test_tokens_are_counted_without_start_and_end():
    assert count_tokens("") == 0
    assert count_tokens("the red circle") == 3
    assert count_tokens("red " * 80) == 80
