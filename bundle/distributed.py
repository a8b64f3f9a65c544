"""Training by several processes (torchrun), a GPU each or, without GPUs, on the processor."""

import logging
import os
from collections.abc import Iterable, Sequence

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import distributed, nn


def start() -> torch.device:
    """Join the processes that torchrun has started, by nccl on GPUs and gloo without; the device of this one.

    Without torchrun it is a single process. Those after the first are quiet.
    """
    cuda, local = torch.cuda.is_available(), int(os.environ.get("LOCAL_RANK", 0))
    if cuda:
        torch.cuda.set_device(local)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if cuda else "gloo")
        if distributed.get_rank() > 0:
            logging.disable(logging.WARNING)
    return torch.device("cuda", local) if cuda else torch.device("cpu")


def stop() -> None:
    """Leave the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over the processes; nothing in a single one.

    After it every process makes the same step, as one process would with all their batches. The network is small: one
    message for all of it takes less time than a convolution, so nothing is gained by sending parts of it earlier.
    """
    if idist.get_world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.reshape(gradient.shape))


class Synchronise:
    """Give all processes the weights and buffers of the first before the first step.

    Attach it last: what loads weights or measures a scale of the data must be done.

    Args:
        modules: such as the network and its moving average.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = list(modules)

    def attach(self, engine: Engine) -> None:
        """Register at the start."""
        engine.add_event_handler(Events.STARTED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        if idist.get_world_size() == 1:
            return
        for module in self.modules:
            for value in (*module.parameters(), *module.buffers()):
                whole = value.contiguous()  # channels last is not
                distributed.broadcast(whole, src=0)
                value.copy_(whole)
