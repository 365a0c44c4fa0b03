"""Where the images of a batch lie is found in every value, and what mixes images is named."""

import operator

import pytest
import torch
import torch.nn.functional as F
from networks import CASES, randomised, traced
from removal_property import fresh_batch
from torch import Tensor, nn

from causal.batch_elsewhere import MIDDLES, both, others
from whyprune.causal.exact import exact_effects
from whyprune.data.batches import as_batch
from whyprune.errors import InputError
from whyprune.structure.batch_place import FIRST, BatchPlace
from whyprune.structure.replay import Replay
from whyprune.structure.trace import trace

PLACES = [FIRST, BatchPlace(1), BatchPlace(2), BatchPlace(0, 1, 3), BatchPlace(0, 4, 1), BatchPlace(1, 2, 3)]


def numbered(place: BatchPlace, images: int) -> Tensor:
    """A value whose entries say which image is theirs, and are all different after the comma."""
    shape = [5, 6, 7]
    shape[place.dim] = place.before * images * place.after
    number = torch.arange(images).repeat_interleave(place.after).repeat(place.before)
    number = number.reshape([-1 if d == place.dim else 1 for d in range(3)]).expand(shape)
    return number + torch.arange(number.numel()).reshape(shape) / (2 * number.numel())


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_images_are_taken_split_and_brought_to_the_front(place):
    value, images = numbered(place, 4), torch.tensor([3, 0, 0, 2, 1])
    front = place.front(value, 4)
    assert len(front) == 4
    assert front.numel() == value.numel()
    for image in range(4):
        assert (front[image].floor() == image).all()
        assert torch.equal(
            place.front(place.take(value, images[images == image], 4), int((images == image).sum()))[0], front[image]
        )
    assert torch.equal(place.front(place.take(value, images, 4), 5), front[images])
    first, second = place.split(value, 2)
    assert torch.equal(place.front(first, 2), front[:2])
    assert torch.equal(place.front(second, 2), front[2:])
    assert torch.equal(place.join([first, second]), value)
    for dim in {0, 1, 2} - {place.dim}:
        assert front.shape[place.in_front(dim)] == value.shape[dim]
        assert torch.equal(
            place.front(value.index_select(dim, torch.tensor([1])), 4), front.narrow(place.in_front(dim), 1, 1)
        )


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_numbers_per_image_are_spread_over_a_value(place):
    value = numbered(place, 4)
    rows = torch.tensor([2.0, 3.0, 5.0, 7.0])
    assert torch.equal((place.spread(rows, value) * torch.ones_like(value)), rows[value.floor().long()])
    for dim in {0, 1, 2} - {place.dim}:
        table = torch.randn(4, value.shape[dim])
        channel = torch.arange(value.shape[dim]).reshape([-1 if d == dim else 1 for d in range(3)]).expand(value.shape)
        assert torch.equal(
            place.spread(table, value, dim) * torch.ones_like(value), table[value.floor().long(), channel]
        )


def test_fewer_heads_beside_the_images_are_no_other_number_of_images():
    place = BatchPlace(1, 1, 4)
    value = torch.arange(6).reshape(1, 6)  # three images, of four heads two are left
    assert place.take(value, torch.tensor([2, 0]), 3).tolist() == [[4, 5, 0, 1]]
    with pytest.raises(InputError, match="does not hold 4 images"):
        place.take(value, torch.tensor([0]), 4)


def real(value: Tensor) -> Tensor:
    return (torch.view_as_real(value) if value.is_complex() else value).double()


def assert_places_hold(network, batch):
    """Every value of a batch is, image by image, the value of that image alone."""
    replay = Replay(network)
    together = replay.run(batch)
    alone = [replay.run(batch[torch.tensor([k])]) for k in range(len(batch))]
    checked = 0
    for node in replay.order:
        value, found = together[node], network.places.found(node)
        if isinstance(found, BatchPlace) and isinstance(value, Tensor):
            front = real(found.front(value, len(batch)))
            for k, values in enumerate(alone):
                only = real(found.front(values[node], 1)[0])
                torch.testing.assert_close(front[k], only, rtol=1e-4, atol=1e-4, equal_nan=True)
            checked += 1
    assert checked > 2
    network.check_images_apart()


@pytest.mark.parametrize("name", MIDDLES)
@pytest.mark.parametrize("way", [0, 1], ids=["time first", "images first"])
def test_the_images_of_sequences_are_found(name, way):
    model = both(name)[way]
    assert_places_hold(trace(model, torch.randn(2, 4, 8)), as_batch(torch.randn(8, 4, 8)))


@pytest.mark.parametrize("name", others())
def test_merged_images_are_found(name):
    model, inputs = others()[name]
    network = trace(randomised(model), inputs(2))
    assert_places_hold(network, as_batch(inputs(5), network.positional))


@pytest.mark.parametrize("name", [n for n in CASES if traced(n).graph.batch_size is None][::5])
def test_the_images_of_other_networks_are_found(name):
    assert_places_hold(traced(name), fresh_batch(traced(name), count=3))


@pytest.mark.parametrize(("outside", "place"), [(True, BatchPlace(0, 3, 1)), (False, BatchPlace(0, 1, 3))])
def test_frames_outside_and_inside_the_images_are_told_apart(outside, place):
    """Also where nothing in the example tells them apart: all frames are the same, and black."""
    model, _ = others()["frames outside" if outside else "frames inside"]
    network = trace(randomised(model), torch.zeros(2, 3, 3, 6, 6))
    convolutions = [n for n in network.graph.operations if "conv" in n.name]
    assert [network.batch_place(n) for n in convolutions] == [place, place]


class Mixing(nn.Module):
    def __init__(self, mix) -> None:
        super().__init__()
        self.mix, self.into, self.inner = mix, nn.Linear(5, 8), nn.Linear(8, 7)
        self.norm, self.head = nn.BatchNorm1d(7, track_running_stats=False), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self, F.relu(self.inner(F.relu(self.into(x))))))


def contrast(x: Tensor) -> Tensor:
    return x + (F.normalize(x, dim=1) @ F.normalize(x, dim=1).T).softmax(1) @ x


MIXES = {
    "mean": lambda _, x: x - x.mean(0),
    "batch_norm": lambda m, x: m.norm(x),
    "amax": lambda _, x: x / (1 + x.amax(0, keepdim=True)),
    "softmax": lambda _, x: x * x.softmax(0),
    "sort": lambda _, x: x + x.sort(0).values,
    "cumsum": lambda _, x: x + x.cumsum(0),
    "flip": lambda _, x: x + 1e-3 * x.flip(0),
    "roll": lambda _, x: x + x.roll(1, 0),
    "matmul": lambda _, x: contrast(x),
    "select": lambda _, x: x + x[0],
}


@pytest.mark.parametrize("name", MIXES)
def test_what_mixes_images_is_refused_with_its_name(name):
    network = trace(randomised(Mixing(MIXES[name])), torch.randn(2, 5))
    with pytest.raises(
        InputError, match=rf"images of a batch are mixed at .*test_batch_place.py:\d+\)?: what {name} gives"
    ):
        exact_effects(network, [torch.randn(6, 5)])


class Balanced(Mixing):
    """A mean over the batch that only another output sees, as a loss of balance is."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.inner(F.relu(self.into(x))))
        return self.head(x), (x.mean(0) ** 2).sum()


def test_a_mean_over_the_batch_that_no_logit_sees_does_no_harm():
    network = trace(randomised(Balanced(None)), torch.randn(2, 5))
    assert [isinstance(network.places.found(n), BatchPlace) for n in network.counted] == [True]
    data = torch.randn(6, 5)
    together = exact_effects(network, [data], outcome="prediction-change").mean
    apart = exact_effects(network, [data[:1], data[1:3], data[3:]], outcome="prediction-change").mean
    assert (together == apart).all()


class Loop(nn.Module):
    """Runs on two images only, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.head = nn.Linear(5, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        one, other = x.unbind(0)
        return self.head(torch.stack([F.relu(self.into(one)), F.relu(self.into(other))]))


def test_a_loop_over_images_mixes_nothing():
    network = trace(randomised(Loop()), torch.randn(2, 5))
    assert network.graph.batch_size == 2
    network.check_images_apart()
    picks = [n for n in network.graph.operations if n.target is operator.getitem]
    with pytest.raises(InputError, match="unbind"):
        network.batch_place(picks[0])


def test_the_search_is_done_once_for_all_views_of_a_network():
    network = trace(both("encoder")[0], torch.randn(2, 4, 8))
    network.check_images_apart()
    narrower = network.ignoring([network.groups[0].name])
    assert narrower.places is network.places
