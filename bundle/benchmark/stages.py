"""The command with a watch on it: ``python -m bundle.benchmark.stages VOLUME FOLDER [options]``.

Imports what the command does, in its order, so that what comes before the first stage is what the command imports.
"""

import json
import resource
import sys
import time

STAGES = ("configure", "read", "resample", "model", "project", "write")
_METHODS = {  # what ends which stage
    "LoadVolumed": "read",
    "ToTargetGridd": "resample",
    "ProjectBackd": "project",
    "SaveResultd": "write",
}


class _Watch:
    """Seconds of each stage, by the clock and of the processor: from the end of the one before to its own."""

    def __init__(self) -> None:
        self.stages: dict[str, list[float]] = {stage: [0.0, 0.0] for stage in STAGES}
        self.last = self._now()

    def mark(self, stage: str) -> None:
        """A stage is over."""
        now = self._now()
        self.stages[stage] = [s + b - a for s, a, b in zip(self.stages[stage], self.last, now, strict=True)]
        self.last = now

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def wrap(self, owner: type, method: str, stage: str) -> None:
        """Let a method end a stage."""
        original = getattr(owner, method)

        def watched(*args: object, **kwargs: object) -> object:
            result = original(*args, **kwargs)
            self.mark(stage)
            return result

        setattr(owner, method, watched)


def main(source: str, folder: str, *options: str) -> None:
    """Run the command in this process and print, as its last line, what each stage took."""
    from ..lean import import_monai

    import_monai()
    from monai.bundle import ConfigWorkflow

    from .. import inferer, saving, transforms
    from ..job import enhance
    from .machine import peak_of_process

    watch = _Watch()  # what was before is the import
    watch.wrap(ConfigWorkflow, "initialize", "configure")
    watch.wrap(inferer.SuperResolutionInferer, "__call__", "model")
    for name, stage in _METHODS.items():
        watch.wrap(getattr(saving if name == "SaveResultd" else transforms, name), "__call__", stage)
    words = [word.removeprefix("--") for word in options]
    enhance(source, folder, **{"overwrite": "true", **dict(zip(words[::2], words[1::2], strict=True))})
    used = resource.getrusage(resource.RUSAGE_SELF)
    report = {
        "peak_GB": round(peak_of_process() / 1e9, 2),
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "stages_s": {stage: round(s, 2) for stage, (s, _) in watch.stages.items()},
        "stages_cpu_s": {stage: round(s, 2) for stage, (_, s) in watch.stages.items()},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
