# %% [markdown]
# # Supported versions
#
# scenelearn supports Python 3.11 and newer, Keras 3.12 and newer, and JAX 0.6 and newer. With a
# Keras that is newer than 3.15, it logs one warning. Where that Keras lacks a private name that
# scenelearn uses, it runs Keras' own layers, which are slower.
#
# `nox -s versions` runs the tests of everything that depends on Keras and JAX: the backbones and
# their fast forms, fits, classifiers, augmentation and sizing. The first row has the lowest
# supported version of every dependency.

# %% tags=["folded"]
import json
from pathlib import Path

from IPython.display import Markdown

rows = json.loads(Path("docs/results/versions.json").read_text())
names = ("Keras", "JAX", "NumPy", "Python", "System", "Passed", "Failed", "Date")
table = [names, ["---"] * len(names), *([row[name.lower()] for name in names] for row in rows)]
Markdown("\n".join(f"| {' | '.join(map(str, line))} |" for line in table))

# %% [markdown]
# Systems and versions of Python without a row have not been tested. The workflow
# `.github/workflows/tests.yml` runs these and all other tests on Linux, macOS and Windows, and with
# Python 3.14, for those who host the project on GitHub.
#
# ## Differences between systems
#
# - On Windows and macOS, the memory that is free is unknown. A batch size that does not fit into it
#   is not reduced.
# - On Windows, the peak memory of a fit is not reported. A file cannot be replaced while another
#   program has it open.
# - The CPU quota of a container limits the number of threads on Linux only. `SCENELEARN_THREADS`
#   works on all systems.
