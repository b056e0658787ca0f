"""Text files of people, in the encodings in which editors save them."""

import codecs
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dreamvideo_core import cli
from dreamvideo_core.common.checks import InputError
from dreamvideo_core.common.text_files import read_text
from dreamvideo_core.training.data.listing import list_clips

PACK = Path(__file__).parents[3]
TEXT = "# zwei Stücke\n红圆 🙂\n\nright\n"
MARKS = {
    "utf-8": b"", "utf-8-sig": b"", "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE, "utf-32-be": codecs.BOM_UTF32_BE,
}  # fmt: skip


@pytest.mark.parametrize("encoding", MARKS)
def test_texts_of_all_editors_are_read(tmp_path, encoding):
    path = tmp_path / "prompts.txt"
    path.write_bytes(MARKS[encoding] + TEXT.encode(encoding))
    assert read_text(path, "--prompts") == TEXT


@pytest.mark.parametrize(("data", "words"), [
    ("links\nein grüner Kreis".encode("cp1252"), "is no UTF-8 in line 2; save it as UTF-8"),
    ("left".encode("utf-16-le"), "has a zero byte in line 1"),
    (codecs.BOM_UTF16_LE + b"a", "is no UTF-16 in line 1"),
])  # fmt: skip
def test_other_encodings_are_named_with_option_file_and_line(tmp_path, data, words):
    (tmp_path / "prompts.txt").write_bytes(data)
    with pytest.raises(InputError, match=rf"^--prompts is '.*prompts\.txt', which {words}"):
        read_text(tmp_path / "prompts.txt", "--prompts")
    with pytest.raises(InputError, match=r"--prompts is '.*', which cannot be read"):
        read_text(tmp_path, "--prompts")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_chain_of_a_marked_file_has_no_comment_among_its_sentences(tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(
        "dreamvideo_core.sampling.pipeline.Pipeline.load", lambda *arguments: pytest.fail("the plan was accepted")
    )
    (tmp_path / "prompts.txt").write_text("# a comment\nleft\nright\n", encoding=encoding)
    line = f"chain --prompts {tmp_path / 'prompts.txt'} --seeds '1 2 3' --output {tmp_path / 'a.webp'}"
    assert "seeds names 3 seeds for 2 sentences" in CliRunner().invoke(cli.app, shlex.split(line)).stderr


def test_a_chain_of_another_encoding_names_its_option(tmp_path):
    (tmp_path / "prompts.txt").write_bytes("größer".encode("cp1252"))
    line = f"chain --prompts {tmp_path / 'prompts.txt'} --output {tmp_path / 'a.webp'}"
    said = CliRunner().invoke(cli.app, shlex.split(line))
    assert said.exit_code == 1 and said.stderr.startswith("error: --prompts is ") and said.stderr.count("\n") == 1
    assert "is no UTF-8 in line 1" in said.stderr


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_captions_beside_videos(tmp_path, encoding):
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "a.txt").write_text("ein grüner Kreis\n", encoding=encoding)
    assert [clip.caption for clip in list_clips(tmp_path)] == ["ein grüner Kreis"]
    (tmp_path / "a.txt").write_bytes("ein grüner Kreis".encode("cp1252"))
    with pytest.raises(InputError, match=r"a\.txt', which is no UTF-8 in line 1"):
        list_clips(tmp_path)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_every_console_shows_every_sentence_and_path(tmp_path, encoding):
    """The command in a process of its own; only the frames are not sampled."""
    (tmp_path / "prompts.txt").write_text("left 🙂\nright 红", encoding="utf-8")
    code = (
        "import sys, torch, dreamvideo_core.cli as cli; from dreamvideo_core.sampling import chain, pipeline\n"
        "from types import SimpleNamespace as Made; from dreamvideo_core.models.config import SPRITES\n"
        "pipeline.Pipeline.load = lambda *given: Made(config=SPRITES, check_given=lambda *given: None)\n"
        "def run_chain(pipeline, stages, *rest, on_stage, **more):\n"
        "    [on_stage(stage) for stage in stages]; return Made(frames=torch.zeros(2, 3, 8, 8))\n"
        "chain.run_chain = run_chain; sys.argv[1:] = 'chain --prompts prompts.txt --output 红🙂.webp --device cpu'.split()\n"
        "cli.main()"
    )
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "PYTHONPATH": str(PACK)}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path, env=environment, timeout=300)
    shown, printed = said.stderr.decode(encoding), said.stdout.decode("utf-8" if encoding == "ascii" else encoding)
    assert said.returncode == 0 and "Traceback" not in shown and (tmp_path / "红🙂.webp").is_file()
    smile, red = ("🙂", "红") if encoding == "utf-8" else (r"\U0001f642", r"\u7ea2")
    assert f"stage 1 of 2, seed 0: left {smile}" in shown and f"seed 1: right {red}" in shown
    # typer takes ASCII for a console that does not say what it is, and prints UTF-8 there.
    assert printed.splitlines() == ([f"{red}{smile}.webp"] if encoding == "cp1252" else ["红🙂.webp"])


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8"])
def test_log_lines_of_nodes_fit_every_console(encoding):
    """Through a stream that refuses letters, as ComfyUI's is."""
    code = (
        "import io, logging, sys; from dreamvideo_core.common.consoles import EscapeFilter\n"
        f"sys.stderr = io.TextIOWrapper(sys.stderr.buffer, encoding={encoding!r}, line_buffering=True)\n"
        "logging.basicConfig(level='INFO', format='%(message)s'); log = logging.getLogger('DreamVideo')\n"
        "log.addFilter(EscapeFilter()); log.info('stage %d: %s', 1, 'left 🙂'); log.info('é')"
    )
    said = subprocess.run([sys.executable, "-X", "utf8=0", "-c", code], capture_output=True, cwd=PACK, check=True)
    smile = "🙂" if encoding == "utf-8" else r"\U0001f642"
    assert said.stderr.decode(encoding).splitlines() == [f"stage 1: left {smile}", "é"]
