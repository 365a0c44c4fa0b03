from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from whyprune.errors import InputError
from whyprune.recovery import Recovery, recover
from whyprune.recovery.split import split_data


def numbered(rows):
    """Rows whose input is their own number."""
    return TensorDataset(torch.arange(rows, dtype=torch.float32).reshape(-1, 1), torch.arange(rows) % 2)


def in_batches(rows, sizes):
    dataset = numbered(rows)
    return [dataset[start : start + sizes] for start in range(0, rows, sizes)]


def input_rows(batch):
    return [int(row) for row in batch.tensors()[0][:, 0]]


def rows_of(source, epoch=1, **position):
    return [row for batch in source.batches(epoch, **position) for row in input_rows(batch)]


def kinds(rows, size):
    return {
        "dataset": numbered(rows),
        "loader": DataLoader(numbered(rows), batch_size=size, shuffle=True),
        "list": in_batches(rows, size),
        "one batch": in_batches(rows, rows),
        "generator": iter(in_batches(rows, size)),
        "dict": [{"x": x, "labels": y} for x, y in in_batches(rows, size)],
    }


@pytest.mark.parametrize("kind", list(kinds(2, 1)))
@settings(max_examples=20, deadline=None)
@given(rows=st.integers(2, 60), size=st.integers(1, 9), share=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_every_row_is_in_exactly_one_part(kind, rows, size, share, seed):
    parts = split_data(kinds(rows, size)[kind], share, size, seed)
    train, held = rows_of(parts.train), rows_of(parts.validation, 0)
    assert Counter(train + held) == Counter(range(rows))
    assert len(held) == min(max(round(share * rows), 1), rows - 1)


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(2, 50), size=st.integers(1, 8), start=st.integers(0, 5), ranks=st.integers(1, 3))
def test_an_epoch_can_be_entered_anywhere_and_dealt_to_ranks(rows, size, start, ranks):
    train = split_data(numbered(rows), 0.2, size, 0).train
    whole = [input_rows(batch) for batch in train.batches(3)]
    dealt = [[input_rows(b) for b in train.batches(3, start, rank, ranks)] for rank in range(ranks)]
    expected = whole[: len(whole) // ranks * ranks]
    for rank in range(ranks):
        assert dealt[rank] == expected[start * ranks + rank :: ranks]


def test_order_is_new_in_every_epoch_and_held_out_order_is_not():
    parts = split_data(numbered(40), 0.3, 5, 0)
    first, again, second = (rows_of(parts.train, epoch) for epoch in (1, 1, 2))
    assert first == again != second
    assert sorted(first) == sorted(second)
    assert rows_of(parts.validation, 0) == rows_of(parts.validation, 7)


def test_batches_are_of_nearly_equal_size():
    sizes = {len(batch) for batch in split_data(numbered(33), 0, 8, 0).train.batches(1)}
    assert sizes == {6, 7}


def test_drop_last_keeps_the_batch_size():
    loader = DataLoader(numbered(33), batch_size=8, drop_last=True)
    assert [len(batch) for batch in split_data(loader, 0, 1, 0).train.batches(1)] == [8, 8, 8, 8]


def test_loader_keeps_to_its_sampler_collate_and_workers():
    def doubled(samples):
        return torch.stack([2 * x for x, _ in samples]), torch.stack([y for _, y in samples])

    mine = [1, 4, 6, 8, 11, 12]
    loader = DataLoader(
        numbered(20), batch_size=2, sampler=SubsetRandomSampler(mine), collate_fn=doubled, num_workers=1
    )
    parts = split_data(loader, 0.34, 99, 0)
    assert sorted(rows_of(parts.train) + rows_of(parts.validation, 0)) == [2 * row for row in mine]


def test_loader_of_whole_batches():
    class Pages(Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, page):
            return numbered(10)[2 * page : 2 * page + 2]

    parts = split_data(DataLoader(Pages(), batch_size=None), 0.2, 1, 0)
    assert sorted(rows_of(parts.train) + rows_of(parts.validation, 0)) == list(range(10))


class Shuffled:
    """A re-iterable that reorders its batches by epoch, as a loader of images does."""

    def __init__(self, rows):
        self.rows, self.epoch = np.asarray(rows), 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        rows = np.random.default_rng(self.epoch).permutation(self.rows)
        for start in range(0, len(rows), 4):
            x = torch.tensor(rows[start : start + 4], dtype=torch.float32).reshape(-1, 1)
            yield x, x[:, 0].long() % 2


class Splitting(Shuffled):
    def hold_out(self, share, seed):
        held = round(share * len(self.rows))
        return Splitting(self.rows[held:]), Splitting(self.rows[:held])


def test_data_that_splits_itself_is_asked_to():
    parts = split_data(Splitting(range(20)), 0.2, 1, 0)
    assert sorted(rows_of(parts.validation, 0)) == [0, 1, 2, 3]
    assert sorted(rows_of(parts.train, 1)) == sorted(rows_of(parts.train, 2)) == list(range(4, 20))
    assert rows_of(parts.train, 1) != rows_of(parts.train, 2)
    assert rows_of(parts.train, 1, start=2) == rows_of(parts.train, 1)[8:]


def test_reshuffling_data_that_cannot_split_is_refused_or_streamed():
    with pytest.raises(InputError, match=r"hold_out\(share, seed\)"):
        split_data(Shuffled(range(20)), 0.1, 1, 0)
    parts = split_data(Shuffled(range(20)), 0, 1, 0)
    assert parts.validation is None
    assert sorted(rows_of(parts.train)) == list(range(20))


def test_a_stream_that_shrinks_is_an_error():
    data = Shuffled(range(20))
    train = split_data(data, 0, 1, 0).train
    data.rows = data.rows[:8]
    with pytest.raises(InputError, match="gave 2 batches in epoch 1 and 5 before"):
        list(train.batches(1))


def test_augmentation_depends_on_epoch_and_position_not_on_workers():
    class Noisy(Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, row):
            return torch.randn(1) + float(np.random.rand()), row % 2  # noqa: NPY002 - as users do

    def inputs(workers, epoch):
        loader = DataLoader(Noisy(), batch_size=3, num_workers=workers)
        return torch.cat([b.args[0] for b in split_data(loader, 0.2, 1, 0).train.batches(epoch)])

    assert torch.equal(inputs(0, 1), inputs(2, 1))
    assert not torch.equal(inputs(0, 1), inputs(0, 2))


class Endless(IterableDataset):
    def __iter__(self):
        yield torch.zeros(1), 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "empty"),
        (numbered(0), "empty"),
        (numbered(1), "one row"),
        (None, "NoneType"),
        ("images/", "str"),
        (Endless(), "IterableDataset"),
        (DataLoader(numbered(4), sampler=WeightedRandomSampler([1, 1, 1, 1], 4)), "WeightedRandomSampler"),
        (DataLoader(numbered(4), batch_sampler=[[0, 1], [2, 3]]), "draws batches with list"),
    ],
)
def test_data_that_cannot_be_split_is_an_input_error(data, message):
    with pytest.raises(InputError, match=message):
        split_data(data, 0.1, 2, 0)


SEEN = {True: set(), False: set()}


class Recorder(nn.Module):
    """Remembers the rows it saw in training and in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 2)

    def forward(self, x):
        SEEN[self.training] |= {int(row) for row in x[:, 0]}
        return self.linear(x / 100)


@pytest.mark.parametrize("kind", list(kinds(2, 1)))
def test_recovery_never_trains_on_what_it_holds_out(kind):
    model = Recorder()
    parts = split_data(kinds(50, 6)[kind], 0.2, 6, seed=3)
    held = set(rows_of(parts.validation, 0))
    for rows in SEEN.values():
        rows.clear()
    recovery = Recovery(epochs=3, validation_fraction=0.2, batch_size=6)
    recover(model, kinds(50, 6)[kind], recovery, seed=3, progress=False)
    assert SEEN[True] == set(range(50)) - held
    assert held <= SEEN[False]
    assert len(held) == 10
