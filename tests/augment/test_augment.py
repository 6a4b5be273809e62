"""Augmentation: sampled as a function of (seed, epoch, index), applied as plain arithmetic."""

from __future__ import annotations

import importlib.util
import io
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from scenelearn import augment
from scenelearn.augment import OPERATIONS, POLICIES, Parameters, Policy, apply, fixed, sample
from scenelearn.errors import ArgumentError, PhotoError
from tests.helpers.networks import keras

MANY = np.arange(2000)
UINT8 = npt.NDArray[np.uint8]
ALL = Policy(
    **{name: operation.maximum / 8 for name, operation in OPERATIONS.items()}
    | {"zoom": 0.2, "posterize": 2}
)
ON_JAX = os.environ.get("KERAS_BACKEND", "jax") == "jax"


def noise(n: int = 2, height: int = 24, width: int = 24) -> UINT8:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def soft(n: int = 2, height: int = 24, width: int = 24) -> UINT8:
    """Noise without its finest detail and its extremes, more like a photo."""
    images = [
        Image.fromarray(i).filter(ImageFilter.GaussianBlur(1)) for i in noise(n, height, width)
    ]
    return np.stack([np.asarray(image) for image in images])


def applied(images: Any, parameters: Parameters, **how: Any) -> npt.NDArray[Any]:
    return np.asarray(keras().ops.convert_to_numpy(apply(images, parameters, **how)))


def augmented(images: Any, fill: Any = "reflect", image_px: Any = None, **values: float) -> Any:
    return applied(images, fixed(len(images), fill=fill, **values), image_px=image_px)


def pillow(images: UINT8, change: Callable[[Image.Image], Image.Image]) -> npt.NDArray[np.float64]:
    return np.stack([np.asarray(change(Image.fromarray(i)), float) for i in images])


# Sampling


def test_parameters_depend_on_seed_epoch_and_index_only() -> None:
    whole = sample("strong", 5, MANY, epoch=3)
    order = np.random.default_rng(0).permutation(MANY)
    mixed = sample("strong", 5, order, epoch=3)
    for name, values in whole.values.items():
        assert np.array_equal(mixed.values[name], values[order]), name
        alone = [sample("strong", 5, [k], epoch=3).values[name][0] for k in range(5)]
        assert np.array_equal(alone, values[:5]), name
    counted = sample("strong", 5, len(MANY), epoch=3)
    assert np.array_equal(counted.arguments["placement"], whole.arguments["placement"])


@pytest.mark.parametrize(("seed", "epoch"), [(5, 4), (6, 3), (3, 5), (5 + 2**64, 3)])
def test_other_seeds_and_epochs_give_independent_parameters(seed: int, epoch: int) -> None:
    one = sample("standard", 5, MANY, epoch=3).values["rotate"]
    other = sample("standard", seed, MANY, epoch=epoch).values["rotate"]
    assert (one != other).all()
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / len(MANY) ** 0.5


def test_operations_are_sampled_independently_and_uniformly() -> None:
    values = sample(Policy(rotate=10, hue=20, blur=2, contrast=0.5), 0, MANY).values
    table = np.stack([values[name] / most for name, most in
                      (("rotate", 10), ("hue", 20), ("contrast", 0.5), ("blur", 2))])  # fmt: skip
    correlations = np.corrcoef(table) - np.eye(4)
    assert np.abs(correlations).max() < 4 / len(MANY) ** 0.5
    for k, row in enumerate(table):
        low = -1 if k < 3 else 0
        quarters = np.histogram(row, 4, (low, 1))[0]
        assert quarters.sum() == len(MANY)
        assert np.abs(quarters - 500).max() < 4 * math.sqrt(500 * 0.75)


def test_rotation_does_not_depend_on_the_other_operations() -> None:
    alone = sample(Policy(rotate=10), 1, 50).values["rotate"]
    among_others = sample("strong", 1, 50).values["rotate"] * (10 / 15)
    assert np.allclose(among_others, alone, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_parameters_stay_within_the_policy(name: str) -> None:
    policy = POLICIES[name]
    values = sample(policy, 0, MANY).values
    assert set(policy.operations) == set(values) & set(OPERATIONS)
    for operation in policy.operations:
        most = getattr(policy, operation)
        if OPERATIONS[operation].unit == "probability":
            assert set(values[operation]) <= {0, 1}
            if policy.num_ops is None or OPERATIONS[operation].kind == "base":
                assert abs(values[operation].mean() - most) < 4 * 0.5 / len(MANY) ** 0.5
        else:
            assert np.abs(values[operation]).max() <= most
            assert np.abs(values[operation]).max() > 0.9 * most
            assert (values[operation].min() < 0) == OPERATIONS[operation].signed


@pytest.mark.parametrize(("crop", "aspect"), [(0.4, 0.2), (0.95, 2), (0.01, 1), (0, 0.5), (0.5, 0)])
def test_crops_keep_their_area_and_aspect(crop: float, aspect: float) -> None:
    parameters = sample(Policy(crop=crop, aspect=aspect, horizontal_flip=0.1), 0, MANY)
    place = parameters.arguments["placement"].astype(float)
    width, height = place[:, 0, 0], place[:, 1, 1]
    assert (width * height).min() >= 1 - crop - 1e-6
    assert max(width.max(), height.max()) <= 1 + 1e-6
    assert (np.abs(place[:, 0, 2]) <= 1 - width + 1e-6).all()
    assert (np.abs(place[:, 1, 2]) <= 1 - height + 1e-6).all()
    ratio = width / height
    assert max(ratio.max(), 1 / ratio.min()) <= 1 + aspect + 1e-5
    if crop == 0.4:  # uniform in area; the mean within four standard errors
        assert abs((width * height).mean() - 0.8) < 4 * 0.4 / 12**0.5 / len(MANY) ** 0.5
        assert abs(place[:, 0, 2].mean()) < 0.01


def test_trivial_chooses_one_operation_or_none_with_equal_probability() -> None:
    policy = POLICIES["trivial"]
    parameters = sample(policy, 0, 7000)
    names = [name for name in policy.operations if OPERATIONS[name].kind != "base"]
    assert len(names) == 13
    is_active = np.stack([parameters.values[name] != 0 for name in names])
    assert is_active.sum(axis=0).max() == 1
    for name, row in zip(names, is_active, strict=True):
        expected = 500 * (6 / 7 if name == "posterize" else 1)  # it may drop no bits
        assert abs(row.sum() - expected) < 4 * math.sqrt(500), name


def test_randaugment_chooses_n_operations_at_full_strength() -> None:
    parameters = sample(augment.randaugment(2, 15), 0, 500)
    names = [n for n in parameters.values if n in OPERATIONS and OPERATIONS[n].kind != "base"]
    assert set(np.stack([parameters.values[name] != 0 for name in names]).sum(axis=0)) == {1, 2}
    assert set(np.round(parameters.values["rotate"], 9)) == {-15, 0, 15}
    assert set(parameters.values["solarize"]) == {0, 0.5}
    assert set(parameters.values["posterize"]) == {0, 2}
    assert set(parameters.values["equalize"]) == {0, 1}


def test_indexing_parameters() -> None:
    parameters = sample("strong", 0, 10)
    for rows in (slice(2, 5), [7, 1], np.array([True] * 3 + [False] * 7).nonzero()[0]):
        part = parameters[rows]
        assert len(part) == len(np.arange(10)[rows])
        for name, values in parameters.arguments.items():
            assert np.array_equal(part.arguments[name], values[rows])
    with pytest.raises(ArgumentError, match="a slice or a list of positions"):
        parameters[3]
    with pytest.raises(ArgumentError, match="a list of positions"):
        parameters[np.ones(len(parameters), bool)]


def test_captions_describe_the_augmentation() -> None:
    assert fixed(1, rotate=-3.14159, crop=0.25, gray=1).caption(0) == (
        "crop 0.25 of the area, rotate -3.14 degrees, gray"
    )
    assert fixed(1, translate_x=0.5, posterize=3, horizontal_flip=0).caption(0) == (
        "translate x +0.5 of the width, posterize 3 bits"
    )
    assert sample("none", 0, 1).caption(0) == "unchanged"


def test_sampling_loads_no_backend() -> None:
    code = (
        "from scenelearn import augment; import sys; augment.sample('strong', 0, 3);"
        "augment.fixed(2, rotate=1); augment.sample_mix(0, 4); augment.randaugment();"
        "print(*({'jax', 'keras', 'tensorflow', 'torch'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not run.stdout.strip()


def test_fixed_takes_one_strength_per_photo() -> None:
    images, angles = noise(), [-10, 20]
    together = applied(images, fixed(2, rotate=angles))
    for k, angle in enumerate(angles):
        assert np.array_equal(together[k], augmented(images, rotate=angle)[k])


# Identity


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_zero_strength_is_the_identity_bit_for_bit(name: str, dtype: str) -> None:
    images = noise() if dtype == "uint8" else noise().astype("float32") / 3
    same = augmented(images, **{name: 0})
    assert same.dtype == dtype
    assert np.array_equal(same, images)


def test_policy_none_returns_the_images() -> None:
    images = noise()
    assert np.array_equal(applied(images, sample("none", 0, 2)), images)
    assert augment.policy("none").operations == ()


# Geometry


def test_flips_and_right_angles_are_exact() -> None:
    images = noise()
    assert np.array_equal(augmented(images, horizontal_flip=1), images[:, :, ::-1])
    assert np.array_equal(augmented(images, vertical_flip=1), images[:, ::-1])
    for turns in (-1, 1, 2):
        turned = np.rot90(images, turns, (1, 2))
        assert np.array_equal(augmented(images, rotate=90 * turns), turned)
        as_floats = images.astype("float32") / 7
        assert np.array_equal(
            augmented(as_floats, rotate=90 * turns), np.rot90(as_floats, turns, (1, 2))
        )


def test_only_the_chosen_photos_are_flipped() -> None:
    images = noise(3, 12, 18)
    parameters = sample(Policy(horizontal_flip=0.5), 3, 3)
    chosen = parameters.values["horizontal_flip"] == 1
    assert 0 < chosen.sum() < 3
    expected = np.where(chosen[:, None, None, None], images[:, :, ::-1], images)
    assert np.array_equal(applied(images, parameters), expected)


def in_pixels(height: int, width: int, **values: float) -> npt.NDArray[np.float64]:
    """The transform from the new image's pixels to the old, about the center, as one matrix."""
    get = dict.fromkeys(OPERATIONS, 0.0) | {"crop_x": 0.5, "crop_y": 0.5} | values
    angle, w, h = math.radians(get["rotate"]), width / 2, height / 2
    turn = np.array([[math.cos(angle), -math.sin(angle), 0],
                     [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])  # fmt: skip
    flip = np.diag([1 - 2 * get["horizontal_flip"], 1 - 2 * get["vertical_flip"], 1])
    shear_x, shear_y = np.eye(3), np.eye(3)
    shear_x[0, 1] = math.tan(math.radians(get["shear_x"]))
    shear_y[1, 0] = math.tan(math.radians(get["shear_y"]))
    zoom = 1 + get["zoom"] if get["zoom"] > 0 else 1 / (1 - get["zoom"])
    tilt, shift, crop = np.eye(3), np.eye(3), np.eye(3)
    tilt[2, :2] = get["perspective_x"] / w, get["perspective_y"] / h
    shift[:2, 2] = -get["translate_x"] * width, -get["translate_y"] * height
    area, aspect = 1 - get["crop"], 1 + get["aspect"]
    across, down = math.sqrt(area * aspect), math.sqrt(area / aspect)
    crop[0], crop[1] = (
        [across, 0, (1 - across) * (2 * get["crop_x"] - 1) * w],
        [0, down, (1 - down) * (2 * get["crop_y"] - 1) * h],
    )
    return crop @ shift @ tilt @ np.diag([1 / zoom, 1 / zoom, 1]) @ shear_y @ shear_x @ turn @ flip


def by_pillow(images: UINT8, matrix: npt.NDArray[np.float64]) -> Any:
    """Pillow's perspective transform, and a mask of pixels that the border does not affect."""
    height, width = images.shape[1:3]
    to_middle, back = np.eye(3), np.eye(3)
    to_middle[:2, 2], back[:2, 2] = (-width / 2, -height / 2), (width / 2, height / 2)
    m = back @ matrix @ to_middle
    data = (m / m[2, 2]).ravel()[:8]

    def change(image: Image.Image) -> Image.Image:
        return image.transform(
            image.size, Image.Transform.PERSPECTIVE, data, Image.Resampling.BILINEAR
        )

    inside = change(Image.new("L", (width, height), 255)).filter(ImageFilter.MinFilter(5))
    return pillow(images, change), np.asarray(inside) == 255


@pytest.mark.parametrize(
    "values",
    [
        {"rotate": 10},
        {"rotate": -33},
        {"zoom": 0.5},
        {"shear_x": 20},
        {"shear_y": -15},
        {"translate_x": 0.13, "translate_y": -0.21},
        {"perspective_x": 0.2},
        {"perspective_y": -0.15, "perspective_x": 0.1},
        {"crop": 0.4, "aspect": 0.2, "crop_x": 0.1, "crop_y": 0.8},
        {
            "crop": 0.3,
            "horizontal_flip": 1,
            "rotate": 12,
            "shear_x": 5,
            "translate_x": 0.1,
            "perspective_x": 0.1,
        },
    ],
    ids=str,
)
def test_geometry_matches_pillow(values: dict[str, float]) -> None:
    images = soft(2, 32, 40)
    shown = augmented(images, fill=(0, 0, 0), **values).astype(float)
    expected, inside = by_pillow(images, in_pixels(32, 40, **values))
    assert inside.mean() > 0.3
    assert np.abs(shown - expected)[:, inside].max() <= 1


@pytest.mark.parametrize(("fill", "mode"), [("reflect", "symmetric"), ("edge", "edge")])
def test_fill_modes(fill: str, mode: Any) -> None:
    images = noise(2, 8, 16)
    shown = augmented(images, fill=fill, translate_x=0.25, translate_y=-0.5)
    padded = np.pad(images, ((0, 0), (0, 4), (4, 0), (0, 0)), mode)[:, 4:, :16]
    assert np.array_equal(shown, padded)


def test_fill_color() -> None:
    images = noise(2, 8, 16)
    shown = augmented(images, fill=(255, 0, 10), translate_x=0.25)
    assert np.array_equal(shown[:, :, 4:], images[:, :, :12])
    assert (shown[:, :, :4] == [255, 0, 10]).all()


@pytest.mark.parametrize("px", [(36, 40), (24, 33)])
def test_enlarging_matches_pillow_bilinear(px: tuple[int, int]) -> None:
    images = noise(2, 24, 24)
    size = px[::-1]
    expected = pillow(images, lambda i: i.resize(size, Image.Resampling.BILINEAR))
    assert np.abs(augmented(images, image_px=px) - expected).max() <= 1


@pytest.mark.parametrize("px", [12, (24, 8)])
def test_shrinking_by_an_integer_factor_averages_pixels(px: Any) -> None:
    images = noise(2, 24, 24)
    h, w = (px, px) if isinstance(px, int) else px
    expected = images.reshape(2, h, 24 // h, w, 24 // w, 3).mean(axis=(2, 4))
    assert np.abs(augmented(images, image_px=px) - expected).max() <= 0.501
    if px == 12:
        floats = images.astype("float32")
        assert np.abs(augmented(floats, image_px=px) - expected).max() <= 1e-3


def test_shrinking_by_other_factors_does_not_alias() -> None:
    board = np.indices((48, 48)).sum(axis=0) % 2 * np.uint8(255)
    images = np.repeat(board[None, :, :, None], 3, axis=3).astype(np.uint8)
    box = Image.fromarray(images[0]).resize((34, 34), Image.Resampling.BOX)
    assert augmented(images, image_px=34).std() < np.asarray(box).std() / 5
    assert augmented(images, zoom=-1, fill="edge")[:, 14:34, 14:34].std() < 2


def test_crop_and_resize_in_one_step() -> None:
    images = soft(2, 48, 48)
    shown = augmented(images, crop=0.75, crop_x=0, crop_y=1, image_px=24)
    # Four samples per pixel, a quarter of a pixel up, down, left and right of its center.
    near = np.pad(images.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    near = (near[:, :-2] + 6 * near[:, 1:-1] + near[:, 2:]) / 8
    near = (near[:, :, :-2] + 6 * near[:, :, 1:-1] + near[:, :, 2:]) / 8
    assert np.abs(shown - near[:, 24:, :24]).max() <= 0.501


# Color


@pytest.mark.parametrize("stops", [-1.0, -0.3, 0.5, 2.0])
def test_brightness_multiplies_and_saturates(stops: float) -> None:
    images = noise()
    expected = np.minimum(images * 2.0**stops, 255)
    assert np.abs(augmented(images, brightness=stops) - expected).max() <= 0.501


@pytest.mark.parametrize("fraction", [-1.0, -0.4, 0.4, 1.0])
def test_contrast_scales_the_distance_from_mid_gray(fraction: float) -> None:
    images = noise()
    expected = np.clip(127.5 + (1 + fraction) * (images - 127.5), 0, 255)
    assert np.abs(augmented(images, contrast=fraction) - expected).max() <= 0.501


@pytest.mark.parametrize("fraction", [-1.0, -0.3, 0.6])
def test_saturation_matches_pillow(fraction: float) -> None:
    images = noise()
    expected = pillow(images, lambda i: ImageEnhance.Color(i).enhance(1 + fraction))
    assert np.abs(augmented(images, saturation=fraction) - expected).max() <= 1


def test_gray_matches_pillow() -> None:
    images = noise()
    expected = pillow(images, lambda i: i.convert("L").convert("RGB"))
    assert np.abs(augmented(images, gray=1) - expected).max() <= 1


@pytest.mark.parametrize("degrees", [-90, 30, 180])
def test_hue_rotates_the_chroma_axes(degrees: float) -> None:
    images = noise()
    to_yiq = np.array(
        [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
    )
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    expected = np.clip(images @ (np.linalg.inv(to_yiq) @ turn @ to_yiq).T, 0, 255)
    assert np.abs(augmented(images, hue=degrees) - expected).max() <= 0.501


def test_temperature_is_red_over_blue() -> None:
    images = noise()
    expected = np.minimum(images * [2**0.25, 1, 2**-0.25], 255)
    assert np.abs(augmented(images, temperature=0.5) - expected).max() <= 0.501


def test_color_operations_follow_the_order_of_operations() -> None:
    images = soft(2, 24, 24).astype("float32") / 4 + 96  # no intermediate value saturates
    values = {"brightness": 0.2, "contrast": -0.3, "saturation": 0.2, "hue": 20, "temperature": 0.1}
    step = images
    for name, value in values.items():
        step = augmented(step, **{name: value})
    assert np.abs(augmented(images, **values) - step).max() < 1e-3


# Filters


@pytest.mark.parametrize(
    ("values", "change", "within"),
    [
        ({"autocontrast": 1}, ImageOps.autocontrast, 1),
        ({"equalize": 1}, ImageOps.equalize, 0),
        ({"solarize": 0.25}, lambda i: ImageOps.solarize(i, 192), 0),
        ({"solarize": 1}, ImageOps.invert, 0),
        ({"posterize": 3}, lambda i: ImageOps.posterize(i, 5), 0),
        ({"posterize": 7}, lambda i: ImageOps.posterize(i, 1), 0),
        ({"sharpness": 0.9}, lambda i: ImageEnhance.Sharpness(i).enhance(1.9), 1),
        ({"sharpness": -0.7}, lambda i: ImageEnhance.Sharpness(i).enhance(0.3), 1),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_filters_match_pillow(values: dict[str, float], change: Any, within: int) -> None:
    images = np.concatenate([noise(1, 32, 32), soft(1, 32, 32) // 2 + 40])
    difference = np.abs(augmented(images, **values) - pillow(images, change))
    assert difference[:, 1:-1, 1:-1].max() <= within


def test_a_uniform_image_is_unchanged() -> None:
    images = np.full((1, 8, 8, 3), [10, 200, 0], np.uint8)
    assert np.array_equal(augmented(images, equalize=1), images)
    assert np.array_equal(augmented(images, autocontrast=1), images)


@pytest.mark.parametrize("deviation", [0.4, 1.3])
def test_blur_matches_scipy(deviation: float) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    images = noise().astype("float32")
    sigma, radius = (0, deviation, deviation, 0), math.ceil(3 * deviation)
    expected = ndimage.gaussian_filter(images, sigma, mode="nearest", radius=radius)
    assert np.abs(augmented(images, blur=deviation) - expected).max() < 1e-2


def test_noise_is_normal_and_independent_between_photos_and_pixels() -> None:
    images = np.full((2, 64, 64, 3), 128, "float32")
    parameters = sample(Policy(noise=20, horizontal_flip=0.1), 0, 2)
    added = applied(images, parameters) - 128
    for photo, deviation in zip(added, parameters.values["noise"], strict=True):
        assert abs(photo.mean()) < 4 * deviation / photo.size**0.5
        assert abs(photo.std() / deviation - 1) < 0.05
        within = (np.abs(photo) < deviation).mean()
        assert abs(within - 0.683) < 0.03
    flat = [(a / a.std()).ravel() for a in added]
    for one, other in (
        (flat[0], flat[1]), (flat[0][:-1], flat[0][1:]), (flat[0][:-192], flat[0][192:]),
    ):  # fmt: skip
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / len(other) ** 0.5
    assert np.array_equal(applied(images, parameters) - 128, added)


@pytest.mark.parametrize(("multiple", "quality"), [(1, 50), (5, 10)])
def test_jpeg_blocks_match_a_jpeg(multiple: float, quality: int) -> None:
    def jpeg(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "jpeg", quality=quality, subsampling=0)
        return Image.open(buffer)

    images = soft(2, 32, 40)
    shown, saved = augmented(images, jpeg_blocks=multiple).astype(float), pillow(images, jpeg)
    # The integer arithmetic of JPEG rounds a few coefficients the other way.
    assert np.abs(shown - saved).mean() < 0.2 * np.abs(images - saved).mean()

    fft = pytest.importorskip("scipy.fft")
    steps = np.array(jpeg(Image.fromarray(images[0])).quantization[0]).reshape(8, 8)
    gray = np.repeat(images[:, :, :, :1], 3, axis=3)
    tiles = gray[..., 0].reshape(2, 4, 8, 5, 8).astype(float) - 128
    found = np.round(fft.dctn(tiles, axes=(2, 4), norm="ortho") / steps[:, None]) * steps[:, None]
    expected = fft.idctn(found, axes=(2, 4), norm="ortho").reshape(2, 32, 40) + 128
    difference = np.abs(augmented(gray, jpeg_blocks=multiple)[..., 0] - np.clip(expected, 0, 255))
    assert (difference <= 1).mean() > 0.95  # coefficients halfway between two steps


def test_erase_changes_the_box_only() -> None:
    images = noise(2, 20, 40)
    shown = augmented(images, erase=0.25, erase_x=1, erase_y=0)
    expected = images.copy()
    expected[:, :10, 20:] = 128
    assert np.array_equal(shown, expected)
    fraction = (
        applied(np.zeros((200, 20, 20, 3), np.uint8), sample(Policy(erase=0.5), 0, 200)) > 0
    ).mean()
    assert abs(fraction - 0.25) < 0.04


# Batches, sizes, unusual input


def test_splitting_a_batch_does_not_change_the_images() -> None:
    images, parameters = noise(4, 24, 24), sample(ALL, 7, 4)
    whole = applied(images, parameters)
    parts = [applied(images[rows], parameters[rows]) for rows in (slice(0, 2), slice(2, 4))]
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 1, 1, 3), "uint8"), ((1, 1, 1, 3), "float32"), ((2, 17, 9, 3), "float32")],
    ids=str,
)
def test_images_of_any_shape(shape: tuple[int, ...], dtype: str) -> None:
    images = np.full(shape, 77, dtype)
    shown = applied(images, sample(ALL if dtype == "uint8" else "standard", 0, len(images)))
    assert (shown.shape, shown.dtype) == (shape, dtype)
    assert np.isfinite(shown).all()
    still = augmented(images, rotate=30, crop=0.5, perspective_x=0.2)
    assert np.array_equal(still, images) if dtype == "uint8" else np.allclose(still, images)


def test_an_empty_batch() -> None:
    empty = noise(0, 12, 16)
    assert applied(empty, sample("strong", 0, 0)).shape == (0, 12, 16, 3)
    assert applied(empty, sample("standard", 0, []), image_px=8).shape == (0, 8, 8, 3)


def test_the_input_is_not_modified() -> None:
    images = noise()
    before = images.copy()
    applied(images, sample("strong", 0, 2))
    assert np.array_equal(images, before)


@pytest.mark.parametrize(
    ("given", "back"), [("float16", "float16"), ("float32", "float32"), ("float64", "float32")]
)
def test_floats_stay_floats(given: str, back: str) -> None:
    images = noise().astype(given)
    shown = applied(images, sample("standard", 0, 2))
    assert shown.dtype == back
    expected = applied(noise().astype("float32"), sample("standard", 0, 2))
    assert np.abs(shown.astype("float32") - expected).max() <= 0.2


def test_uint8_is_float32_rounded() -> None:
    images, parameters = noise(4), sample("standard", 1, 4)
    assert (
        np.abs(applied(images, parameters) - applied(images.astype("float32"), parameters)).max()
        <= 0.51
    )


@pytest.mark.parametrize("name", ["standard", "trivial"])
def test_nan_stays_in_its_photo(name: str) -> None:
    images = soft(4, 24, 24).astype("float32")
    holed = images.copy()
    holed[2, 10, 11, 1] = np.nan
    parameters = sample(name, 3, 4)
    whole, shown = applied(images, parameters), applied(holed, parameters)
    others = [0, 1, 3]
    assert np.array_equal(shown[others], whole[others])
    if name == "standard":  # and next to its position
        assert 0 < np.isnan(shown[2]).sum() <= 3 * 16
        seen = ~np.isnan(shown[2])
        assert np.allclose(shown[2][seen], whole[2][seen])
    assert np.isnan(augmented(holed, equalize=1)).sum() == 1
    assert np.array_equal(augmented(holed, rotate=0), holed, equal_nan=True)


# Errors


@pytest.mark.parametrize("name", OPERATIONS)
def test_policies_out_of_range(name: str) -> None:
    most = OPERATIONS[name].maximum
    for value in (-0.1, most + 0.1, most + 1, float("nan"), "1", None, True, [0.1]):
        with pytest.raises(ArgumentError, match=rf"`{name}` must be .*Received: {name}=.*never"):
            Policy(**{name: value})
    Policy(**{name: type(getattr(Policy(), name))(most)})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_ops": 0}, "`num_ops` must be .*Received: num_ops=0"),
        ({"num_ops": 1.5}, "`num_ops` must be"),
        ({"fixed_magnitude": 1}, "`fixed_magnitude` must be"),
        ({"posterize": 2.0}, "`posterize` must be an integer"),
        ({"fill": "wrap"}, "`fill` must be 'reflect', 'edge' or a color.*Received: fill='wrap'"),
        ({"fill": (0, 0)}, "`fill` must be"),
        ({"fill": (0, 0, 256)}, "`fill` must be"),
    ],
)
def test_other_policy_fields_out_of_range(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        Policy(**values)


def test_a_policy_by_name_value_and_itself() -> None:
    mine = Policy(rotate=3, fill=(1, 2, 3), num_ops=1)
    assert augment.policy(mine) is mine
    assert augment.policy("light") == POLICIES["light"]
    for one in (mine, *POLICIES.values(), augment.randaugment(1, 20)):
        assert augment.policy(one.to_json()) == one
    for wrong in ("heavy", 3, None):
        with pytest.raises(ArgumentError, match=r"must be one of 'none', 'light'.*Received: "):
            augment.policy(wrong)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"known fields.*Received: .*'turn'"):
        augment.policy({"turn": 3})


@pytest.mark.parametrize(("n", "m"), [(0, 9), (1.5, 9), (2, 0), (2, 31), (2, "9")])
def test_randaugment_out_of_range(n: Any, m: Any) -> None:
    with pytest.raises(ArgumentError, match=r"`[nm]` must be .*Received: [nm]="):
        augment.randaugment(n, m)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("seed", (-1, 3, 0)),
        ("seed", (0.5, 3, 0)),
        ("epoch", (0, 3, -1)),
        ("n", (0, -1, 0)),
        ("n", (0, [0, -2], 0)),
        ("n", (0, [0.5], 0)),
        ("n", (0, [[1]], 0)),
        ("n", (0, True, 0)),
    ],
)
def test_sampling_arguments_out_of_range(name: str, arguments: tuple[Any, Any, Any]) -> None:
    seed, n, epoch = arguments
    with pytest.raises(ArgumentError, match=rf"`{name}` must be .*Received: "):
        sample("standard", seed, n, epoch=epoch)


@pytest.mark.parametrize(
    "values",
    [
        {"turn": 1},
        {"rotate": 181},
        {"blur": -1},
        {"crop_x": 0.5},
        {"crop": "0.1"},
        {"hue": True},
        {"rotate": [1, 2]},
        {"crop": None},
        {"horizontal_flip": float("nan")},
    ],
    ids=str,
)
def test_fixed_with_invalid_values(values: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=r"must be .*Received: "):
        fixed(1, **values)


@pytest.mark.parametrize(
    "images",
    [
        noise(3),
        noise(2)[0],
        noise(2)[:, :, :, :2],
        noise(2)[None],
        noise(2)[:, :0],
        noise(2).astype(np.int64),
        noise(2).astype(object),
        noise(2) > 100,
        noise(2).tolist(),
        None,
    ],
    ids=["n", "one", "two colors", "rank 5", "no rows", "int", "object", "bool", "list", "None"],
)
def test_images_of_a_wrong_shape_or_dtype(images: Any) -> None:
    with pytest.raises(ArgumentError, match=r"`images` must .*Received: "):
        apply(images, sample("standard", 0, 2))


@pytest.mark.parametrize("px", [0, -3, 1.5, "160", (1, 2, 3), (0, 5), True])
def test_image_px_out_of_range(px: Any) -> None:
    with pytest.raises(ArgumentError, match=r"`image_px` must be .*Received: image_px="):
        apply(noise(), sample("standard", 0, 2), image_px=px)


def test_parameters_of_a_wrong_type() -> None:
    with pytest.raises(
        ArgumentError, match=r"`parameters` must come from `sample` or `fixed`.*Received: dict"
    ):
        apply(noise(), {})  # type: ignore[arg-type]


# Compiled


@pytest.mark.skipif(not ON_JAX, reason="compiled programs are JAX's")
def test_programs_are_compiled_once_for_all_epochs() -> None:
    import jax

    images = noise(4, 24, 24)
    for name in ("standard", "strong"):
        applied(images, sample(name, 0, 4, epoch=0))
        with jax.no_tracing():
            for epoch in range(1, 4):
                apply(images, sample(name, 0, [5, 2, 9, epoch], epoch=epoch))


def small_model(vary: Any, dtype: str = "uint8") -> Any:
    k = keras()
    model = k.Sequential([
        k.Input((16, 16, 3), dtype=dtype), vary, k.layers.Rescaling(1 / 255),
        k.layers.GlobalAveragePooling2D(), k.layers.Dense(3),
    ])  # fmt: skip
    model.compile("sgd", k.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_the_layer_keeps_the_model_compiled_and_compiles_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small_model(augment.layer("standard"))
    kind = augment.register()
    calls, run = [], kind.call

    def counted(*arguments: Any, **how: Any) -> Any:
        calls.append(1)
        return run(*arguments, **how)

    monkeypatch.setattr(kind, "call", counted)
    images, labels = noise(8, 16, 16), np.arange(8) % 3
    model.fit(images, labels, batch_size=4, epochs=1, verbose=0)
    once = len(calls)
    assert once >= 1
    if not ON_JAX:
        return
    assert model.jit_compile
    model.fit(images, labels, batch_size=4, epochs=2, verbose=0)
    assert len(calls) == once


def test_the_layer_is_the_identity_at_inference_and_random_in_training() -> None:
    as_array = keras().ops.convert_to_numpy
    images, vary, again = noise(), *(augment.layer("standard", seed=4) for _ in range(2))
    assert np.array_equal(as_array(vary(images)), images)
    one, two = (as_array(vary(images, training=True)) for _ in range(2))
    assert one.dtype == np.uint8
    assert not np.array_equal(one, two)
    assert np.array_equal(as_array(again(images, training=True)), one)


def test_the_layer_flips_with_the_given_probability() -> None:
    images, flips = noise(), augment.layer(Policy(horizontal_flip=0.5))
    shown = [keras().ops.convert_to_numpy(flips(images, training=True)) for _ in range(32)]
    mirrored, same = (
        np.concatenate([(batch == of).all(axis=(1, 2, 3)) for batch in shown])
        for of in (images[:, :, ::-1], images)
    )
    assert (mirrored ^ same).all()
    assert 12 < mirrored.sum() < 52


@pytest.mark.parametrize("policy", ["trivial", Policy(rotate=7, fill=(1, 2, 3))], ids=str)
def test_the_layer_is_saved_with_its_model(policy: Any, tmp_path: Path) -> None:
    k = keras()
    model = small_model(augment.layer(policy, seed=3, name="vary"))
    images = noise(4, 16, 16)
    model.save(tmp_path / "model.keras")
    loaded = k.saving.load_model(tmp_path / "model.keras")
    config = loaded.get_layer("vary").get_config()
    assert augment.policy(config["policy"]) == augment.policy(policy)
    assert config["seed"] == 3
    assert np.allclose(loaded.predict(images, verbose=0), model.predict(images, verbose=0))
    assert type(loaded.get_layer("vary")) is augment.register()


def test_layer_arguments_out_of_range() -> None:
    with pytest.raises(ArgumentError, match="must be one of"):
        augment.layer("heavy")
    with pytest.raises(ArgumentError, match="`seed` must be"):
        augment.layer("light", seed=-1)


# MixUp and CutMix


def test_mix_parameters_depend_on_seed_epoch_and_step_only() -> None:
    one, same, other = (
        augment.sample_mix(3, 9),
        augment.sample_mix(3, 9),
        augment.sample_mix(3, 9, step=1),
    )
    assert np.array_equal(one.box, same.box)
    assert not np.array_equal(one.box, other.box)
    for mix_parameters in (one, other, augment.sample_mix(0, 2)):
        n = len(mix_parameters)
        assert sorted(mix_parameters.partner) == list(range(n))
        assert (mix_parameters.partner != np.arange(n)).all()
    many = augment.sample_mix(0, 4000)
    assert abs((many.lam < 1).mean() - 0.5) < 0.04
    assert (augment.sample_mix(0, 50, cutmix_alpha=0).box == 0).all()
    assert (augment.sample_mix(0, 50, mixup_alpha=0).lam == 1).all()
    lams = augment.sample_mix(0, 4000, mixup_alpha=1, cutmix_alpha=0).lam  # Beta(1, 1) is uniform
    assert np.abs(np.histogram(lams, 4, (0, 1))[0] - 1000).max() < 4 * math.sqrt(750)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_mixup_is_a_weighted_mean(dtype: str) -> None:
    images, labels = noise(5, 6, 8).astype(dtype), np.array([0, 2, 1, 1, 0])
    mix_parameters = augment.sample_mix(1, 5, cutmix_alpha=0, mixup_alpha=1)
    mixed, soft_labels = map(
        keras().ops.convert_to_numpy,
        augment.apply_mix(images, labels, mix_parameters, n_classes=np.max(labels) + 1),
    )
    lam = mix_parameters.lam[:, None, None, None].astype(float)
    expected = lam * images + (1 - lam) * images[mix_parameters.partner]
    assert mixed.dtype == dtype
    assert np.abs(mixed - expected).max() <= (0.501 if dtype == "uint8" else 1e-3)
    one_hot = np.eye(3)[labels]
    lam = mix_parameters.lam[:, None]
    assert np.allclose(
        soft_labels, lam * one_hot + (1 - lam) * one_hot[mix_parameters.partner], atol=1e-6
    )


def test_cutmix_weights_labels_by_pixels() -> None:
    images, labels = noise(20, 10, 10), np.eye(20, dtype="float32")
    mix_parameters = augment.sample_mix(1, 20, mixup_alpha=0)
    mixed, soft_labels = map(
        keras().ops.convert_to_numpy, augment.apply_mix(images, labels, mix_parameters)
    )
    own, others = ((mixed == of).all(axis=3) for of in (images, images[mix_parameters.partner]))
    assert (own | others).all()
    part = own.mean(axis=(1, 2))
    assert np.allclose(np.diag(soft_labels), part, atol=1e-6)
    assert np.allclose(soft_labels[np.arange(20), mix_parameters.partner], 1 - part, atol=1e-6)
    assert np.allclose(soft_labels.sum(axis=1), 1, atol=1e-6)
    for k in range(20):  # what comes from the partner is one rectangle
        rows, columns = (~own[k]).any(axis=1), (~own[k]).any(axis=0)
        assert (~own[k]).sum() == rows.sum() * columns.sum()


def test_keras_accepts_soft_labels() -> None:
    k = keras()
    model = small_model(k.layers.Identity())
    model.compile(
        "sgd", k.losses.CategoricalCrossentropy(from_logits=True), metrics=["categorical_accuracy"]
    )
    mixed, soft_labels = augment.apply_mix(
        noise(6, 16, 16), np.arange(6) % 3, augment.sample_mix(0, 6), n_classes=3
    )
    losses = model.train_on_batch(mixed, soft_labels, return_dict=True)
    assert np.isfinite(float(losses["loss"]))
    assert 0 <= float(losses["categorical_accuracy"]) <= 1


@pytest.mark.parametrize(
    ("labels", "n_classes", "said"),
    [
        ([0, 1], None, "`n_classes` must be"),
        ([0, 3], 3, "`n_classes` must be"),
        ([0, -1], 3, "`n_classes` must be"),
        ([0, 1, 2], 3, "`labels` must be"),
        ([0.5, 0.5], 3, "`labels` must be"),
        ([[0.5, 0.5]], None, "`labels` must be"),
        ([[0.5, 0.5]] * 2, 3, "`labels` must be"),
    ],
)
def test_invalid_labels(labels: Any, n_classes: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=f"{said}.*Received: "):
        augment.apply_mix(noise(2), np.array(labels), augment.sample_mix(0, 2), n_classes=n_classes)


def test_images_that_do_not_match_the_mix_parameters() -> None:
    with pytest.raises(ArgumentError, match=r"`images` must .*Received: "):
        augment.apply_mix(noise(3), np.zeros(3, int), augment.sample_mix(0, 2), n_classes=2)


@pytest.mark.parametrize(
    "how",
    [{"seed": -1}, {"n": -1}, {"step": -1}, {"epoch": 0.5}, {"mixup_alpha": -1},
     {"cutmix_alpha": "1"}, {"mixup_alpha": 0, "cutmix_alpha": 0}],
    ids=str,
)  # fmt: skip
def test_mix_arguments_out_of_range(how: dict[str, Any]) -> None:
    name = next(iter(how))
    with pytest.raises(ArgumentError, match=rf"`{name}` must be .*Received: {name}="):
        augment.sample_mix(**{"seed": 0, "n": 4} | how)


# Other backends


_EACH = """
import sys
import numpy as np
from scenelearn import augment
from tests.helpers.networks import keras
images = np.random.default_rng(0).integers(0, 256, (6, 20, 28, 3), dtype=np.uint8)
found = {}
for name in augment.POLICIES:
    for kind in ("uint8", "float32"):
        varied = augment.apply(images.astype(kind), augment.sample(name, 1, 6))
        found[f"{name} {kind}"] = keras().ops.convert_to_numpy(varied)
for name, operation in augment.OPERATIONS.items():
    parameters = augment.fixed(6, **{name: operation.maximum / 2 if name != "posterize" else 3})
    found[name] = keras().ops.convert_to_numpy(augment.apply(images.astype("float32"), parameters))
smaller = augment.apply(images, augment.sample("strong", 0, 6), image_px=9)
found["smaller uint8"] = keras().ops.convert_to_numpy(smaller)
mixed, soft = augment.apply_mix(images, np.arange(6), augment.sample_mix(0, 6), n_classes=6)
found["mixed uint8"], found["soft"] = map(keras().ops.convert_to_numpy, (mixed, soft))
np.savez(sys.argv[1], **found)
"""


def test_backends_agree(tmp_path: Path) -> None:
    backends = [b for b in ("jax", "tensorflow", "torch") if importlib.util.find_spec(b)]
    if len(backends) < 2:
        pytest.skip("only one backend of Keras is installed")
    found = {}
    for backend in backends:
        path = tmp_path / f"{backend}.npz"
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run([sys.executable, "-c", _EACH, path], env=environment, check=True)
        found[backend] = dict(np.load(path))
    first = found[backends[0]]
    assert len(first) == 2 * len(POLICIES) + len(OPERATIONS) + 3
    for backend in backends[1:]:
        for name, one in first.items():
            other, scale = found[backend][name], 1 if name == "soft" else 255
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            difference = np.abs(one.astype(float) - other.astype(float)) / scale
            # Rounding, thresholds and quantization amplify a difference in the last bit to a step.
            steps = "uint8" in name or name in {"jpeg_blocks", "trivial float32"}
            assert (difference <= 1e-4).mean() >= (0.999 if steps else 1), (backend, name)
            if "uint8" in name and "trivial" not in name:
                assert difference.max() <= 1.001 / 255, (backend, name)


# Previews


def test_a_preview_shows_the_photo_first(tmp_path: Path) -> None:
    images = soft(3, 30, 40)
    grid = augment.preview(images, "strong", n=4, rows=2, image_px=24)
    assert grid.images.shape == (2, 5, 24, 24, 3)
    middle = Image.fromarray(images[0]).crop((5, 0, 35, 30))
    expected = np.asarray(middle.resize((24, 24), Image.Resampling.BICUBIC), float)
    assert np.abs(grid.images[0, 0] - expected).max() <= 2
    parameters = sample("strong", 0, 8)
    assert grid.captions[1] == ("original", *(parameters.caption(k) for k in range(4, 8)))
    variants = applied(np.repeat(grid.images[:, 0], 4, axis=0), parameters)
    assert np.array_equal(grid.images[:, 1:].reshape(8, 24, 24, 3), variants)

    page = grid._repr_html_()
    assert page.count("<img ") == page.count("alt=") == page.count("<figcaption") == 10
    assert "http" not in page
    assert grid.captions[0][1].split(",")[0] in page
    text = grid.save(tmp_path / "grid.html").read_text(encoding="utf-8")
    assert page in text
    with Image.open(grid.save(tmp_path / "grid.png")) as picture:
        assert picture.size == grid.to_image().size
        assert np.array_equal(np.asarray(picture)[8:32, 8:32], grid.images[0, 0])
    assert {path.name for path in tmp_path.iterdir()} == {"grid.html", "grid.png"}
    with pytest.raises(ArgumentError, match=r"`path` must end in \.html"):
        grid.save(tmp_path / "grid.gif")


def test_a_preview_of_files_with_fixed_parameters(scenes: Path) -> None:
    import scenelearn as sl

    photos = sl.scan(scenes)
    parameters = fixed(1, rotate=90)
    grid = augment.preview(photos, parameters, rows=3, image_px=24)
    assert grid.captions == (("original", "rotate +90 degrees"),) * 3
    assert np.array_equal(grid.images[:, 1], np.rot90(grid.images[:, 0], 1, (1, 2)))
    files = [photos.folder / photos.paths[0], photos.folder / photos.paths[-1]]
    again = augment.preview(files, parameters, image_px=24)
    assert np.array_equal(again.images, grid.images[[0, 2]])
    one = augment.preview(str(files[0]), parameters, image_px=24)
    assert np.array_equal(one.images, again.images[:1])


@pytest.mark.parametrize("shape", ["crop", "pad", "squash"])
def test_a_preview_shows_photos_as_they_are_trained_on(
    scenes: Path, tmp_path: Path, shape: str
) -> None:
    import scenelearn as sl

    photos = sl.scan(scenes)
    grid = augment.preview(photos, "light", n=2, rows=1, image_px=(20, 40), shape=shape)
    assert grid.images.shape == (1, 3, 20, 40, 3)
    assert np.array_equal(grid.images[0, 0], sl.data.to_image(photos.read(0), (20, 40), shape))
    with Image.open(grid.save(tmp_path / "grid.png")) as picture:
        assert np.array_equal(np.asarray(picture)[8:28, 56:96], grid.images[0, 1])
    with pytest.raises(ArgumentError, match="`shape` must be one of"):
        augment.preview(photos, shape="stretch")


def test_previews_without_valid_photos(tmp_path: Path) -> None:
    for nothing in ([], 3, noise(0)):
        with pytest.raises(ArgumentError, match=r"`photos` must be .*Received: "):
            augment.preview(nothing)
    with pytest.raises(ArgumentError, match=r"shape \(height, width, 3\).*Received: shape"):
        augment.preview(noise(2)[..., 0])
    with pytest.raises(ArgumentError, match="`n` must be an integer of at least 1"):
        augment.preview(noise(2), n=0)
    with pytest.raises(ArgumentError, match="`photos` must be a path"):
        augment.preview([3])
    (tmp_path / "text.jpg").write_text("no photo")
    for path in (tmp_path / "text.jpg", tmp_path / "missing.jpg"):
        with pytest.raises(PhotoError, match=rf"{path.name}.* cannot be read: "):
            augment.preview([path])
