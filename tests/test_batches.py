"""Batches: every photo once, in orders that follow from seed and epoch alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from scenelearn.data import Batches, Pixels
from scenelearn.errors import ArgumentError

N = 23


def made(
    batch_size: int = 5,
    seed: int = 0,
    indices: list[int] | None = None,
    unusable: tuple[int, ...] = (),
) -> Batches:
    """Photo k is an image whose every value is k, and its label is k mod 4."""
    images = np.repeat(np.arange(N, dtype=np.uint8), 3 * 3 * 3).reshape(N, 3, 3, 3)
    usable = np.ones(N, dtype=bool)
    usable[list(unusable)] = False
    return Batches(
        pixels=Pixels(images=images, usable=usable, refused=()),
        labels=(np.arange(N) % 4).astype(np.int32),
        indices=np.arange(N) if indices is None else np.array(indices),
        batch_size=batch_size,
        seed=seed,
    )


def order(batches: Batches, epoch: int) -> list[int]:
    return [int(k) for _, _, chosen in batches.shuffled(epoch) for k in chosen]


@pytest.mark.parametrize("epoch", [0, 1, 50])
@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_every_photo_comes_once_an_epoch(epoch: int, batch_size: int) -> None:
    assert sorted(order(made(batch_size), epoch)) == list(range(N))


def test_each_epoch_has_an_order_of_its_own() -> None:
    orders = {tuple(order(made(), epoch)) for epoch in range(20)}
    assert len(orders) == 20
    assert tuple(range(N)) not in orders


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    first, second = made(seed=3), made(seed=3, batch_size=7)
    later = order(first, 2)
    order(first, 0)
    assert order(first, 2) == order(second, 2) == later
    assert order(made(seed=4), 2) != later


def test_the_global_random_state_does_not_matter() -> None:
    first = order(made(), 1)
    np.random.seed(1)  # noqa: NPY002  # shown to have no effect
    assert order(made(), 1) == first


def test_the_first_place_is_shared_evenly() -> None:
    n_epochs = 2300
    firsts = np.bincount([order(made(), epoch)[0] for epoch in range(n_epochs)], minlength=N)
    expected = n_epochs / N
    assert abs(firsts - expected).max() < 5 * expected**0.5


def test_the_last_partial_batch_is_kept() -> None:
    batches = made(batch_size=5)
    sizes = [len(labels) for _, labels, _ in batches.shuffled(0)]
    assert sizes == [5, 5, 5, 5, 3]
    assert len(batches) == 5
    assert batches.n_photos == N


def test_in_order_is_in_the_order_of_the_indices() -> None:
    batches = made(batch_size=2, indices=[7, 3, 20])
    parts = list(batches.in_order())
    assert [chosen.tolist() for _, _, chosen in parts] == [[7, 3], [20]]
    assert [labels.tolist() for _, labels, _ in parts] == [[3, 3], [0]]


def test_images_and_labels_belong_to_the_indices() -> None:
    for images, labels, chosen in made().shuffled(1):
        assert images.shape == (len(chosen), 3, 3, 3)
        assert (images.dtype, labels.dtype, chosen.dtype) == (np.uint8, np.int32, np.int64)
        assert np.array_equal(images[:, 0, 0, 0], chosen)
        assert np.array_equal(labels, chosen % 4)


def test_photos_that_could_not_be_decoded_are_left_out() -> None:
    batches = made(indices=[1, 2, 3, 4, 5], unusable=(2, 5, 9))
    assert batches.indices.tolist() == [1, 3, 4]
    assert batches.n_photos == 3
    assert sorted(order(batches, 0)) == [1, 3, 4]


def test_no_photo_left_is_no_batch() -> None:
    batches = made(indices=[2], unusable=(2,))
    assert len(batches) == 0
    assert list(batches.in_order()) == []
    assert list(batches.shuffled(0)) == []


def test_a_batch_is_memory_of_its_own() -> None:
    batches = made()
    images: npt.NDArray[np.uint8]
    images, _, _ = next(batches.in_order())
    images[:] = 255
    assert batches.pixels.images.max() == N - 1


@pytest.mark.parametrize("value", [0, -1, 2.5, True, None])
def test_batch_size_out_of_range(value: object) -> None:
    with pytest.raises(ArgumentError, match=r"`batch_size` must.*at least 1\. Received: .*Pass"):
        made(batch_size=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1, 0.5, None])
def test_seed_out_of_range(value: object) -> None:
    with pytest.raises(ArgumentError, match=r"`seed` must.*at least 0\. Received: seed="):
        made(seed=value)  # type: ignore[arg-type]
