# %% [markdown]
# # From a laptop to a cluster
#
# What a laptop, one GPU, a cluster and a billion photos take. "Measured" means read from a file in
# `docs/results`; everything else is arithmetic from these numbers, and says so.

# %% tags=["folded"]
from IPython.display import HTML, Markdown

from docs._measured import html_table, read
from scenelearn import sizing


def table(columns, rows, caption):
    """A plain HTML table; cells are escaped."""
    return HTML(html_table(columns, rows, caption))


def duration(seconds):
    """A duration in its natural unit."""
    for unit, size in (("years", 3.156e7), ("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"


network, image_px = "mobilenet_v3_small", 160
intel, scale, speed = read("intel"), read("scale"), read("speed")
loader = next(row for row in read("throughput")["rows"] if row["loader"] == "scenelearn")
timing = next(row for row in speed["rows"] if row["backbone"] == network)
audits = {size["photos"]: size["steps"]["audit"] for size in scale["sizes"]}
largest = max(audits)
decode_s = 1 / loader["first"]
predict_s, train_s = timing["predict_fast_ms"] / 1000, timing["train_fast_ms"] / 1000
pixel_bytes = 3 * image_px**2

table(
    ["Step", "Per photo", "Source"],
    [
        ["decode once", f"{1000 * decode_s:.2f} ms", "measured, throughput.json"],
        [
            "audit for duplicates",
            f"{1000 * audits[largest]['seconds'] / largest:.2f} ms",
            f"measured on {largest:,} photos, scale.json",
        ],
        ["predict", f"{1000 * predict_s:.2f} ms", "measured, speed.json"],
        ["train, one pass", f"{1000 * train_s:.2f} ms", "measured, speed.json"],
        ["decoded pixels", sizing.format_bytes(pixel_bytes), "3 bytes per pixel"],
    ],
    f"{network} at {image_px} px; each file names its machine and number of cores.",
)

# %% [markdown]
# ## One laptop
#
# Per-photo costs times the number of photos: one decoding, 1.55 passes for features (70% of the
# photos, for training, also mirrored, and 15% for validation), and ten passes of training.
# Augmentation, linear probe and test are not counted. Rates that are measured on thousands of
# photos are assumed to hold for more.

# %% tags=["folded"]
PASSES, FEATURE_PASSES = 10, 1.55


def laptop(n):
    """Seconds to decode, extract features and train."""
    return n * decode_s, FEATURE_PASSES * n * predict_s, PASSES * n * train_s


table(
    ["Photos", "Decode", "Features", f"{PASSES} epochs", "Decoded pixels on disk"],
    [
        [f"{n:,}", *map(duration, laptop(n)), sizing.format_bytes(n * pixel_bytes)]
        for n in (6_000, 100_000, 1_000_000, 10_000_000, 1_000_000_000)
    ],
    "Arithmetic.",
)

# %% tags=["folded"]
whole = [run for run in intel["runs"] if run["minutes"] and run["minutes"] > 4]
fine_tuned = sum(run["seconds"] for run in whole) / len(whole)
probes = [run["seconds"] for run in intel["runs"] if run["minutes"] is None]
Markdown(
    f"To compare: whole fits on {intel['photos']['n']:,} photos, measured on "
    f"{whole[0]['environment']['cores']} cores, took {duration(sum(probes) / len(probes))} with a "
    f"linear probe only, and {duration(fine_tuned)} with fine-tuning in a budget of "
    f"{whole[0]['minutes']:g} minutes. `sl.plan(splits, minutes=5)` measures a step on your "
    "machine and says beforehand what a fit would do in its time."
)

# %% [markdown]
# The decoded pixels must fit into the cache. Its limit is 64 GiB, unless `SCENELEARN_CACHE_GIB`
# sets another. Photos that do not fit are decoded again in each
# epoch.
#
# So a laptop is enough for some hundred thousand photos: as many as the cache holds. Beyond that,
# fit on a sample first: accuracy grows slowly with photos, see [accuracy by number of
# photos](../results/accuracy.py#accuracy-by-number-of-photos).
#
# ## One GPU
#
# The speed of scenelearn on a GPU was not measured. What is known before is the memory: the
# textbook count of a training step that updates all layers, and the largest batch that fits.

# %% tags=["folded"]
estimates = {
    name: sizing.estimate(name, input_shape=(224, 224, 3), optimizer="adam")
    for name in ("mobilenet_v3_small", "efficientnet_b0", "resnet50", "convnext_tiny")
}
rows = []
for name, estimate in estimates.items():
    rows.append(
        [
            name,
            f"{estimate.n_parameters:,}",
            f"{3 * estimate.n_multiply_adds / 1e9:,.1f} billion",
            *(f"{estimate.max_batch(memory):,}" for memory in ("8 GiB", "24 GiB", "80 GiB")),
        ]
    )
table(
    [
        "Network",
        "Parameters",
        "Multiply-adds per photo and step",
        "Batch in 8 GiB",
        "24 GiB",
        "80 GiB",
    ],
    rows,
    "Arithmetic, at 224 px with Adam in float32; the backward pass counted as two forward passes.",
)

# %% [markdown]
# A small network is rarely limited by the GPU. The photos must be decoded fast enough:

# %% tags=["folded"]
cores = intel["runs"][0]["environment"]["cores"]
Markdown(
    f"the measured {loader['first']:,.0f} photos per second (150×150 JPEGs, {cores} cores) in the "
    f"first epoch, and {loader['later']:,.0f} from the pixel cache in later ones. Photos of many "
    "megapixels take much longer to decode, once."
)

# %% [markdown]
# ## A cluster
#
# [`sl.fit(devices="all")`](../how-to/gpus.md) gives each device a part of every batch and averages
# gradients. The averaging moves all trained weights once per step:

# %% tags=["folded"]
link_bytes_s = 10e9 / 8
table(
    ["Network", "Gradients", "Exchange at 10 Gbit/s", "Step at 100 TFLOP/s, 64 photos"],
    [
        [
            name,
            sizing.format_bytes(estimate.parameter_bytes),
            f"{1000 * 2 * estimate.parameter_bytes / link_bytes_s:.1f} ms",
            f"{1000 * 64 * 3 * 2 * estimate.n_multiply_adds / 1e14:.1f} ms",
        ]
        for name, estimate in estimates.items()
    ],
    "Arithmetic: a ring all-reduce sends each gradient twice. Both rates are assumptions.",
)

# %% [markdown]
# Where the exchange takes longer than the step, more hosts bring little: use larger batches, or a
# faster network. Nothing on this page was measured on a cluster.
#
# ## A billion photos

# %% tags=["folded"]
n = 1_000_000_000
decode, features, training = laptop(n)
audit_s = audits[largest]["seconds"] / largest * n
memory = audits[largest]["peak_mib"] * 2**20 / largest * n
Markdown(
    f"""
- **Pixels**: {sizing.format_bytes(n * pixel_bytes)} at {image_px} px, so not in memory and on few
  disks.
- **Decoding**: {duration(decode)} on the measured machine, {duration(decode / 100)} on a hundred
  of them.
- **Features**: {duration(features)} on the measured machine, and
  {sizing.format_bytes(n * 576 * 4)} for 576 numbers per photo.
- **Training**, one epoch: {duration(training / PASSES)} on the measured machine.
- **Duplicates**: {duration(audit_s)} and {sizing.format_bytes(round(memory))} of memory at the
  measured rate per photo.
"""
)

# %% [markdown]
# All of this is arithmetic from rates per photo. scenelearn does not do it: its scan, audit and
# splits hold a row per photo in the memory of one process (the largest scan that was measured is in
# the first table), and its pixel cache needs one disk. For a billion photos, store them in shards,
# compute features in parallel jobs, and train on a sample of a few million. At that scale, use
# scenelearn only to [serve](../how-to/serving.md) the classifier, in as many processes as you need.
