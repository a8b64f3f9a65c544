"""Equal compute for all arms of an ablation: a training that ends when its processor time is spent."""

import math
import time

from ignite.engine import Engine, Events
from torch.optim import Optimizer


class CpuBudget:
    """End a training after so many minutes of processor time; anneal the learning rate over them.

    Processor time, unlike the clock, does not run while other programs have the processor. The learning rate follows a
    cosine of the share that is spent, so every arm ends annealed however many steps it made.

    Args:
        optimizer: whose learning rates are set.
        minutes: of processor time of this process, all its threads together.
    """

    def __init__(self, optimizer: Optimizer, minutes: float) -> None:
        if not minutes > 0:
            raise ValueError(f"minutes {minutes}: above 0")
        self.optimizer, self.seconds = optimizer, 60.0 * minutes
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.spent, self.steps, self._began = 0.0, 0, 0.0

    def attach(self, engine: Engine) -> None:
        """Register before and after every step."""
        engine.add_event_handler(Events.ITERATION_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.stop)

    def start(self, engine: Engine) -> None:
        """A step begins."""
        self._began = time.process_time()
        share = min(1.0, self.spent / self.seconds)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = 0.5 * rate * (1 + math.cos(math.pi * share))

    def stop(self, engine: Engine) -> None:
        """A step is done."""
        self.spent += time.process_time() - self._began
        self.steps += 1
        if self.spent >= self.seconds:
            engine.terminate()

    def state_dict(self) -> dict:
        """What is spent."""
        return {"spent": self.spent, "steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        """Go on from there."""
        self.spent, self.steps = float(state["spent"]), int(state["steps"])
