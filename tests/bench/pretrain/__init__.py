"""Pretraining of the bundled backbone on synthetic images only: no photos, no other weights.

    python -m tests.bench.pretrain --out scenelearn/backbones/scenelearn_tiny.weights.h5

`_fields` renders gray patterns, `_textures` colored ones, `_fractals` attractors and Julia sets,
`_layouts` arrangements of shapes around a horizon; `_color` has palettes and lighting, `_kinds`
maps classes to generators, `_store` renders all images into files, and `_train` trains a classifier
of the classes. An image is a function of (seed, class, index). The wheel contains only the
resulting weights.
"""
