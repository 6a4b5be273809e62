# %% [markdown]
# # Memory, planned and estimated
#
# How far `sizing.estimate(..., rule="xla")` is from what XLA itself plans, for Keras's own predict
# and train steps, compiled. Measured by `nox -s memory`, read here from the file that it wrote.

# %%
import json
import statistics
from pathlib import Path

measured = json.loads(Path("docs/results/memory.json").read_text())
measured["versions"]

# %%
cases = [case for case in measured["cases"] if "estimated_bytes" in case]
errors = [case["estimated_bytes"] / case["total_bytes"] - 1 for case in cases]
sizes = sorted(map(abs, errors))
print(f"{len(cases)} steps of {len({case['model'] for case in cases})} networks")
print(f"median error {statistics.median(sizes):.2%}")
print(f"within 1 %: {sum(size <= 0.01 for size in sizes) / len(sizes):.1%}")
print(f"within 5 %: {sum(size <= 0.05 for size in sizes) / len(sizes):.1%}")
print(f"worst {sizes[-1]:.1%}")
seconds = [case["estimate_s"] for case in cases]
median, most = statistics.median(seconds), max(seconds)
print(f"processor seconds an estimate: median {median:.3f}, most {most:.2f}")

# %% [markdown]
# The ten that are furthest off:

# %%
furthest = sorted(zip(errors, cases, strict=True), key=lambda pair: -abs(pair[0]))[:10]
for error, case in furthest:
    step = f"{case['model']}, {case['image_px']} px, batch {case['batch']}, {case['step']}"
    print(f"{error:+8.1%}  {step}")

# %% [markdown]
# XLA's plan is not all that a process takes: see [How sizing counts](../explanation/sizing.py),
# which also says how the rule works and what it leaves out.
