# %% [markdown]
# # Augmentation: what it does, what it costs
#
# While a network is fine-tuned, it sees each training photo a little different in each epoch: cut,
# turned, lighter. What happens is drawn first, as numbers that follow from the seed, the epoch and
# the photo alone; then it is applied, to a whole batch at once, on the device.

# %%
import tempfile
from dataclasses import replace

import numpy as np
from IPython.display import display

import scenelearn as sl
from scenelearn import augment

with tempfile.TemporaryDirectory() as folder:
    photos = sl.scan(sl.sample_scenes(folder, per_class=1, seed=3))
    shown = augment.preview(photos, "standard", n=5, rows=3, image_px=96)
shown

# %% [markdown]
# `fit(..., augmentation="standard")` is the default. The other policies by name, on the same scene:

# %%
scene = shown.images[0, 0]
for name in ("light", "strong", "trivial"):
    display(augment.preview(scene[None], name, n=5, image_px=96))
display(augment.preview(scene[None], augment.randaugment(2, 9), n=5, image_px=96))

# %% [markdown]
# A policy of your own is a strength for each operation, in its unit, 0 for never:
# `augment.Policy(mirror=0.5, rotate=20, brightness=0.5)`.
#
# ## Every operation at five strengths
#
# Operations that go both ways from their half strength downwards to upwards, the others upwards, to
# half of the strongest setting that a policy may ask for; probabilities off and on.

# %%
for name, operation in augment.OPERATIONS.items():
    most = operation.most if operation.unit in ("probability", "bits") else operation.most / 2
    least = -most if operation.signed else 0
    steps = [0, 1] if operation.unit == "probability" else np.linspace(least, most, 5)
    strengths = [float(round(s) if operation.unit == "bits" else round(s, 3)) for s in steps]
    room = {"crop": 0.5} if name == "stretch" else {}  # without a crop nothing is stretched
    draws = augment.exactly(len(strengths), **{name: strengths}, **room)
    grid = augment.preview(scene[None], draws, image_px=96)
    captions = tuple(f"{name} {s:g}" for s in strengths)
    display(
        replace(
            grid,
            images=grid.images[:, 1:],
            captions=(captions,),
            title=f"{name}: {operation.what}; {operation.unit}",
        )
    )

# %% [markdown]
# ## How it is done
#
# - Mirror, crop, stretch, rotation, zoom, shear, shift and tilt are multiplied into one matrix a
#   photo, and each new pixel is read once, straight at the training size: a mean of its four
#   neighbors, or of several such means where the photo is made smaller.
# - Brightness, contrast, saturation, hue, temperature and gray are one 3×4 matrix a photo.
# - What fits into neither comes after, and costs something only if a policy asks for it.
#
# On JAX these are a few compiled programs, the same for all epochs, since the draws are arguments
# and the shapes are fixed; the three colors of a pixel are read as one 32-bit number. `fit` makes
# a batch in a thread while the one before it is trained on. On TensorFlow and Torch the same code
# gives the same images, to 0.0001 of the range.
#
# ## What it costs
#
# Read from the file that `python -m tests.bench.augment` wrote.

# %%
import json
from pathlib import Path

found = json.loads(Path("docs/results/augment.json").read_text())
found["environment"]

# %%
print(f"{'':<28} {'ms an image':>12} {'times ours':>11}")
for row in found["rows"]:
    if "left_out" in row:
        print(f"{row['what']:<28} {row['left_out']}")
    else:
        print(f"{row['what']:<28} {row['ms_an_image']:12.3f} {row['ratio_to_ours']:11.2f}")
print(f"\n{found['what']}")

# %% [markdown]
# "Times ours" is against the policy "standard". The libraries run in one process a core, with the
# images in memory; ours and Keras' layers run in one process on all cores.

# %%
step = found["training_step"]
print(step["what"])
print(f"a step                  {step['ms_an_image']:7.2f} ms an image")
print(f"with standard           {step['ms_an_image_with_standard']:7.2f} ms an image")
print(f"standard alone          {step['standard_alone_ms_an_image']:7.3f} ms an image")
print(f"standard alone, share of the step: {step['alone_share']:.1%}")

# %% [markdown]
# ## What it brings
#
# Fine-tuning `mobilenet_v2_0.35` on 25, 100 and 500 photos a class of the Intel scenes, without and
# with a policy, three splits each; read from the file that `python -m tests.bench.augment_helps`
# wrote. The gain is on the same test photos, with its 95 % interval. It is of what `fit` keeps, the
# better of the solved head and the fine-tuned network; the last two numbers are the fine-tuned
# network alone, on validation photos.

# %%
helps = Path("docs/results/augment_helps.json")
if not helps.exists():
    print("Not measured yet.")
for row in json.loads(helps.read_text())["compared"] if helps.exists() else []:
    (base, before, tuned_before), (policy, after, tuned_after) = (
        (name, row[f"test_{name}"], row[f"validation_fine_tuned_{name}"])
        for name in (row["against"], row["policy"])
    )
    print(f"{row['per_class']:>4} photos a class, {policy} instead of {base}:")
    print(f"     test {before:.1%} to {after:.1%}, gain", end=" ")
    print(f"{row['test_gain']:+.1%} ({row['low']:+.1%} to {row['high']:+.1%})")
    print(f"     fine-tuned alone, validation {tuned_before:.1%} to {tuned_after:.1%}")

# %% [markdown]
# ## Photos that belong together
#
# [`augment.mix`][scenelearn.augment.mix] blends two photos (MixUp) or cuts a box from one into the
# other (CutMix), and gives labels that say how much of each.

# %%
everything = shown.images[:, 0]
pairs = augment.pair(seed=2, n=len(everything), mixup=1.0)
mixed, labels = augment.mix(everything, np.arange(len(everything)), pairs, n_classes=3)
captions = tuple(", ".join(f"{v:.2f}" for v in row) for row in np.asarray(labels))
augment.Preview(
    images=np.asarray(mixed)[None], captions=(captions,), title="Mixed, with their soft labels"
)
