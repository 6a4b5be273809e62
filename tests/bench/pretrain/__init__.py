"""Pretraining of the embedded backbone on drawn images only: no photo, no other model's weights.

    python -m tests.bench.pretrain --out scenelearn/backbones/scenelearn_tiny.weights.h5

`_fields` are gray patterns, `_textures` colored ones, `_fractals` attractors and Julia sets,
`_layouts` shapes in an order about a horizon; `_color` has palettes and light, `_kinds` says which
class is drawn by which, `_store` draws all images once into a file, and `_train` learns to tell the
classes apart. An image is a function of (seed, class, index). None of this is in the wheel: what it
makes is.
"""
