# %% [markdown]
# # Photos: growth and speed
#
# Read from the files that `python -m tests.bench.scale` and `python -m tests.bench.throughput`
# wrote (`nox -s photos -- --photos FOLDER` runs both).
#
# ## 2,000, 20,000 and 200,000 photos
#
# Drawn JPEGs of 64×64 pixels, a tenth of them re-encoded copies of others, three truncated. A step
# that grows as n · log n keeps the microseconds in the last column.

# %%
import json
from pathlib import Path

scale = json.loads(Path("docs/results/scale.json").read_text())
scale["environment"]

# %%
print(f"{'photos':>8}  {'step':<14} {'seconds':>8} {'peak MiB':>9} {'µs / (n log₂ n)':>16}")
for size in scale["sizes"]:
    for step, found in size["steps"].items():
        if step != "import":
            each = found["microseconds_per_n_log2_n"]
            numbers = f"{found['seconds']:8.2f} {found['peak_mib']:9.0f} {each:16.2f}"
            print(f"{size['photos']:>8,}  {step:<14} {numbers}")
    found = f"{size['planted_found']:,} of {size['planted']:,} planted copies found"
    print(f"{'':8}  {found}; {size['pairs_found'] - size['planted_found']:,} other pairs\n")

# %% [markdown]
# ## Batches, against other loaders
#
# Shuffled batches of 32 squares of 160 px from a folder of photos, each loader in a process of its
# own, all in one run. The first epoch counts everything from the folder on. Ours then opens and
# hashes every file before it decodes any, and keeps the pixels for the later epochs; the others do
# neither.

# %%
throughput = json.loads(Path("docs/results/throughput.json").read_text())
throughput["environment"]

# %%
print(f"{'photos a second':<26} {'first epoch':>12} {'later':>10}")
for row in throughput["rows"]:
    print(f"{row['loader']:<26} {row['first']:12,.0f} {row['later']:10,.0f}")
first, later = (throughput[f"{when}_ratio_to_fastest_other"] for when in ("first", "later"))
print(f"\nscenelearn against the fastest other: first {first:.2f} times, later {later:.1f} times")
