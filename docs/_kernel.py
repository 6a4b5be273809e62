"""Runs in the kernel of each executed page: renders no sample scene that another page rendered."""


def _keep_scenes():
    import os
    from pathlib import Path

    from scenelearn._io import atomic_write
    from scenelearn.samples import _scenes

    folder, render = Path(os.environ["SCENELEARN_SCENES"]), _scenes.render_scene

    def read_or_render(seed, class_name, index):
        path = folder / f"{seed}_{class_name}_{index}.jpg"
        if not path.exists():
            with atomic_write(path) as partial:
                partial.write_bytes(render(seed, class_name, index))
        return path.read_bytes()

    _scenes.render_scene = read_or_render


_keep_scenes()
del _keep_scenes
