# %% [markdown]
# # Supported versions
#
# scenelearn supports Python 3.11 and newer, Keras 3.12 and newer, and JAX 0.6 and newer. With a
# Keras that is newer than those below, it logs one warning. Where that Keras lacks a private name
# that scenelearn uses, it runs Keras' own layers, which are slower.
#
# The tests that depend on Keras and JAX, run by `nox -s versions`:

# %% tags=["folded"]
import json
from pathlib import Path

from IPython.display import Markdown

rows = json.loads(Path("docs/results/versions.json").read_text())
names = ("Keras", "JAX", "NumPy", "Python", "System", "Passed", "Failed", "Date")
table = [names, ["---"] * len(names), *([row[name.lower()] for name in names] for row in rows)]
Markdown("\n".join(f"| {' | '.join(map(str, line))} |" for line in table))
