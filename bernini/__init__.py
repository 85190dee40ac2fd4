"""Bernini: a planner and a renderer for instruction-driven generation and editing of videos.

    from bernini import Case, Pipeline, open_model

    pipeline = Pipeline(open_model("models/Bernini-Diffusers-v2"))
    case = Case(task_type="v2v", prompt="make it snow", videos=("street.mp4",), output="snow.mp4")
    print(pipeline.save(case, pipeline.generate(case)))

Names are imported when asked for: `import bernini` alone imports no torch.
"""

from pkgutil import resolve_name

_PUBLIC = {
    "BerniniError": "bernini.errors:BerniniError",
    "Case": "bernini.generate.cases:Case",
    "MemorySettings": "bernini.memory:MemorySettings",
    "Pipeline": "bernini.generate.pipeline:Pipeline",
    "Settings": "bernini.generate.presets:Settings",
    "open_model": "bernini.layouts:open_model",
    "write_tiny": "bernini.tiny:write_tiny",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'bernini' has no {name!r}; it has {', '.join(__all__)}")
    return resolve_name(_PUBLIC[name])
