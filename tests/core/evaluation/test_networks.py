"""A user's TorchScript file keeps to the contract, or one line says how not; the small world's classifier."""

import pytest
import torch
from metric_networks import write_network
from torch import Tensor, nn

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.evaluation.classifier import LABELS, SpriteClassifier, label, load_classifier, save_classifier
from dreamvideo_core.evaluation.networks import open_network
from dreamvideo_core.sprites import sample_clip
from dreamvideo_core.sprites.scene import seeded

CPU = torch.device("cpu")
SHAPE = (3, 16, 24)


class OneFrameOnly(nn.Module):
    def forward(self, clips: Tensor) -> Tensor:
        return clips.reshape(len(clips), 3 * 16 * 24)


class Whole(nn.Module):
    def forward(self, clips: Tensor) -> Tensor:
        return clips


class Nothing(nn.Module):
    def forward(self, clips: Tensor) -> Tensor:
        return clips.flatten(1)[:, :4] / 0


def test_a_users_network_sees_the_clip_as_it_is_measured(tmp_path):
    network = open_network(write_network(tmp_path / "n.pt"), "--fvd-network", "features", SHAPE, CPU)
    frames = torch.rand(*SHAPE[:1], 3, *SHAPE[1:]) * 2 - 1
    assert (network.name, network.outputs) == ("n.pt", 6)
    torch.testing.assert_close(network(frames), torch.cat([frames[0].mean((1, 2)), frames[-1].mean((1, 2))]).double())


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (OneFrameOnly(), r"which does not take a clip of shape \(1, 3, 3, 16, 24\): .*invalid for input of size"),
        (Whole(), r"makes shape \(1, 3, 3, 16, 24\) and type torch.float32 of a clip .*allowed: floats \(1, D\)"),
    ],
)
def test_networks_that_do_not_keep_to_it(tmp_path, module, words):
    with pytest.raises(InputError, match=words):
        open_network(write_network(tmp_path / "n.pt", module), "--fvd-network", "features", SHAPE, CPU)


def test_files_that_are_no_networks(tmp_path):
    with pytest.raises(InputError, match=r"--is-network is .*none.pt', and there is no such file; give a TorchScript"):
        open_network(tmp_path / "none.pt", "--is-network", "logits", SHAPE, CPU)
    torch.save({"weights": torch.zeros(2)}, tmp_path / "weights.pt")
    (tmp_path / "text.pt").write_text("no archive")
    for name in ("weights.pt", "text.pt"):
        with pytest.raises(InputError, match="which is no TorchScript file"):
            open_network(tmp_path / name, "--fvd-network", "features", SHAPE, CPU)


def test_what_is_no_number_is_found_out(tmp_path):
    network = open_network(write_network(tmp_path / "n.pt", Nothing()), "--fvd-network", "features", SHAPE, CPU)
    with pytest.raises(InputError, match=r"n\.pt has values that are no numbers"):
        network(torch.zeros(3, 3, 16, 24))


def test_the_classifier_is_read_as_it_was_written(tmp_path):
    torch.manual_seed(0)
    model = SpriteClassifier().eval()
    save_classifier(model, tmp_path / "c.safetensors")
    assert (tmp_path / "c.safetensors").stat().st_size < 1e6
    clips = torch.rand(2, 3, 8, 64, 64) * 2 - 1
    torch.testing.assert_close(load_classifier(tmp_path / "c.safetensors")(clips), model(clips), rtol=1e-2, atol=1e-2)
    for use, outputs in (("features", 96), ("logits", len(LABELS))):
        assert open_network(tmp_path / "c.safetensors", "--fvd-network", use, (5, 32, 48), CPU).outputs == outputs


def test_files_that_are_no_classifiers(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    for name, words in (("other", "which is no classifier of sprites"), ("text", "which cannot be read")):
        with pytest.raises(InputError, match=words):
            open_network(tmp_path / f"{name}.safetensors", "--fvd-network", "features", SHAPE, CPU)


def test_labels_say_what_can_be_seen():
    clips = [sample_clip(seeded("train", 3, index)) for index in range(60)]
    for clip in clips:
        said = LABELS[label(clip)]
        assert said == ("still" if clip.action == "still" else f"{clip.action} {clip.scene.sprites[clip.actor].shape}")
    assert len(LABELS) == 37
