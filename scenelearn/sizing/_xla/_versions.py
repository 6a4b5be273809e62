"""The versions of Keras and JAX for which the rule was verified.

Everything in this package follows the private behavior of these versions: the operations that Keras
emits, JAX's gradients, and XLA:CPU's passes in jaxlib 0.10.2. `tests/bench/memory.py` compares the
rule with XLA's own plans; run it before another version is added here.
"""

from __future__ import annotations

from importlib import metadata

VERIFIED_VERSIONS = {"keras": "3.15", "jax": "0.10"}


def version_note() -> str:
    """Say which installed version the rule was not verified for; empty if there is none."""
    others = []
    for package, verified in VERIFIED_VERSIONS.items():
        try:
            installed = metadata.version(package)
        except metadata.PackageNotFoundError:  # the rule does not need them
            continue
        if not installed.startswith(f"{verified}."):
            others.append(f"{package} {installed}")
    if not others:
        return ""
    verified = " and ".join(
        f"{package} {version}" for package, version in VERIFIED_VERSIONS.items()
    )
    return (
        f'method="xla" was verified for {verified} only. Installed: {", ".join(others)}. Other '
        "versions may plan other memory."
    )
