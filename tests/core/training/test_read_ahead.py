"""Reading ahead of the loop: in order, as far as it should, and to an end."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dreamvideo_core.models.text_encoder import count_tokens, tokenize
from dreamvideo_core.training.pace import Pace
from dreamvideo_core.training.read_ahead import read_ahead


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("reader")]


@pytest.mark.parametrize("readers", [0, 1, 3])
def test_batches_come_in_order_and_once(readers):
    def read(number):
        time.sleep(0.01 * (number % 3))  # later ones are ready first
        return number

    assert list(read_ahead(read, range(20), readers)) == list(range(20))
    assert not threads()


def test_it_reads_a_few_ahead_and_never_all():
    begun = []
    batches = read_ahead(lambda number: begun.append(number), iter(range(100)), 2)
    next(batches)
    time.sleep(0.1)
    assert 1 < len(begun) <= 5
    batches.close()
    assert not threads() and len(begun) <= 5


def test_without_readers_nothing_is_read_ahead():
    begun = []
    batches = read_ahead(lambda number: begun.append(number), range(9), 0)
    assert not begun and next(batches) is None and begun == [0]


def test_a_batch_that_cannot_be_read_fails_in_its_turn():
    def read(number):
        if number == 3:
            raise FileNotFoundError("gone")
        return number

    batches = read_ahead(read, range(9), 2)
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(FileNotFoundError, match="gone"):
        next(batches)
    assert not threads()


def test_two_readers_hide_what_reading_costs():
    def waited(readers: int) -> float:
        """The share of the time, where reading takes as long as a step."""
        pace = Pace()
        batches = read_ahead(lambda number: time.sleep(0.02), range(12), readers)
        for _ in range(12):
            asked = time.monotonic()
            next(batches)
            got = time.monotonic()
            time.sleep(0.02)
            pace += Pace(1, 4, time.monotonic() - asked, got - asked)
        return pace.figures()["data_share"]

    assert waited(0) > 0.4 and waited(2) < 0.2


def test_paces_add_up():
    pace = Pace(1, 4, 2.0, 0.5) + Pace(2, 8, 4.0, 0.1)
    assert pace == Pace(3, 12, 6.0, 0.6)
    assert pace.figures() == {"clips_per_second": 2.0, "data_share": pytest.approx(0.1)}
    assert str(pace) == "2.0 clips/s, 10.0% of the time waiting for data"
    assert str(Pace()) == "no steps"


def test_texts_can_be_tokenised_by_several_threads():
    with ThreadPoolExecutor(8) as pool:
        lengths = [pool.submit(count_tokens, "a red circle moves") for _ in range(200)]
        tokens = [pool.submit(tokenize, ["a red circle moves"] * 8) for _ in range(200)]
        assert {future.result() for future in lengths} == {4}
        assert all((future.result() == tokens[0].result()).all() for future in tokens)
