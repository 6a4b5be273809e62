# %% [markdown]
# # Memory estimates
#
# How close `sizing.estimate(..., method="xla")` comes to the memory that XLA plans for the compiled
# predict and train steps of Keras. Measured by `nox -s memory`.

# %% tags=["folded"]
import json
import statistics
from pathlib import Path

memory = json.loads(Path("docs/results/memory.json").read_text())
cases = [case for case in memory["cases"] if "estimated_bytes" in case]
errors = [case["estimated_bytes"] / case["total_bytes"] - 1 for case in cases]
sizes = sorted(map(abs, errors))
print(f"{len(cases)} steps of {len({case['model'] for case in cases})} networks")
print(f"median error {statistics.median(sizes):.2%}")
print(f"within 1%: {sum(size <= 0.01 for size in sizes) / len(sizes):.1%}")
print(f"within 5%: {sum(size <= 0.05 for size in sizes) / len(sizes):.1%}")
print(f"largest error {sizes[-1]:.1%}")
seconds = [case["estimate_s"] for case in cases]
print(f"CPU seconds per estimate: median {statistics.median(seconds):.3f}, max {max(seconds):.2f}")

# %% [markdown]
# The ten largest errors:

# %% tags=["folded"]
for error, case in sorted(zip(errors, cases, strict=True), key=lambda pair: -abs(pair[0]))[:10]:
    step = f"{case['model']}, {case['image_px']} px, batch {case['batch_size']}, {case['step']}"
    print(f"{error:+8.1%}  {step}")

# %% tags=["folded"]
memory["versions"]

# %% [markdown]
# ## Backbones of KerasHub
#
# Tiny backbones with random weights and a head of ten classes, one per family, at 64 px and a batch
# of 8 (`nox -s memory -- --hub`). Layers that Keras does not have are traced.

# %% tags=["folded"]
hub = json.loads(Path("docs/results/hub_memory.json").read_text())
for case in hub["cases"]:
    error = case["estimated_bytes"] / case["total_bytes"] - 1
    print(f"{error:+8.1%}  {case['model'].removeprefix('hub:')}, {case['step']}")

# %% tags=["folded"]
hub["versions"]

# %% [markdown]
# A process needs more memory than XLA plans. [How sizing works](../explanation/sizing.py) describes
# the method, its limits, and the memory of whole processes.
