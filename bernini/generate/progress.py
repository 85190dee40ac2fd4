"""A progress bar over the stages of a generation, with the time left."""

from tqdm import tqdm


class Bar:
    """A listener for `Pipeline.generate`: one line, the stage in front, time left behind."""

    def __init__(self, disable: bool = False):
        self.disable = disable
        self._bar: tqdm | None = None
        self._stage = ""

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error) -> None:
        self._close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self._close()
            layout = "{desc} {bar:20} {n_fmt}/{total_fmt} [{elapsed}, left {remaining}, {rate_fmt}]"
            self._bar = tqdm(total=total, desc=stage, disable=self.disable, bar_format=layout, unit="step")
            self._stage = stage
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None
