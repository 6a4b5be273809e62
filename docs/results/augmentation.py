# %% [markdown]
# # Augmentation
#
# During fine-tuning, the network sees each training photo slightly changed in each epoch: cropped,
# rotated, brighter. The parameters of these changes are sampled first; they depend only on the
# seed, the epoch and the photo. They are then applied to a whole batch at once, on the device.
#
# The default policy is `augmentation="standard"`:

# %%
import tempfile
from dataclasses import replace

import numpy as np
from IPython.display import display

import scenelearn as sl
from scenelearn import augment

with tempfile.TemporaryDirectory() as folder:
    photos = sl.scan(sl.sample_scenes(folder, per_class=1, seed=3))
    preview = augment.preview(photos, "standard", n=5, rows=3, image_px=96)
preview

# %% [markdown]
# The other named policies, and RandAugment, on the same scene:

# %%
scene = preview.images[0, 0]
for name in ("light", "strong", "trivial"):
    display(augment.preview(scene[None], name, n=5, image_px=96))
display(augment.preview(scene[None], augment.randaugment(2, 9), n=5, image_px=96))

# %% [markdown]
# A custom policy sets the strength of each operation in its unit; 0 turns it off:
# `augment.Policy(horizontal_flip=0.5, rotate=20, brightness=0.5)`.
#
# ## All operations
#
# Each operation at five strengths. Signed operations range from minus to plus half of the maximum
# strength, the others from 0 to half of the maximum. Probabilities are shown off and on.

# %% tags=["folded"]
for name, operation in augment.OPERATIONS.items():
    high = operation.maximum if operation.unit in ("probability", "bits") else operation.maximum / 2
    low = -high if operation.signed else 0
    steps = [0, 1] if operation.unit == "probability" else np.linspace(low, high, 5)
    strengths = [float(round(s) if operation.unit == "bits" else round(s, 3)) for s in steps]
    crop = {"crop": 0.5} if name == "aspect" else {}  # the aspect ratio changes only with a crop
    parameters = augment.fixed(len(strengths), **{name: strengths}, **crop)
    grid = augment.preview(scene[None], parameters, image_px=96)
    captions = tuple(f"{name} {s:g}" for s in strengths)
    display(
        replace(
            grid,
            images=grid.images[:, 1:],
            captions=(captions,),
            title=f"{name}: {operation.description}; {operation.unit}",
        )
    )

# %% [markdown]
# ## Implementation
#
# - Flip, crop, aspect ratio, rotation, zoom, shear, translation and perspective are composed into
#   one matrix per photo. Each output pixel is then sampled once, directly at the training size,
#   with bilinear interpolation. If the photo shrinks, several samples are averaged.
# - Brightness, contrast, saturation, hue, temperature and grayscale are composed into one 3×4 color
#   matrix per photo.
# - All other operations run afterwards, and only if the policy uses them.
#
# On JAX this takes a few compiled programs. They are the same in every epoch, because parameters
# are inputs and shapes are fixed. The three colors of a pixel are read as one 32-bit number. `fit`
# prepares a batch in a thread while it trains on the previous one. TensorFlow and Torch run the
# same code and agree to 0.0001 of the pixel range.
#
# ## Speed

# %% tags=["folded"]
import json
from pathlib import Path

speed = json.loads(Path("docs/results/augmentation_speed.json").read_text())
print(f"{'':<28} {'ms per image':>12} {'ratio':>8}")
for row in speed["rows"]:
    if "left_out" in row or "skipped" in row:
        print(f"{row['name']:<28} {row.get('left_out') or row.get('skipped')}")
    else:
        ratio = row["ratio_to_scenelearn"]
        print(f"{row['name']:<28} {row['ms_per_image']:12.3f} {ratio:8.2f}")
print(f"\n{speed['setup']}")

# %% [markdown]
# The ratio is relative to scenelearn with the policy "standard". Albumentations and torchvision run
# in one process per core, with the images in memory. scenelearn and the Keras layers run in one
# process on all cores. `python -m tests.bench.augmentation_speed` measured this.

# %% tags=["folded"]
speed["environment"]

# %% [markdown]
# Compared with a training step, the cost of the policy "standard" is small:

# %% tags=["folded"]
step = speed["training_step"]
print(step["setup"])
print(f"training step                    {step['ms_per_image']:6.2f} ms per image")
print(f"training step with augmentation  {step['ms_per_image_with_standard']:6.2f} ms per image")
print(f"augmentation alone               {step['standard_alone_ms_per_image']:6.2f} ms per image")
print(f"augmentation alone, of the step  {step['standard_alone_fraction']:6.1%}")

# %% [markdown]
# ## Effect on accuracy
#
# `mobilenet_v2_0.35` fine-tuned on 25, 100 and 500 photos per class of the Intel scenes, with and
# without augmentation, on three splits. Gains are paired on the same test photos, with a 95%
# confidence interval. An earlier recipe was measured, which kept the better of the linear probe and
# the fine-tuned network. The last line gives the validation accuracy of the fine-tuned network
# alone. `python -m tests.bench.augmentation_accuracy` measured this.

# %% tags=["folded"]
path = Path("docs/results/augmentation_accuracy.json")
if not path.exists():
    print("Not measured yet.")
for row in json.loads(path.read_text())["comparisons"] if path.exists() else []:
    (baseline, before, tuned_before), (policy, after, tuned_after) = (
        (name, row[f"test_{name}"], row[f"validation_fine_tuned_{name}"])
        for name in (row["baseline"], row["policy"])
    )
    print(f"{row['per_class']:>4} photos per class, {policy} instead of {baseline}:")
    print(f"     test {before:.1%} to {after:.1%}, gain", end=" ")
    print(f"{row['test_gain']:+.1%} ({row['low']:+.1%} to {row['high']:+.1%})")
    print(f"     fine-tuned alone, validation {tuned_before:.1%} to {tuned_after:.1%}")

# %% [markdown]
# ## MixUp and CutMix
#
# [`augment.apply_mix`][scenelearn.augment.apply_mix] blends two photos (MixUp) or pastes a box of
# one into the other (CutMix). The labels become soft: the fraction of each class.

# %%
images = preview.images[:, 0]
pairs = augment.sample_mix(seed=2, n=len(images), mixup_alpha=1.0)
mixed, labels = augment.apply_mix(images, np.arange(len(images)), pairs, n_classes=3)
captions = tuple(", ".join(f"{v:.2f}" for v in row) for row in np.asarray(labels))
augment.Preview(
    images=np.asarray(mixed)[None], captions=(captions,), title="Mixed photos with soft labels"
)
