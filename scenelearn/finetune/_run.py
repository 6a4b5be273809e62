"""The stages of a fit: prepare, probe, fine-tune, calibrate, test.

Prepare: build the `_model`, decode photos. Probe: `_features` once, `_linear_probe`. Fine-tune:
`_budget.choose_schedule` times a step and asks `_schedule` for the epochs; `_trainer.train` takes
the `_learner`'s batches and writes the `_checkpoint`. Calibrate. Test once: the `_result`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from scenelearn import backbones
from scenelearn._distributed import (
    assert_same_on_all_processes,
    broadcast,
    broadcast_array,
    data_parallel,
    process_count,
)
from scenelearn._logistic_regression import softmax
from scenelearn._progress import Report
from scenelearn.backbones._network import Network, NetworkList
from scenelearn.classify import Classifier
from scenelearn.classify._calibration import DEFAULT_COVERAGE, Calibration, fit_temperature
from scenelearn.classify._inference import inference_model
from scenelearn.classify._labeled_outputs import (
    LabeledOutputs,
    build_calibration,
    predict_photos,
    sample_training_photos,
)
from scenelearn.data import Pixels, Splits
from scenelearn.data._pixels import at_other_size, load_pixels
from scenelearn.data._resize import Resize, format_px
from scenelearn.finetune._budget import (
    adapt_to_machine,
    choose_schedule,
    measure_prediction,
    requested_schedule,
)
from scenelearn.finetune._checkpoint import Checkpoint, checkpoint_path
from scenelearn.finetune._class_weights import ClassWeights, photo_weights
from scenelearn.finetune._device import (
    choose_batch_size,
    convert_to_float32,
    environment,
    fingerprint,
    memory_summary,
    training_bytes,
)
from scenelearn.finetune._features import Datasets, compute_probe_data, make_datasets
from scenelearn.finetune._learner import Learner, build_learner, teacher_bytes, weigh_datasets
from scenelearn.finetune._linear_probe import LinearProbe, cross_validate_l2
from scenelearn.finetune._lora import add_lora, merge_lora, with_lora
from scenelearn.finetune._model import (
    add_head,
    add_zero_head,
    build_features,
    build_training_features,
    divide_logits,
    select_layers,
)
from scenelearn.finetune._result import Epoch, FitResult
from scenelearn.finetune._runtime import (
    Callbacks,
    Clock,
    SharedStopSignal,
    StopRequest,
    StopSignal,
)
from scenelearn.finetune._settings import FitSettings
from scenelearn.finetune._teacher import Teacher
from scenelearn.finetune._trainer import (
    Control,
    TrainingState,
    describe_training,
    initial_state,
    probe_epoch,
    restore_variables,
    score_logits,
    train,
    unpack,
)
from scenelearn.metrics import Evaluation, evaluate, wilson


class Run:
    """One run of `fit`: the methods are its stages, the attributes what they hand on.

    Attributes:
        splits: the photos and their splits.
        settings: of the fit. `prepare` replaces "auto" and an unsupported precision, `fit_probe`
            the batch size, and `fine_tune` sets the schedule of the epochs.
        clock: the time budget, the phases, and progress reports.
        features: the network from raw pixels to features.
        training_features: the same for images to train on, whose weights are copied to `features`
            after fine-tuning; or `features` itself.
        pixels: of all photos, to train on.
        teacher_pixels: the same at the size of the teacher; None without one.
        metadata: of the classifier, as far as it is known before training.
        checkpoint: of this run.
        datasets: the photos of each split, in batches.
        class_weights: how much each class counts.
        training_model: `training_features` with a head, to logits.
        logits_model: `features` with a head, to logits.
        model: the same to probabilities.
        network: `model` with all outputs that `predict_photos` needs.
        learner: what is trained, with its data.
        state: the progress of fine-tuning.
        stopped: why fine-tuning ended early.
        calibration: of the classifier.
        validation_evaluation: metrics on the validation photos.
        evaluation: metrics on the test photos.
        test_outputs: for the test photos.
    """

    features: Any
    training_features: Any
    pixels: Pixels
    teacher_pixels: Pixels | None
    metadata: dict[str, str]
    checkpoint: Checkpoint
    datasets: Datasets
    class_weights: ClassWeights
    training_model: Any
    logits_model: Any
    model: Any
    network: Any
    learner: Learner
    state: TrainingState
    stopped: str
    calibration: Calibration
    validation_evaluation: Evaluation
    evaluation: Evaluation
    test_outputs: LabeledOutputs

    def __init__(
        self,
        splits: Splits,
        settings: FitSettings,
        network: Network | NetworkList | None,
        *,
        teacher: Teacher | None,
        clock: Clock,
        stop: StopSignal,
    ) -> None:
        self.splits, self.settings, self.clock = splits, settings, clock
        self._own_network, self._teacher = network, teacher
        self._stop = stop
        self._probe_epoch: Epoch | None = None
        self._trained_bytes: int | None = None  # None if nothing was trained

    def prepare(self, context: ExitStack, *, devices: str | None, broken: str) -> None:
        """Take the devices, build the network, and decode the photos.

        Args:
            context: gives the devices back in the end.
            devices: as for `fit`.
            broken: as for `fit`.
        """
        photos = self.splits.photos
        with self.clock.phase("network") as note:
            context.enter_context(data_parallel(devices))  # starts the backend
            self.settings = adapt_to_machine(self.settings, len(photos), self._teacher)
            self.features = build_features(self.settings, self._own_network)
            self.training_features = build_training_features(
                self.features, self.settings, self._own_network
            )
            note(f"{self.settings.backbone_title}, {self.features.count_params():,} parameters")
        with self.clock.phase("photos") as note:
            resize, report = self.settings.train_resize, self.clock.report("decoding photos")
            self.pixels = load_pixels(photos, resize, broken=broken, report=report)
            self.teacher_pixels = None
            if self._teacher is not None:
                self.teacher_pixels = self.pixels
                if self._teacher.resize != resize:
                    self._load_teacher_pixels(self._teacher.resize, broken, report)
            size = format_px(resize.image_px)
            note(f"{int(self.pixels.usable.sum()):,} photos decoded to {size} px")
        settings = self.settings
        self.metadata = {
            **environment(),
            "photos": fingerprint(photos),
            "backbone": own.title if (own := self._own_network) else settings.backbone_title,
            "weights": "random" if settings.weights is None else Path(settings.weights).name,
            **({} if self._teacher is None else {"teacher": self._teacher.title}),
            "weights' license": backbones.weights_license(
                settings.backbone_title, settings.weights
            ),
        }
        file = checkpoint_path(
            self.settings,
            self.splits,
            self.pixels,
            self.features,
            teacher="" if self._teacher is None else self._teacher.digest,
        )
        what = "photos, settings, weights, versions" + ", teacher" * bool(self._teacher)
        assert_same_on_all_processes(file.parent.name, what)
        self.checkpoint = Checkpoint(file)

    def restore(self) -> bool:
        """Restore the state from the checkpoint, instead of `fit_probe`; False if there is none."""
        saved = self.checkpoint.read()
        if saved is None:
            return False
        self.state = unpack(saved.metadata["state"], saved.arrays)
        self._make_datasets(self.state.schedule.batch_size)
        n_classes = self.splits.photos.n_classes
        self._add_heads(lambda features: add_zero_head(features, n_classes))
        select_layers(self.training_features, self.settings)
        add_lora(self.training_features, self.settings)
        self.learner = build_learner(
            self.training_features,
            self.training_model,
            self.datasets,
            self.settings,
            class_weights=self.class_weights,
            teacher=self._teacher,
            teacher_pixels=self.teacher_pixels,
        )
        restore_variables(self.learner.model, saved.arrays)
        note = f"to step {self.state.step} of epoch {self.state.epoch}"
        self.clock.add_earlier_run(saved.metadata["elapsed_s"], note)
        return True

    def fit_probe(self) -> None:
        """Compute the features, fit the linear probe, and use it as the head of the network.

        A run begins here, unless it is resumed: an older checkpoint is removed, and the batch size
        is chosen.
        """
        self.checkpoint.remove()
        settings = self.settings
        features = self.training_features
        with with_lora(features, settings):
            batch_size = choose_batch_size(
                features,
                settings.batch_size,
                updates_batchnorm=settings.updates_batchnorm,
                other_bytes=partial(teacher_bytes, self._teacher, settings.train_px),
            )
        self._make_datasets(batch_size)
        with self.clock.phase("features") as note:
            data = compute_probe_data(
                features,
                self.datasets,
                self.splits,
                self.metadata["backbone"],
                use_cache=settings.weights is not None,
                report=self.clock.report("extracting features"),
            )
            n_features = data.features.shape[1]
            note(f"{n_features:,} features per photo; training photos also mirrored")
        with self.clock.phase("linear probe") as note:
            probe = cross_validate_l2(
                data.features,
                data.labels,
                self.splits.photos.n_classes,
                groups=data.groups,
                class_weight=self.class_weights.training,
                progress=self.clock.report("fitting the linear probe"),
            ).probe
            probe = LinearProbe(
                kernel=broadcast_array(probe.kernel),
                bias=broadcast_array(probe.bias),
                l2=broadcast(probe.l2),
            )
            self._add_heads(lambda features: add_head(features, probe))
            logits = probe.logits(data.validation_features)
            scores = score_logits(logits, data.validation_labels, self.class_weights)
            self._probe_epoch = epoch = probe_epoch(scores)
            n = len(logits)
            accuracy = wilson(round(epoch.validation_accuracy * n), n)
            note(f"L2 penalty {probe.l2:.2g}: {accuracy} on {n:,} validation photos")

    def fine_tune(self, callbacks: Callbacks) -> None:
        """Fine-tune for the requested epochs, or as many as fit into the time budget."""
        self.network = inference_model(self.model)
        self._stop.defer_signals()  # from here on there is a classifier to return
        stop = self._stop if process_count() == 1 else SharedStopSignal(self._stop)
        settings, clock = self.settings, self.clock
        with clock.phase("fine-tuning") as note:
            if self._probe_epoch is not None:  # otherwise `restore` has set both
                self._begin_training(self._probe_epoch, stop)
            control = Control(
                settings=settings,
                clock=clock,
                stop=stop,
                checkpoint=self.checkpoint,
                callbacks=callbacks,
            )
            self.stopped = train(self.learner, self.state, control)
            if self.teacher_pixels is not None:
                failures = self.pixels.read_failures
                failures.update(self.teacher_pixels.read_failures | failures)
            if len(self.state.history) > 1:
                self._trained_bytes = training_bytes(
                    self.training_model, settings.batch_size
                ) + teacher_bytes(self._teacher, settings.train_px, settings.batch_size)
            merge_lora(self.training_features)
            note(describe_training(self.state, self.stopped, requested=settings.epochs))
            epochs = self.state.schedule.epochs
            requested = requested_schedule(settings, self.learner.n_steps)
            if requested is None or (epochs and epochs != requested):  # as after a callback's stop
                none = 0 if settings.teacher is None else ()  # with a teacher, 0 is not allowed
                self.settings = replace(settings, epochs=epochs or none)

    def calibrate(self) -> None:
        """Calibrate the classifier on the validation photos, and on some training photos."""
        if self.training_model is not self.logits_model:
            self.logits_model.set_weights(self.training_model.get_weights())
            self.pixels = at_other_size(self.pixels, self.splits.photos, self.settings.resize)
            self._make_datasets(self.settings.batch_size)
        if self.settings.precision is not None:
            self.network = inference_model(convert_to_float32(self.model))
        photos, report = self.splits.photos, self.clock.report
        validation = predict_photos(
            self.network, self.datasets.validation, report("calibrating"), measure=False
        )
        weights = photo_weights(self.class_weights.training, validation.labels)
        temperature = fit_temperature(validation.outputs.logits, validation.labels, weights)
        divide_logits(self.model, temperature)
        probabilities = softmax(validation.outputs.logits / temperature)
        self.validation_evaluation = evaluate(
            validation.labels, probabilities, photos.class_names, objective=self.settings.objective
        )
        training = predict_photos(
            self.network,
            sample_training_photos(self.datasets.train),
            report("indexing photos"),
            measure=False,
        )
        self.calibration = build_calibration(photos, training, validation, probabilities)

    def test(self) -> None:
        """Test the classifier on the test photos."""
        self.test_outputs = predict_photos(
            self.network,
            self.datasets.test,
            self.clock.report("testing"),
            calibration=self.calibration,
        )
        probabilities = self.test_outputs.outputs.probabilities
        self.evaluation = evaluate(
            self.test_outputs.labels,
            probabilities,
            self.splits.photos.class_names,
            columns=self.test_outputs.image_statistics,
            prediction_sets=self.calibration.prediction_sets(probabilities, DEFAULT_COVERAGE),
            is_ood=self.test_outputs.is_ood,
            objective=self.settings.objective,
        )

    def was_interrupted(self) -> bool:
        """Whether a signal has stopped the run, which can then be resumed."""
        stop = self._stop if process_count() == 1 else SharedStopSignal(self._stop)
        return bool(self.stopped) and self.stopped == stop.requested

    def result(self, *, keeps_checkpoint: bool) -> FitResult:
        """The result of the run.

        Args:
            keeps_checkpoint: whether the checkpoint stays when the result is saved.
        """
        settings, state, photos = self.settings, self.state, self.splits.photos
        metadata = {
            **self.metadata,
            "test accuracy": str(self.evaluation.accuracy),
            **memory_summary(self.training_model, settings.batch_size, self._trained_bytes),
        }
        return FitResult(
            classifier=Classifier(
                model=self.model,
                class_names=photos.class_names,
                image_px=settings.image_px,
                shape=settings.shape,
                metadata=metadata,
                calibration=self.calibration,
            ),
            kept="fine-tuned" if state.best else "linear probe",
            interpolation=state.interpolation if state.best else 0.0,
            evaluation=self.evaluation,
            validation_evaluation=self.validation_evaluation,
            history=tuple(state.history),
            phases=tuple(self.clock.phases),
            splits=self.splits,
            test_indices=self.test_outputs.indices,
            test_probabilities=self.test_outputs.outputs.probabilities,
            test_embeddings=self.test_outputs.embeddings,
            rejected=photos.rejected + self.pixels.rejected,
            settings=settings,
            environment=metadata,
            seconds=self.clock.elapsed_s(),
            stopped=self.stopped,
            _checkpoint=None if keeps_checkpoint else self.checkpoint,
        )

    def _load_teacher_pixels(self, resize: Resize, broken: str, report: Report) -> None:
        """Decode the photos for the teacher; those that cannot be are not used at all."""
        others = load_pixels(self.splits.photos, resize, broken=broken, report=report)
        known = {one.path for one in self.pixels.decode_failures}
        new = tuple(one for one in others.decode_failures if one.path not in known)
        self.teacher_pixels = others
        self.pixels = replace(
            self.pixels,
            usable=self.pixels.usable & others.usable,
            decode_failures=self.pixels.decode_failures + new,
        )

    def _begin_training(self, probe_epoch: Epoch, stop: StopRequest) -> None:
        """Build the learner, choose the schedule, and set the state before the first step."""
        settings, features = self.settings, self.training_features
        predict_s = final_predict_s = 0.0
        train = settings.epochs != 0 and not stop.requested
        if train:
            select_layers(features, settings)
        if settings.epochs is None:  # compiled here, without LoRA, as it will be tested
            predict_s, final_predict_s = measure_prediction(
                self.network, self.training_model, settings, self.splits.photos
            )
        if train:
            add_lora(features, settings)
        probe_weights = self.training_model.get_weights()
        self.learner = build_learner(
            features,
            self.training_model,
            self.datasets,
            settings,
            class_weights=self.class_weights,
            teacher=self._teacher,
            teacher_pixels=self.teacher_pixels,
            train=train,
        )
        self.state = initial_state(
            self.learner,
            choose_schedule(
                self.learner,
                settings,
                predict_s=predict_s,
                final_predict_s=final_predict_s,
                clock=self.clock,
                stop=stop,
            ),
            settings,
            probe_epoch=probe_epoch,
            probe_weights=probe_weights,
        )

    def _add_heads(self, add: Callable[[Any], tuple[Any, Any]]) -> None:
        """Add a head to both networks, or to the one that is both."""
        self.logits_model, self.model = add(self.features)
        self.training_model = self.logits_model
        if self.training_features is not self.features:
            self.training_model, _ = add(self.training_features)

    def _make_datasets(self, batch_size: int) -> None:
        self.settings = replace(self.settings, batch_size=batch_size)
        self.datasets = make_datasets(self.splits, self.pixels, batch_size, self.settings.seed)
        class_names = self.splits.photos.class_names
        self.class_weights = weigh_datasets(self.datasets, self.settings, class_names)
