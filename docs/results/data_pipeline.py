# %% [markdown]
# # Data pipeline
#
# Scan, audit and split scale to 200,000 photos, and batches load faster than with other loaders.
# The numbers come from `nox -s data_pipeline -- --photos FOLDER`.
#
# ## Scaling to 200,000 photos
#
# Rendered JPEGs of 64×64 pixels; a tenth are re-encoded copies of others, and three files are
# truncated. If a step takes time proportional to n · log n, the last column is constant.

# %% tags=["folded"]
import json
from pathlib import Path

scale = json.loads(Path("docs/results/scale.json").read_text())
print(f"{'photos':>8}  {'step':<14} {'seconds':>8} {'peak MiB':>9} {'µs / (n log₂ n)':>16}")
for size in scale["sizes"]:
    for name, step in size["steps"].items():
        if name != "import":
            constant = step["microseconds_per_n_log2_n"]
            numbers = f"{step['seconds']:8.2f} {step['peak_mib']:9.0f} {constant:16.2f}"
            print(f"{size['photos']:>8,}  {name:<14} {numbers}")
    found = f"{size['planted_found']:,} of {size['planted']:,} planted near duplicates found"
    print(f"{'':8}  {found}; {size['pairs_found'] - size['planted_found']:,} other pairs\n")

# %% tags=["folded"]
scale["environment"]

# %% [markdown]
# ## Comparison with other data loaders
#
# Shuffled batches of 32 square images of 160 px from a folder of photos. Each loader has its own
# process, all in the same session. In the first epoch, scenelearn also verifies and hashes every
# file, and writes the pixel cache that later epochs read. The other loaders do neither.

# %% tags=["folded"]
throughput = json.loads(Path("docs/results/throughput.json").read_text())
print(f"{'photos per second':<26} {'first epoch':>12} {'later':>10}")
for row in throughput["rows"]:
    print(f"{row['loader']:<26} {row['first']:12,.0f} {row['later']:10,.0f}")
first, later = (throughput[f"{when}_ratio_to_fastest_other"] for when in ("first", "later"))
print(f"\nscenelearn relative to the fastest other: first {first:.2f}×, later {later:.1f}×")

# %% tags=["folded"]
throughput["environment"]
