"""`fit`: from split photos to a tested classifier. Its stages are the methods of `_run.Run`."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from scenelearn._backend import default_settings
from scenelearn._checks import check_bool
from scenelearn._distributed import gather_to_one_device
from scenelearn._progress import Progress, show_progress
from scenelearn.augment import Policy
from scenelearn.backbones._network import Preprocessing, load_if_own
from scenelearn.data import Splits
from scenelearn.data._pixels import broken_photos_error, check_broken
from scenelearn.data._rejections import HARMLESS
from scenelearn.finetune._result import FitResult
from scenelearn.finetune._run import Run
from scenelearn.finetune._runtime import Callbacks, Clock, handle_signals
from scenelearn.finetune._schedule import Schedule
from scenelearn.finetune._settings import Recipe, resolve_settings
from scenelearn.finetune._teacher import check_same_view, load_teacher


@default_settings()
def fit(
    splits: Splits,
    *,
    backbone: Any = None,
    weights: str | os.PathLike[str] | None = "imagenet",
    preprocessing: Preprocessing = None,
    image_px: int | tuple[int, int] | None = None,
    shape: str = "crop",
    minutes: float = 5.0,
    epochs: int | Schedule | None = None,
    batch_size: int = 32,
    learning_rate: float | None = None,
    augmentation: str | Policy | Mapping[str, Any] = "standard",
    recipe: Recipe | Mapping[str, Any] | None = None,
    teacher: Any = None,
    seed: int = 0,
    precision: str | None = None,
    class_weight: str | Mapping[str, float] | None = None,
    objective: str = "accuracy",
    callbacks: Sequence[Any] = (),
    devices: str | None = None,
    broken: str = "skip",
    resume: bool = False,
    progress: Progress | None = None,
    verbose: bool | str = "auto",
) -> FitResult:
    """Train a classifier on split photos, and test it.

    1. Prepare: decode every photo once. 2. Linear probe: compute the features of each photo with
    the frozen backbone, only once (see `extract_features`), and fit the best linear layer on them,
    with an L2 penalty chosen by cross-validation on the training photos. 3. Fine-tune from there,
    for as many epochs as fit into the time budget. Keep weights interpolated between the linear
    probe and the fine-tuned weights: the coefficient depends on the number of photos per class,
    unless another is significantly better on the validation photos. With random weights, keep the
    best epoch, or the linear probe. 4. Calibrate the probabilities, prediction sets and
    out-of-distribution detection on the validation photos. 5. Test on the test photos, which have
    not been used before.

    With pretrained weights, the layers with small feature maps are fine-tuned; or all layers, with
    a teacher, and of "scenelearn_tiny", whose weights were learned from rendered images.
    BatchNormalization keeps its pretrained statistics. With random weights, all layers are trained,
    starting with a zero head. For transformers that do not fit into memory, see
    `Recipe.lora_rank`.

    The complete state is saved to a checkpoint after each epoch and every half minute, more rarely
    on a slow disk. The same call with `resume=True` continues from there after the process was
    killed. Where `epochs` is set, it ends with the same weights and history as without the
    interruption (bit for bit on a CPU); otherwise the time decides, as always. Ctrl-C and SIGTERM
    end fine-tuning after the current step: the result is the best so far, and the checkpoint is
    kept. Otherwise `FitResult.save` removes it, once the classifier is safe. Before the linear
    probe is fitted there is no result yet, and they raise `KeyboardInterrupt`; so does a second
    signal at any time. Signals are handled only in the main thread, and only if the program does
    not handle them itself. If the loss becomes NaN or infinite, fine-tuning also ends, with a
    warning.

    Args:
        splits: from `split`.
        backbone: a network of keras.applications, MobileNets with their width, see
            `backbones.names`; "auto" for that of a few with the highest accuracy on ImageNet that
            fits the time budget and free memory; or None for the one that belongs to the weights,
            see `backbones.default_for`: usually "mobilenet_v3_small". Or a network of your own,
            from an image to feature maps, tokens or a vector: a `keras.Model`, which is not
            changed; the path of a ``.keras`` file; or a backbone, image classifier or preset of
            KerasHub, as "hub:" with its name or as the path of its folder, which need
            ``scenelearn[hub]``. Of feature maps, the average is used; of tokens, the class token
            and the average of the patches; of a classifier that ends in a `Dense` layer with
            softmax, what comes before it. Or a list of networks, on whose concatenated features the
            linear probe is fitted, without fine-tuning; those of keras.applications get their
            pretrained weights, others must tell their preprocessing.
        weights: "imagenet"; "scenelearn" for the bundled weights of "scenelearn_tiny"; the path of
            a weights file without top layers; or None for random weights. A network of your own
            brings its weights along; None trains them like random ones.
        preprocessing: the pixel values that a network of your own expects: "none" for 0 to 255,
            "tf" for -1 to 1, "torch" for 0 to 1 minus ImageNet's mean and divided by its standard
            deviation, "caffe" for blue, green and red minus their means, or (mean, std) of values
            between 0 and 1, a number or three each. None if the network tells: by the image
            converter of its preset, by a first layer `Rescaling`, or by a first
            layer `Normalization` of values from 0 to 255.
        image_px: the side of the network's square input, or its (height, width), in pixels. None
            for the size that a network of your own was made for (with KerasHub at most 224), 224 if
            it takes any size, or 160 for networks of keras.applications. For squares above 160, a
            network that takes any size is trained on smaller images, see `Recipe.train_px`.
            Position embeddings of KerasHub's networks are interpolated. Transformers need a square.
        shape: what happens to photos of other proportions than the network's input, in training as
            later in prediction and in exports. "crop": their center is cropped. "pad": the whole
            photo is put between black bars. "squash": the whole photo is stretched.
        minutes: time budget of the whole fit. What must be done in any case (decoding, features,
            linear probe, test) is done even if it takes longer, with a warning.
        epochs: number of epochs of fine-tuning, however long they take; 0 for none; None for as
            many as fit into the time budget, at most 40 with pretrained weights and 120 with random
            ones, where the last one may be shorter. Or the schedule from the settings of a result.
            In a soup (see `Recipe.soup`), each cycle has this many epochs. With a teacher, each
            batch is learned twice in an epoch, the second time 16 steps later; so a schedule is for
            fits with a teacher only, or for fits without.
        batch_size: photos per training step.
        learning_rate: peak learning rate of fine-tuning; kernels may have a lower one, see
            `Recipe.scale_lr_by_weights`. None for the default: 0.003 with random weights and for
            "scenelearn_tiny", otherwise 0.001, or 0.0007 with a teacher.
        augmentation: how training photos are augmented during fine-tuning: the name of a policy of
            `scenelearn.augment`, or a policy; "none" disables augmentation.
        recipe: advanced settings, such as the layers to train, CutMix and soups: a
            `Recipe`, or some of its values by name. Other values have the defaults of `Recipe`,
            except that all layers of "scenelearn_tiny" are trained, and with a teacher all layers
            are trained and photos are mixed.
        teacher: a more accurate classifier of the same classes, from which the network learns: a
            `Classifier`, the result of a fit, or the path of a bundle. Fine-tuning then learns what
            the teacher predicts in place of the labels: its probabilities and its features, for
            each augmented image. MixUp and CutMix are on, and all layers are trained, unless
            `recipe` is a `Recipe` or sets them. The teacher sees these images at its own size; its
            `shape` and the proportions must be the student's. Each step takes longer by this
            prediction. Validation and test photos keep their labels.
        seed: random seed.
        precision: "mixed_bfloat16" or "mixed_float16": feature extraction and fine-tuning compute
            in 16 bits, float16 with loss scaling. Weights, head and loss stay in float32, and the
            classifier is calibrated and tested in float32 as well. If the device does not support
            it, float32 is used, with a warning. CPUs support it only with TensorFlow and Torch, on
            Linux, if they have instructions for it. None (float32) always works.
        class_weight: how much the photos of each class count in the linear probe, in fine-tuning,
            in calibration, and in the validation loss that decides what is kept. "balanced": n /
            (n_classes · n_c), as in scikit-learn, so that all classes together count the same; or
            weights by class name, where others have 1. Only their ratios matter. Probabilities
            then are those for photos with classes as frequent as their weights make them. None:
            all photos count the same.
        objective: what the results lead with: "accuracy", "balanced_accuracy" or "log_loss". What
            is kept is decided by the calibrated log loss on the validation photos, which
            distinguishes networks with fewer photos than accuracies need; for "balanced_accuracy"
            each class counts the same in it.
        callbacks: instances of `keras.callbacks.Callback`. Their hooks are called in fine-tuning,
            with the logs "loss", and after each epoch "val_loss", "val_accuracy" and
            "learning_rate". `model` is the network from pixels to logits, with a teacher
            followed by the teacher's features. One that sets
            ``model.stop_training`` ends fine-tuning after the step; the learning rate and what is
            kept are not theirs to decide. If one raises an error, a checkpoint is saved.
        devices: "all" divides each batch among all devices of JAX, including those of other
            processes; the result is that of one device, up to rounding. None uses one device, or
            those of the `keras.distribution.DataParallel` that is set.
        broken: "skip" leaves out broken photos and lists them in the result; "raise" raises an
            error for the first one, before training.
        resume: resume an interrupted run with the same settings (except for `minutes`), photos,
            weights and versions. The time that it has used counts. If there is none, a warning is
            logged, and the run starts from the beginning. "auto" may choose another backbone than
            the first time: pass the name of that. Without `resume`, the run always starts from the
            beginning, and such a checkpoint is removed.
        progress: called with (what, done, total) during the work.
        verbose: "auto" shows progress bars on a terminal and in a notebook; True and False show
            them always and never.

    Returns:
        The classifier with its metrics, its history, and all that is needed to repeat the run. The
        settings hold the schedule of the epochs, so that a repetition trains equally long on any
        machine.

    Raises:
        ArgumentError: if `splits` has the wrong type or has no validation photos, a setting is out
            of range, the network does not support this image size or has no layer for LoRA, a
            network of your own cannot be a backbone, several networks would be fine-tuned, or no
            backbone is named and it cannot be inferred from the weights file; or if `teacher` is
            something else, sees other parts of the photos, or nothing would be fine-tuned for it.
        UnknownBackboneError: if keras.applications has no such network.
        PathMissingError: if `backbone`, `weights` or `teacher` is a path where no file is.
        WeightsFileError: if the weights file does not fit the network, or the file of a network
            cannot be loaded.
        WeightsUnavailableError: if the ImageNet weights or a preset cannot be downloaded.
        MissingExtraError: if the network needs KerasHub, which is not installed.
        NoPhotosError: if no photo can be decoded.
        TooFewPhotosError: if no photo of a split can be decoded.
        PhotoError: if `broken` is "raise" and a photo is broken.
        DiskError: if `resume` is True, and the system cannot read the checkpoint.
        BackendError: if no Keras backend is installed, or it finds no device.
        ClassMismatchError: if the teacher has other classes.
        BundleError: if the teacher's file is no bundle.
        ForkError: if this process was forked after Keras had started.
        DeviceError: if devices or processes cannot work together, or have different photos.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, see above; its argument is the signal's name.

    References:
        Linear probing before fine-tuning: A. Kumar et al. (2022), Fine-tuning can distort
        pretrained features and underperform out-of-distribution. ICLR.
    """
    start = time.perf_counter()
    network = load_if_own(backbone, preprocessing)
    settings = resolve_settings(
        splits,
        network=network,
        has_teacher=teacher is not None,
        backbone=backbone,
        weights=weights,
        preprocessing=preprocessing,
        image_px=image_px,
        shape=shape,
        minutes=minutes,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        augmentation=augmentation,
        recipe=recipe,
        seed=seed,
        precision=precision,
        class_weight=class_weight,
        objective=objective,
    )
    teacher = load_teacher(teacher, splits.photos.class_names)
    if teacher is not None:
        check_same_view(teacher, settings.train_resize)
        settings = replace(settings, teacher=teacher.name)
    checked = Callbacks(callbacks)
    check_bool("resume", resume)
    check_broken(broken)
    rejected = tuple(one for one in splits.photos.rejected if one.reason not in HARMLESS)
    if rejected and broken == "raise":
        raise broken_photos_error(rejected)
    with ExitStack() as context:
        report = context.enter_context(show_progress(progress, verbose))
        stop = context.enter_context(handle_signals())
        minutes = settings.minutes if settings.epochs is None else math.inf
        clock = Clock(minutes, report, stop, start)
        run = Run(splits, settings, network, teacher=teacher, clock=clock, stop=stop)
        run.prepare(context, devices=devices, broken=broken)
        if not (resume and run.restore()):
            run.fit_probe()
        run.fine_tune(checked)
        with run.clock.phase("test") as note:
            run.calibrate()
            run.test()
            note(f"{run.evaluation.accuracy} on {run.evaluation.n_photos:,} test photos")
        keeps_checkpoint = run.was_interrupted()
    gather_to_one_device(run.model)
    return run.result(keeps_checkpoint=keeps_checkpoint)
