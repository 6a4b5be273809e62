"""`serve`: a page on which people try a classifier."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import escape
from PIL import Image

from scenelearn._checks import check_bool, check_path
from scenelearn._display import printable
from scenelearn.app._corrections import save_correction
from scenelearn.app._server import Server, check_port
from scenelearn.classify import Classifier
from scenelearn.classify._neighbors import Neighbor
from scenelearn.classify._predictions import Prediction, Predictions
from scenelearn.data._decode import decode_image
from scenelearn.data._files import read_file
from scenelearn.data._rejections import RejectedPhotoError
from scenelearn.data._resize import Resize
from scenelearn.errors import (
    ArgumentError,
    BackendError,
    MissingExtraError,
    PathMissingError,
    SceneLearnError,
)

if TYPE_CHECKING:
    from scenelearn.reporting._thumbnails import Thumbnail

_PICTURE_PX, _NEIGHBOR_PX = 320, 112  # widths
_MAX_FILE = "100mb"  # of one upload
_LOCAL = ("127.0.0.1", "localhost")
_COLUMNS = ("photo", "class", "probability", "remark")
_KEEP_UPLOADS_S = (3600, 24 * 3600)  # how often old ones are looked for, and what is old


class Evidence(NamedTuple):
    """What the page shows of one photo."""

    prediction: Prediction
    picture: Thumbnail | None
    neighbors: list[tuple[Neighbor, Thumbnail | None]]


def serve(
    classifier: Classifier,
    *,
    photos: str | os.PathLike[str] | None = None,
    corrections: str | os.PathLike[str] | None = None,
    port: int | None = None,
    open_browser: bool = False,
) -> Server:
    """Serve a page on which people drop, paste or take photos and see their predictions.

    For one photo: the class or the prediction set with calibrated probabilities, or that the photo
    is unlike the training photos; where the network looked (Grad-CAM); and the most similar
    training photos. For several photos, or a folder: a table to download.

    The page can be opened on this machine only, by its address or as ``localhost``, and loads
    nothing from the net. ``GRADIO_SERVER_NAME=0.0.0.0`` opens it to the network, as hosts for
    Gradio apps do.

    Args:
        classifier: from `load` or `FitResult.classifier`.
        photos: the folder or ZIP file of the training photos, to show the most similar ones; None
            to name their classes only.
        corrections: a folder to save photos in for which a person names another class. It gets a
            ``manifest.csv`` that `scan` reads. None for no corrections.
        port: of the address; None for a free one, from 7860 on.
        open_browser: whether to open the page in the default browser.

    Returns:
        The server, which runs in the background: ``serve(classifier).wait()`` serves until Ctrl-C.

    Raises:
        MissingExtraError: if Gradio is not installed.
        ArgumentError: if an argument has a wrong type, or the port is taken.
        PathMissingError: if `photos` does not exist.
    """
    if not isinstance(classifier, Classifier):
        raise ArgumentError(
            "`classifier` must be a Classifier. Received: "
            f"{type(classifier).__name__}. Pass sl.load('scenes.keras')."
        )
    root = None if photos is None else check_path("photos", photos).absolute()
    if root is not None and not root.exists():
        raise PathMissingError(
            "`photos` must be the folder or ZIP file of the training photos. Received: "
            f"{str(root)!r}, which does not exist. Check the path, or leave it out."
        )
    folder = None if corrections is None else check_path("corrections", corrections).absolute()
    port, open_browser = check_port(port), check_bool("open_browser", open_browser)
    gradio = import_gradio()
    page = _build(gradio, classifier, root, folder)
    host = os.environ.get("GRADIO_SERVER_NAME", _LOCAL[0])
    try:
        with _past_proxies():
            _, url, _ = page.launch(
                server_name=host,
                server_port=port,
                inbrowser=open_browser,
                inline=False,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                show_error=True,
                ssr_mode=False,
                max_file_size=_MAX_FILE,
                footer_links=[],
                app_kwargs={"middleware": _only_own_names() if host in _LOCAL else []},
                theme=gradio.themes.Base(  # the other themes load fonts from the net
                    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
                ),
            )
    except OSError as error:
        raise ArgumentError(
            f"`port` must be free. Received: port={port}: {error} Pass another one, or None."
        ) from None
    except BaseException:
        page.close(verbose=False)
        raise
    return Server(url, lambda: page.close(verbose=False))


@contextmanager
def _past_proxies() -> Iterator[None]:
    """Let Gradio reach its own server, which it asks at the start, past any proxy."""
    before = {name: os.environ.get(name) for name in ("no_proxy", "NO_PROXY")}
    os.environ.update(dict.fromkeys(before, "*"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _only_own_names() -> list[Any]:
    """Refuse the names of other sites that resolve to this machine.

    Otherwise such a site could read what the page shows ("DNS rebinding").
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return [Middleware(TrustedHostMiddleware, allowed_hosts=_LOCAL)]


def import_gradio() -> Any:
    """Import Gradio, without its telemetry.

    Raises:
        MissingExtraError: if it is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError:
        raise MissingExtraError(
            "The app needs Gradio. Received: no installed gradio. Install it with "
            "`pip install 'scenelearn[app]'`."
        ) from None
    return gradio


def _build(gradio: Any, classifier: Classifier, root: Path | None, corrections: Path | None) -> Any:
    """The page as ``gradio.Blocks``."""
    tables = tempfile.TemporaryDirectory(prefix="scenelearn-")

    def predict_one(file: str | None) -> str:
        return "" if file is None else _shown(gradio, lambda: to_html(classifier, file, root))

    def predict_many(files: list[str] | None) -> tuple[Any, Any]:
        if not files:
            return [], gradio.update(value=None, interactive=False)
        predictions, rows = _shown(gradio, lambda: to_table(classifier, files))
        table = Path(tempfile.mkdtemp(dir=tables.name), "predictions.csv")
        table.write_text(predictions.to_csv() + "\n", encoding="utf-8")
        return rows, gradio.update(value=str(table), interactive=True)

    names = classifier.class_names

    def correct(file: str | None, label: str | None) -> str:
        assert corrections is not None
        if file is None or not label:
            raise gradio.Error("Choose a photo and its class first.", print_exception=False)
        content = Path(file).read_bytes()
        _shown(gradio, lambda: save_correction(corrections, content, label, names))
        return f"Saved as {escape(printable(label))}."

    title = ", ".join(map(printable, classifier.class_names[:6]))
    title += ", …" if classifier.class_names[6:] else ""
    with gradio.Blocks(
        title="scenelearn", analytics_enabled=False, delete_cache=_KEEP_UPLOADS_S
    ) as page:
        page.scenelearn_tables = tables  # deleted with the page
        gradio.HTML(f"<h1>Photo classifier</h1><p>Classes: {escape(title)}</p>", padding=True)
        with gradio.Tab("One photo"), gradio.Row():
            with gradio.Column():
                photo = gradio.Image(
                    elem_id="photo",
                    label="Photo: drop, paste, choose or take one",
                    type="filepath",
                    image_mode=None,  # the file as it is
                    sources=["upload", "webcam", "clipboard"],
                    height=320,
                    alt_text="The photo that you chose",
                )
                if corrections is not None:
                    label = gradio.Dropdown(
                        list(classifier.class_names),
                        value=None,
                        label="If that is wrong: it is … (choose a class, or type a new one)",
                        allow_custom_value=True,
                        elem_id="correct-label",
                    )
                    button = gradio.Button("Save the correction", elem_id="correct")
                    saved = gradio.HTML(elem_id="saved")
            with gradio.Column():
                result = gradio.HTML(elem_id="result", apply_default_css=False, padding=True)
        with gradio.Tab("Many photos"):
            files = gradio.File(
                label="Photos",
                file_count="multiple",
                file_types=["image"],
                height=220,
                elem_id="files",
            )
            folder = gradio.UploadButton("Choose a folder", file_count="directory")
            table = gradio.Dataframe(
                headers=list(_COLUMNS), interactive=False, label="Predictions", buttons=[]
            )
            download = gradio.DownloadButton("Download the table (CSV)", interactive=False)
        private = {"api_visibility": "private"}
        photo.change(predict_one, photo, result, **private)
        files.change(predict_many, files, [table, download], **private)
        folder.upload(predict_many, folder, [table, download], **private)
        if corrections is not None:
            button.click(correct, [photo, label], saved, **private)
            photo.change(lambda: ("", None), None, [saved, label], **private)
    return page


def _shown(gradio: Any, work: Any) -> Any:
    """Do work; errors that a person can mend are shown on the page."""
    try:
        return work()
    except SceneLearnError as error:
        raise gradio.Error(str(error), print_exception=False) from None


def to_html(classifier: Classifier, file: str, root: Path | None) -> str:
    """The evidence for a photo's prediction, as part of a page."""
    from scenelearn.reporting._render import render  # here, since Jinja takes time to import

    return render(
        "prediction.html", evidence=find_evidence(classifier, file, root), verdict=verdict
    )


def find_evidence(classifier: Classifier, file: str, root: Path | None) -> Evidence:
    """The prediction of a photo, where the network looked, and the most similar training photos."""
    from scenelearn.reporting._thumbnails import encode

    try:
        explanation = classifier.explain(Path(file))
        prediction, neighbors = explanation.prediction, explanation.neighbors
        size = classifier.resize.scaled(_PICTURE_PX)
        picture = encode(explanation.picture().resize((2 * size.width, size.height)))
    except (ArgumentError, BackendError):  # no feature maps, or no gradients
        (prediction,) = classifier.predict(Path(file), verbose=False)
        neighbors = () if classifier.calibration is None else classifier.similar(Path(file))
        picture = None
    resize = classifier.resize.scaled(_NEIGHBOR_PX)
    shown = [(near, _neighbor_thumbnail(root, near.path, resize)) for near in neighbors]
    return Evidence(prediction, picture, shown)


def _neighbor_thumbnail(root: Path | None, path: str, resize: Resize) -> Thumbnail | None:
    """A training photo; None if it is not in the folder any more. Bundles may name any path."""
    from scenelearn.reporting._thumbnails import encode

    if root is None:
        return None
    try:
        if root.is_dir() and not (root / path).resolve().is_relative_to(root.resolve()):
            return None
        return encode(Image.fromarray(decode_image(read_file(root, path), resize)))
    except (OSError, ValueError, RejectedPhotoError):
        return None


def to_table(
    classifier: Classifier, files: Sequence[str]
) -> tuple[Predictions, list[tuple[str, str, str, str]]]:
    """The predictions of photos, and rows of a table to show; broken photos are in the latter."""
    found = classifier.predict([Path(file) for file in files], broken="skip", verbose=False)
    of_file = {prediction.source: prediction for prediction in found}
    predictions, rows = Predictions(), []
    for file in files:
        name, prediction = Path(file).name, of_file.get(file)
        if prediction is None:
            rows.append((printable(name), "", "", "Not a complete photo in a supported format"))
            continue
        predictions.append(replace(prediction, source=name))
        remark = ". ".join(verdict(prediction)) if prediction.abstains else ""
        percent = f"{prediction.probability:.1%}"
        rows.append((printable(name), printable(prediction.label), percent, remark))
    return predictions, rows


def verdict(prediction: Prediction) -> tuple[str, str]:
    """A prediction in words: a headline, and a sentence."""
    label, members = printable(prediction.label), [*map(printable, prediction.prediction_set)]
    closest = f"The closest is {label} ({prediction.probability:.1%})."
    if prediction.is_ood:
        return "Unlike anything it was trained on", f"Perhaps no class is right. {closest}"
    if not members:
        return "Not sure", f"No class fits well. {closest}"
    if len(members) == 1:
        return label, f"Probability {prediction.probability:.1%}."
    return (
        f"Not sure: {', '.join(members[:-1])} or {members[-1]}",
        f"Such a list contains the right class for {prediction.coverage:.0%} of photos.",
    )
