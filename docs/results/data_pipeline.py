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
# ## Near duplicates
#
# Changed copies of 640 of 3,000 Intel photos, 16 kinds of changes. The thresholds of the audit were
# chosen on one half of the photos; the other half has the result that counts. Other pairs are real
# photos that the audit groups, though no copy was planted; some of them do show the same picture.
# The photos of a fixed camera and the drawings contain no duplicates: none should be grouped.
#
# The audit compares edges and texture first, then colors and details, and is stricter in a series
# of photos that look alike. The upper row of each pair leaves the latter two out.

# %% tags=["folded"]
duplicates = json.loads(Path("docs/results/near_duplicates.json").read_text())
print(f"{'photos':<22} {'audit':<16} {'recall':>7} {'precision':>10} {'other pairs':>12}")
for half, rows in duplicates["halves"].items():
    for row in rows:
        numbers = f"{row['recall']:7.1%} {row['precision']:10.1%} {row['other_pairs']:12}"
        print(f"{half:<22} {row['audit']:<16} {numbers}")

# %% tags=["folded"]
print(f"{'recall of':<24} {'without colors':>15} {'with colors':>12}")
before, after = (row["recall_by_change"] for row in duplicates["halves"]["judged on"])
for change in before:
    print(f"{change:<24} {before[change]:15.1%} {after[change]:12.1%}")

# %% tags=["folded"]
print(f"{'photos grouped wrongly':<24} {'photos':>7} {'without colors':>15} {'with colors':>12}")
for row in duplicates["series"]:
    grouped = [row[audit]["grouped"] for audit in ("without colors", "with colors")]
    print(f"{row['series']:<24} {row['photos']:7} {grouped[0]:15} {grouped[1]:12}")

# %% [markdown]
# ## Label errors
#
# A part of the labels of Intel training photos was replaced by another class. Precision is how many
# of the first 100 suggestions are such labels; the photos have errors of their own, which count as
# wrong suggestions here. scenelearn and cleanlab are given the same out-of-fold probabilities.
# "cleanlab" is `find_label_issues` with its defaults, ranked by self-confidence; "best ranking" is,
# in hindsight, the best of all its filters and rankings. Means of several seeds.

# %% tags=["folded"]
errors = json.loads(Path("docs/results/label_errors.json").read_text())["summary"]
methods = ("scenelearn", "cleanlab", "cleanlab, best ranking")
print(f"{'planted':>8}", *(f"{method:>23}" for method in methods))
for row in errors:
    cells = (f"{row[method]['precision_first_100']:23.1%}" for method in methods)
    print(f"{row['rate']:8.0%}", *cells)
print(f"\nThe best ranking of cleanlab: {errors[0]['cleanlab, best ranking']['name']}")

# %% [markdown]
# All suggestions: how many there are, how many of them are planted errors (precision), and how many
# of the planted errors are among them (recall).

# %% tags=["folded"]
keys = ("n_suggestions", "precision", "recall")
print(f"{'planted':>8} {'':<10}", *(f"{key.removeprefix('n_'):>12}" for key in keys))
for row in errors:
    for method in methods[:2]:
        n, *rates = (row[method][key] for key in keys)
        print(f"{row['rate']:8.0%} {method:<10} {n:12,.0f}", *(f"{rate:12.1%}" for rate in rates))

# %% [markdown]
# Accuracy of a linear probe on unseen photos: with the errors, after a person has looked at the
# first 100 or at all suggestions of scenelearn and restored the labels, and without planted errors.

# %% tags=["folded"]
steps = {
    "planted": "with errors",
    "first 100, scenelearn": "first 100 fixed",
    "all, scenelearn": "all fixed",
    "no planted errors": "without errors",
}
print(f"{'planted':>8}", *(f"{title:>16}" for title in steps.values()))
for row in errors:
    print(f"{row['rate']:8.0%}", *(f"{row['accuracy'][step]:16.1%}" for step in steps))

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
