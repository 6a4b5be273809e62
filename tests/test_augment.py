"""Variation of photos: drawn as a function of (seed, epoch, index), applied by plain arithmetic."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from scenelearn.augment import Draws, Policy, apply, draw
from scenelearn.errors import ArgumentError

MANY = np.arange(2000)
STILL = Policy(mirror=False, smallest_area=1, aspect=1, brightness=0)


def noise(n: int = 4, height: int = 12, width: int = 16) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def draws(
    box: tuple[float, float, float, float] = (0, 0, 1, 1),
    mirrored: bool = False,
    gain: float = 1.0,
    n: int = 4,
) -> Draws:
    return Draws(
        boxes=np.tile(np.array(box, dtype=float), (n, 1)),
        mirrored=np.full(n, mirrored),
        gains=np.full(n, gain),
    )


def rows(drawn: Draws) -> npt.NDArray[np.float64]:
    return np.column_stack([drawn.boxes, drawn.mirrored, drawn.gains])


# Drawn


def test_a_draw_follows_from_seed_epoch_and_index_alone() -> None:
    whole = rows(draw(Policy(), 5, 3, MANY))
    order = np.random.default_rng(0).permutation(MANY)
    assert np.array_equal(rows(draw(Policy(), 5, 3, order)), whole[order])
    alone = [rows(draw(Policy(), 5, 3, np.array([k])))[0] for k in range(20)]
    assert np.array_equal(alone, whole[:20])


@pytest.mark.parametrize(("seed", "epoch"), [(5, 4), (6, 3), (3, 5)])
def test_another_seed_or_epoch_is_another_draw(seed: int, epoch: int) -> None:
    one, other = rows(draw(Policy(), 5, 3, MANY)), rows(draw(Policy(), seed, epoch, MANY))
    assert (one[:, 5] != other[:, 5]).all()
    assert abs(np.corrcoef(one[:, 5], other[:, 5])[0, 1]) < 4 / len(MANY) ** 0.5


@pytest.mark.parametrize(
    "policy",
    [
        Policy(),
        Policy(smallest_area=0.05, aspect=3, brightness=0.9),
        Policy(smallest_area=0.99, aspect=2),
        Policy(smallest_area=1, aspect=1.5),
        Policy(smallest_area=0.5, aspect=1),
    ],
    ids=str,
)
def test_draws_stay_within_the_bounds(policy: Policy) -> None:
    drawn = draw(policy, 0, 0, MANY)
    left, top, right, bottom = drawn.boxes.T
    assert drawn.boxes.min() >= 0
    assert drawn.boxes.max() <= 1
    area, aspect = (right - left) * (bottom - top), (right - left) / (bottom - top)
    assert area.min() >= policy.smallest_area - 1e-12
    assert aspect.max() <= policy.aspect + 1e-12
    assert aspect.min() >= 1 / policy.aspect - 1e-12
    assert np.abs(drawn.gains - 1).max() <= policy.brightness


def test_draws_fill_the_bounds() -> None:
    drawn = draw(Policy(smallest_area=0.5, aspect=1.2, brightness=0.2), 0, 0, MANY)
    left, top, right, bottom = drawn.boxes.T
    area, aspect = (right - left) * (bottom - top), (right - left) / (bottom - top)
    # Uniform in area: its mean and its standard deviation, within four standard errors.
    n = len(MANY)
    assert abs(area.mean() - 0.75) < 4 * 0.5 / 12**0.5 / n**0.5
    assert area.min() < 0.51
    assert area.max() > 0.99
    assert aspect.max() > 1.19
    assert aspect.min() < 1 / 1.19
    assert abs(drawn.mirrored.mean() - 0.5) < 4 * 0.5 / n**0.5
    assert abs(drawn.gains.mean() - 1) < 4 * 0.4 / 12**0.5 / n**0.5
    assert left.min() < 0.001
    assert right.max() > 0.999
    assert abs((left + right).mean() - (top + bottom).mean()) < 0.02


def test_no_mirror() -> None:
    assert not draw(Policy(mirror=False), 0, 0, MANY).mirrored.any()


def test_shapes_and_dtypes() -> None:
    for n in (0, 1, 7):
        drawn = draw(Policy(), 0, 0, np.arange(n))
        assert (drawn.boxes.shape, drawn.boxes.dtype) == ((n, 4), np.float64)
        assert (drawn.mirrored.shape, drawn.mirrored.dtype) == ((n,), np.bool_)
        assert (drawn.gains.shape, drawn.gains.dtype) == ((n,), np.float64)


def test_the_whole_area_means_the_whole_image_whatever_the_aspect() -> None:
    drawn = draw(Policy(smallest_area=1, aspect=2), 0, 0, MANY)
    assert np.array_equal(drawn.boxes, np.tile([0.0, 0, 1, 1], (len(MANY), 1)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("smallest_area", 0),
        ("smallest_area", 1.01),
        ("smallest_area", float("nan")),
        ("smallest_area", "0.5"),
        ("aspect", 0.99),
        ("aspect", float("inf")),
        ("aspect", None),
        ("brightness", -0.1),
        ("brightness", 1),
        ("brightness", [0.1]),
        ("mirror", "yes"),
    ],
)
def test_policies_out_of_range(field: str, value: object) -> None:
    with pytest.raises(ArgumentError, match=rf"`{field}` must be .*Received: {field}=.*default"):
        Policy(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "seed", "epoch", "index"),
    [("seed", -1, 0, 0), ("epoch", 0, -1, 0), ("indices", 0, 0, -1)],
)
def test_negative_coordinates_of_a_draw(name: str, seed: int, epoch: int, index: int) -> None:
    with pytest.raises(ArgumentError, match=rf"`{name}` must be at least 0\. Received: -1"):
        draw(Policy(), seed, epoch, np.array([3, index]))


# Applied


def test_a_policy_that_changes_nothing_changes_nothing() -> None:
    images = noise(50)
    assert np.array_equal(apply(images, draw(STILL, 0, 0, np.arange(50))), images)


def test_mirroring_is_exact() -> None:
    images = noise()
    assert np.array_equal(apply(images, draws(mirrored=True)), images[:, :, ::-1])


def test_only_the_mirrored_ones_are_mirrored() -> None:
    images = noise(3)
    chosen = Draws(
        boxes=np.tile([0.0, 0, 1, 1], (3, 1)),
        mirrored=np.array([False, True, False]),
        gains=np.ones(3),
    )
    shown = apply(images, chosen)
    assert np.array_equal(shown[[0, 2]], images[[0, 2]])
    assert np.array_equal(shown[1], images[1, :, ::-1])


def test_a_crop_is_pillows_resize_of_the_box() -> None:
    images = noise(20, 12, 16)
    drawn = draw(Policy(mirror=False, brightness=0), 0, 0, np.arange(20))
    shown = apply(images, drawn)
    for k in range(20):
        box = tuple(drawn.boxes[k] * [16, 12, 16, 12])
        expected = Image.fromarray(images[k]).resize((16, 12), Image.Resampling.BILINEAR, box)
        assert np.array_equal(shown[k], np.asarray(expected))


def test_a_crop_of_a_ramp_is_the_ramp_in_between() -> None:
    ramp = np.repeat(np.tile(4 * np.arange(50, dtype=np.uint8), (50, 1))[:, :, None], 3, axis=2)
    shown = apply(ramp[None], draws((0.2, 0.2, 0.7, 0.7), n=1))[0, 25, 1:-1, 0]
    # Column x of the result lies at 10 + (x + 1/2) / 2 − 1/2 of the ramp.
    x = np.arange(1, 49)
    assert np.abs(shown - 4 * (10 + (x + 0.5) / 2 - 0.5)).max() <= 1


@pytest.mark.parametrize("gain", [0.0, 0.5, 0.8, 1.2, 1.9])
def test_brightness_is_a_product_that_saturates(gain: float) -> None:
    images = noise()
    shown = apply(images, draws(gain=gain)).astype(float)
    assert np.abs(shown - np.minimum(images * gain, 255)).max() <= 0.5


def test_crop_mirror_and_gain_come_in_this_order() -> None:
    images = noise(1)
    together = apply(images, draws((0.1, 0.2, 0.8, 0.9), mirrored=True, gain=1.5, n=1))
    steps = apply(images, draws((0.1, 0.2, 0.8, 0.9), n=1))
    steps = apply(steps, draws(mirrored=True, n=1))
    assert np.array_equal(together, apply(steps, draws(gain=1.5, n=1)))


def test_the_given_images_are_left_alone() -> None:
    images = noise(30)
    before = images.copy()
    shown = apply(images, draw(Policy(), 0, 0, np.arange(30)))
    assert np.array_equal(images, before)
    assert not np.shares_memory(shown, images)
    assert (shown.shape, shown.dtype) == (images.shape, np.uint8)


def test_no_images_are_no_trouble() -> None:
    assert apply(noise(0), draw(Policy(), 0, 0, np.arange(0))).shape == (0, 12, 16, 3)


@pytest.mark.parametrize(
    "images",
    [
        noise(3),
        noise(4)[0],
        noise(4)[:, :, :, :2],
        noise(4).astype(np.float32),
        noise(4).astype(np.int64),
    ],
    ids=["too few", "one image", "two channels", "float", "int"],
)
def test_images_that_do_not_fit(images: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ArgumentError, match=r"`images` must .*\(4, height.*uint8\. Received: \("):
        apply(images, draws())
