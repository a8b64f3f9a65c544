"""A fixed pool of training examples that all runs of an ablation share, so that their time goes to learning."""

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import InputError

_SMALL = ("image", "label", "context", "cells")  # kept in half precision


class Pool(Dataset):
    """The first ``size`` examples of a random data set, made once and kept in a file.

    Every run draws from the same examples whatever its seed: making them would otherwise take most of the time of a
    small network, and arms would differ by their luck with them. An example is made by random transforms, which draw
    from a generator of their own that begins at ``seed``.

    Args:
        source: data set of training examples, dictionaries of tensors.
        sampler: indices into it, in the order of drawing.
        path: file of the pool; made where it is missing.
        size: examples.
        seed: of the random transforms.

    Raises:
        InputError: the file holds another number of examples.
    """

    def __init__(self, source: Dataset, sampler: Iterable[int], path: str, size: int, seed: int = 0) -> None:
        self.path = Path(os.path.abspath(path))  # without `..`, which needs its folder to be there
        if not self.path.exists():
            self._make(source, sampler, size, seed)
        self.examples = torch.load(self.path, map_location="cpu", weights_only=True)
        found = len(self.examples["image"])
        if found != size:
            raise InputError(f"{self.path}: holds {found} examples, {size} are asked for; remove it or ask for as many")

    def _make(self, source: Dataset, sampler: Iterable[int], size: int, seed: int) -> None:
        state = torch.get_rng_state()
        torch.manual_seed(seed)
        source.transform.set_random_state(seed)
        indices: list[int] = []
        while len(indices) < size:
            indices += [int(i) for i in sampler]
        rows = [_packed(source[i]) for i in indices[:size]]
        torch.set_rng_state(state)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        torch.save({key: torch.stack([row[key] for row in rows]) for key in rows[0]}, temporary)
        os.replace(temporary, self.path)

    def __len__(self) -> int:
        return len(self.examples["image"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {k: v[index].float() if k in _SMALL else v[index] for k, v in self.examples.items()}


def _packed(example: dict[str, Tensor]) -> dict[str, Tensor]:
    plain = {k: torch.as_tensor(v) for k, v in example.items() if isinstance(v, Tensor)}
    return {k: v.as_subclass(Tensor).half() if k in _SMALL else v.as_subclass(Tensor) for k, v in plain.items()}
