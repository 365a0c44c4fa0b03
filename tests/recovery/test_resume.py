import pickle
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch.utils.data import DataLoader, Dataset

from whyprune.errors import FormatError, InputError
from whyprune.recovery import Recovery, recover
from whyprune.recovery.checkpoint import HEADER, Saved, read

SETUPS = {
    "sgd": Recovery(epochs=3, batch_size=16, learning_rate=0.1, warmup_fraction=0.3),
    "adamw, averaged": Recovery(epochs=3, batch_size=16, optimizer="adamw", ema=0.5),
    "distilled, clipped": Recovery(epochs=3, batch_size=16, learning_rate=0.1, distill=0.5, clip_grad_norm=1.0),
}


class Augmented(Dataset):
    """Random noise from both global generators, as transforms draw it."""

    def __init__(self, tensors):
        self.images, self.labels = tensors

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        image = self.images[row] + 0.1 * torch.randn(3, 6, 6)
        return image + float(np.random.rand()), self.labels[row]  # noqa: NPY002


class Stream:
    """Whole batches in an order of the epoch; splits itself."""

    def __init__(self, tensors):
        self.tensors, self.epoch = tensors, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def hold_out(self, share, seed):
        return Stream([t[8:] for t in self.tensors]), Stream([t[:8] for t in self.tensors])

    def __iter__(self):
        order = np.random.default_rng(self.epoch).permutation(len(self.tensors[0]))
        for rows in np.array_split(order, 4):
            yield tuple(t[torch.from_numpy(rows)] for t in self.tensors)


DATA = {
    "dataset": Augmented,
    "loader": lambda tensors: DataLoader(Augmented(tensors), batch_size=16, shuffle=True),
    "batches": lambda tensors: list(zip(*(t.split(16) for t in tensors), strict=True)),
    "stream": Stream,
}


@pytest.fixture
def runnable(make, dataset):
    """A network, a dense network and the tensors of the data."""
    return make(0), make(7, width=9), dataset.tensors


def interrupt_at(*points):
    """Raises where a person, or SIGTERM, might."""
    left = list(points)

    def hook(epoch, step):
        if left and (epoch, step) == left[0]:
            left.pop(0)
            raise KeyboardInterrupt

    return hook


def same_run(one, other):
    a, b = one.model.state_dict(), other.model.state_dict()
    drop = {"seconds": 0.0}
    return (
        all(torch.equal(a[name], b[name]) for name in a)
        and [e.model_copy(update=drop) for e in one.history] == [e.model_copy(update=drop) for e in other.history]
        and one.best_epoch == other.best_epoch
    )


def interrupted(run, path, points):
    """The result of a run stopped at each of the points, and resumed after each."""
    hook = interrupt_at(*points)
    for _ in points:
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint=path, resume=path.exists(), on_step=hook)
        assert path.exists()
    return run(checkpoint=path, resume=path.exists(), on_step=hook)


@pytest.mark.parametrize("interval", [0, 1e9], ids=["every step", "every epoch"])
@pytest.mark.parametrize(("kind", "setup"), [*product(DATA, SETUPS), ("workers", "sgd")])
def test_a_resumed_run_is_the_uninterrupted_run(runnable, tmp_path, kind, setup, interval):
    network, dense, tensors = runnable
    data = DATA | {"workers": lambda tensors: DataLoader(Augmented(tensors), 16, True, num_workers=1)}
    run = partial(
        recover,
        network,
        data[kind](tensors),
        SETUPS[setup],
        dense=dense,
        seed=5,
        checkpoint_interval_s=interval,
        progress=False,
    )
    points = [(1, 1), (2, 4), (3, 2)]
    assert same_run(run(), interrupted(run, tmp_path / "recovery.safetensors", points))


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    points=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), unique=True, max_size=4).map(sorted),
    interval=st.sampled_from([0, 0.01, 1e9]),
)
def test_wherever_it_is_interrupted(network, dataset, tmp_path_factory, points, interval):
    data = Augmented(dataset.tensors)
    run = partial(recover, network, data, SETUPS["sgd"], checkpoint_interval_s=interval, progress=False)
    path = tmp_path_factory.mktemp("run") / "recovery.safetensors"
    assert same_run(run(), interrupted(run, path, points))


def test_checkpointing_does_not_change_the_run(network, dataset, tmp_path):
    plain = recover(network, dataset, SETUPS["sgd"], progress=False)
    saved = recover(network, dataset, SETUPS["sgd"], checkpoint=tmp_path / "c", progress=False)
    assert same_run(plain, saved)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_finished_run_resumes_to_its_result_without_a_step(network, dataset, tmp_path):
    def never(epoch, step):
        pytest.fail("trained again")

    path = tmp_path / "c"
    first = recover(network, dataset, SETUPS["sgd"], checkpoint=path, progress=False)
    again = recover(network, dataset, SETUPS["sgd"], checkpoint=path, resume=True, on_step=never, progress=False)
    assert same_run(first, again)
    assert again.history == first.history


@pytest.fixture
def stopped(network, dataset, tmp_path):
    """The checkpoint of a run stopped in its second epoch."""
    path = tmp_path / "recovery.safetensors"
    with pytest.raises(KeyboardInterrupt):
        recover(
            network,
            dataset,
            SETUPS["sgd"],
            checkpoint=path,
            checkpoint_interval_s=0,
            on_step=interrupt_at((2, 2)),
            progress=False,
        )
    return path


@pytest.mark.parametrize(
    ("field", "value"), [("learning_rate", 0.2), ("epochs", 4), ("optimizer", "adamw"), ("ema", 0.9)]
)
def test_another_recovery_does_not_resume(network, dataset, stopped, field, value):
    recovery = Recovery(**(SETUPS["sgd"].model_dump() | {field: value}))
    with pytest.raises(FormatError, match=rf"recovery\.{field} was .* and is {value!r} now"):
        recover(network, dataset, recovery, checkpoint=stopped, resume=True, progress=False)


def test_another_seed_network_or_data_does_not_resume(network, make, dataset, stopped):
    def resume(model=network, data=dataset, seed=0):
        recover(model, data, SETUPS["sgd"], seed=seed, checkpoint=stopped, resume=True, progress=False)

    with pytest.raises(FormatError, match="seed was 0 and is 1"):
        resume(seed=1)
    with pytest.raises(FormatError, match=r"model\.0\.weight\.shape was \[6, 3, 3, 3\]"):
        resume(make(0, width=5))
    with pytest.raises(FormatError, match=r"model\.0\.weight\.norm"):
        resume(make(1))
    with pytest.raises(FormatError, match=r"data\.train_batches was 4 and is 2"):
        resume(data=torch.utils.data.Subset(dataset, range(20)))


def test_the_last_bits_of_the_network_do_not_stop_a_resume(network, dataset, stopped):
    """A pruned network made again may differ in rounding; the checkpoint's weights count."""
    whole = recover(network, dataset, SETUPS["sgd"], progress=False)
    with torch.no_grad():
        network[0].weight *= 1 + 1e-7
    resumed = recover(network, dataset, SETUPS["sgd"], checkpoint=stopped, resume=True, progress=False)
    assert same_run(whole, resumed)


def header_of(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()[HEADER]


def refuses(network, dataset, path, match=None):
    with pytest.raises(FormatError, match=match):
        recover(network, dataset, SETUPS["sgd"], checkpoint=path, resume=True, progress=False)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_noticed(network, dataset, stopped, data):
    content = stopped.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    flip = data.draw(st.integers(1, 255))
    corrupt = stopped.with_name("corrupt")
    corrupt.write_bytes(content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :])
    origin = Saved.model_validate_json(header_of(stopped)).origin
    read(stopped, origin)
    with pytest.raises(FormatError):
        read(corrupt, origin)


def test_a_truncated_missing_or_foreign_file_is_refused(network, dataset, stopped, tmp_path):
    content = stopped.read_bytes()
    for length in (0, 7, 100, len(content) // 2, len(content) - 1):
        stopped.write_bytes(content[:length])
        refuses(network, dataset, stopped, "cannot read the checkpoint")
    refuses(network, dataset, tmp_path / "nothing", "nothing")
    refuses(network, dataset, tmp_path)
    torch.save(network.state_dict(), stopped)
    refuses(network, dataset, stopped)


def test_nothing_in_a_hostile_file_is_executed(network, dataset, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    path = tmp_path / "hostile"
    path.write_bytes(pickle.dumps(Hostile()))
    refuses(network, dataset, path)
    assert not (tmp_path / "executed").exists()


def test_a_full_disk_leaves_the_previous_checkpoint(network, dataset, tmp_path):
    resource = pytest.importorskip("resource", reason="file size limits are POSIX")
    path = tmp_path / "recovery.safetensors"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = {}

    def fill_disk(epoch, step):
        if (epoch, step) == (2, 1):
            before["content"] = path.read_bytes()
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    try:
        with pytest.raises(InputError, match=r"could not be written.*resume"):
            recover(
                network,
                dataset,
                SETUPS["sgd"],
                checkpoint=path,
                checkpoint_interval_s=0,
                on_step=fill_disk,
                progress=False,
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before["content"]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    whole = recover(network, dataset, SETUPS["sgd"], progress=False)
    resumed = recover(network, dataset, SETUPS["sgd"], checkpoint=path, resume=True, progress=False)
    assert same_run(whole, resumed)
