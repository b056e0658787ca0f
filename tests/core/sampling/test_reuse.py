"""What is kept for whoever asks for the same: found by values, never by what merely looks alike, and no more than asked for."""

import pytest
import torch

from dreamvideo_core.sampling.reuse import EveryNth, Kept, Row


class KeptTexts(Kept):
    """What is made of rows is a list of texts."""

    split = staticmethod(lambda texts, count: texts)
    join = staticmethod(list)


def asked(kept: Kept, rows: list[Row], most: int | None = None) -> tuple[list[str], list[int]]:
    """What was found or made of rows, by name, and which of them were made."""
    made: list[int] = []

    def make(numbers: list[int]) -> list[str]:
        made.extend(numbers)
        return [f"{rows[number].key} {rows[number].tensors[0].tolist()}" for number in numbers]

    return kept.get(rows, make, most), made


def row(key: str, *values: float) -> Row:
    return Row(key, (torch.tensor(values, dtype=torch.float32),))


def test_equal_rows_are_made_once_in_a_batch_and_across_batches():
    kept = KeptTexts()
    assert asked(kept, [row("a", 1), row("a", 2), row("a", 1)]) == (["a [1.0]", "a [2.0]", "a [1.0]"], [0, 1])
    assert asked(kept, [row("a", 2), row("b", 2), row("a", 1, 1)]) == (["a [2.0]", "b [2.0]", "a [1.0, 1.0]"], [1, 2])


def test_what_was_asked_with_may_be_written_over():
    kept, mine = KeptTexts(), row("a", 1)
    asked(kept, [mine])
    mine.tensors[0].fill_(2)
    assert asked(kept, [mine]) == (["a [2.0]"], [0])
    assert asked(kept, [row("a", 1)]) == (["a [1.0]"], [])


def test_what_was_asked_for_last_is_kept():
    kept = KeptTexts()
    for value in (1, 2, 1, 3):
        asked(kept, [row("a", value)], most=2)
    assert asked(kept, [row("a", 1)], most=2)[1] == []
    assert asked(kept, [row("a", 2)], most=2)[1] == [0]
    assert asked(kept, [row("a", 4), row("a", 5), row("a", 4)], most=0) == (["a [4.0]", "a [5.0]", "a [4.0]"], [0, 1])
    assert asked(kept, [row("a", 4)])[1] == [0]


def test_what_could_not_be_made_is_made_the_next_time():
    kept = KeptTexts()

    def fail(numbers: list[int]) -> list[str]:
        raise MemoryError

    with pytest.raises(MemoryError):
        kept.get([row("a", 1)], fail)
    assert asked(kept, [row("a", 1)]) == (["a [1.0]"], [0])


def test_numbers_that_are_none_equal_nothing():
    kept = KeptTexts()
    assert asked(kept, [row("a", float("nan"))] * 2)[1] == [0, 1]


def test_a_batch_is_cut_into_rows_and_joined_from_them():
    kept, made = Kept(), []

    def double(numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        made.append(numbers)
        values = torch.tensor([rows[number].tensors[0].item() for number in numbers])
        return 2 * values.repeat_interleave(3), -values  # three frames a clip, and one value

    for values in ([5, 6, 5], [6, 7]):
        rows = [row("a", value) for value in values]
        frames, each = kept.get(rows, double)
        assert frames.tolist() == [2 * value for value in values for _ in range(3)]
        assert each.tolist() == [-value for value in values]
    assert made == [[0, 1], [1]]


def test_every_nth_step_begins_anew():
    every = EveryNth(2)
    kept = [every.at(step) for step in (0, 0, 1, 2, 3, 1)]
    assert kept[0] is kept[1] is kept[2] and kept[3] is kept[4]
    assert len({id(one) for one in kept}) == 3
