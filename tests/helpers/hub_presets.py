"""Tiny presets of KerasHub with random weights, one per family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def makers() -> dict[str, Callable[[Any], Any]]:
    """How to build the backbone of each family, given `keras_hub.models`."""
    vit = {"patch_size": 8, "num_layers": 2, "hidden_dim": 16, "num_heads": 2}
    return {
        "vit": lambda m: m.ViTBackbone(image_shape=(48, 48, 3), mlp_dim=32, **vit),
        "deit": lambda m: m.DeiTBackbone(image_shape=(48, 48, 3), intermediate_dim=32, **vit),
        "dinov2": lambda m: m.DINOV2Backbone(
            image_shape=(48, 48, 3),
            position_embedding_shape=(64, 64, 3),
            num_register_tokens=2,
            intermediate_dim=32,
            **vit,
        ),
        "dinov3": lambda m: m.DINOV3Backbone(image_shape=(48, 48, 3), intermediate_dim=32, **vit),
        "siglip": lambda m: m.SigLIPVisionEncoder(
            image_shape=(48, 48, 3), intermediate_dim=32, **vit
        ),
        "swin": lambda m: m.SwinTransformerBackbone(
            image_shape=(64, 64, 3),
            embed_dim=8,
            depths=[1, 1],
            num_heads=[2, 2],
            window_size=4,
            patch_size=4,
        ),
        "efficientnet": lambda m: m.EfficientNetBackbone(
            stackwise_kernel_sizes=[3, 3],
            stackwise_num_repeats=[1, 1],
            stackwise_input_filters=[8, 8],
            stackwise_output_filters=[8, 16],
            stackwise_expansion_ratios=[1, 4],
            stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
            stackwise_strides=[2, 2],
            stackwise_block_types=["v1", "v1"],
            width_coefficient=1.0,
            depth_coefficient=1.0,
        ),
        "mobilenet": lambda m: m.MobileNetBackbone(
            stackwise_expansion=[[16], [24]],
            stackwise_num_blocks=[1, 1],
            stackwise_num_filters=[[8], [16]],
            stackwise_kernel_size=[[3], [3]],
            stackwise_num_strides=[[2], [2]],
            stackwise_se_ratio=[[None], [0.25]],
            stackwise_activation=[["relu"], ["hard_swish"]],
            stackwise_padding=[[1], [1]],
            output_num_filters=32,
            depthwise_filters=8,
            depthwise_stride=2,
            depthwise_residual=False,
            last_layer_filter=32,
            squeeze_and_excite=0.5,
            input_activation="hard_swish",
            output_activation="hard_swish",
            input_num_filters=8,
            image_shape=(None, None, 3),
        ),
        "resnet": lambda m: m.ResNetBackbone(
            input_conv_filters=[8],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[8, 16],
            stackwise_num_blocks=[1, 1],
            stackwise_num_strides=[1, 2],
            block_type="basic_block",
        ),
        "cspnet": lambda m: m.CSPNetBackbone(
            stem_filters=8,
            stem_kernel_size=3,
            stem_strides=1,
            stackwise_depth=[1, 1],
            stackwise_strides=[2, 2],
            stackwise_num_filters=[8, 16],
            block_type="dark_block",
        ),
        "hgnetv2": lambda m: m.HGNetV2Backbone(
            depths=[1, 1],
            embedding_size=8,
            hidden_sizes=[16, 32],
            stem_channels=[3, 8, 8],
            hidden_act="relu",
            use_learnable_affine_block=False,
            stackwise_stage_filters=[(8, 8, 16, 1, 1, 3), (16, 8, 32, 1, 1, 3)],
            apply_downsample=[False, True],
            use_lightweight_conv_block=[False, False],
            image_shape=(64, 64, 3),
        ),
        "densenet": lambda m: m.DenseNetBackbone(stackwise_num_repeats=[1, 1], growth_rate=8),
        "mit": lambda m: m.MiTBackbone(
            layerwise_depths=[1, 1],
            image_shape=(64, 64, 3),
            hidden_dims=[8, 16],
            num_layers=2,
            layerwise_num_heads=[1, 2],
            layerwise_sr_ratios=[2, 1],
            max_drop_path_rate=0.1,
            layerwise_patch_sizes=[7, 3],
            layerwise_strides=[4, 2],
        ),
    }


def save_preset(hub: Any, family: str, folder: Path) -> Any:
    """Save a tiny backbone of a family with an image converter as a preset; return it."""
    import keras

    backbone = makers()[family](hub.models)
    backbone.save_to_preset(str(folder))
    kinds = [
        kind
        for kind in vars(hub.layers).values()
        if isinstance(kind, type) and getattr(kind, "backbone_cls", None) is type(backbone)
    ]
    kind = kinds[0] if kinds else hub.layers.ImageConverter
    converter = kind(image_size=(48, 48), scale=1 / 127.5, offset=-1.0)
    assert isinstance(backbone, keras.Model)
    converter.save_to_preset(str(folder))
    return backbone
