import pytest
import torch
from ignite.engine import Engine

from bundle.studies.budget import CpuBudget


def _run(budget, work=200_000):
    rates = []

    def step(engine, batch):
        sum(i * i for i in range(work))
        rates.append(budget.optimizer.param_groups[0]["lr"])

    engine = Engine(step)
    budget.attach(engine)
    engine.run([0] * 10, max_epochs=100)
    return rates


def test_a_training_ends_when_its_processor_time_is_spent_and_anneals_till_then():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    budget = CpuBudget(optimizer, minutes=0.005)
    rates = _run(budget)
    assert budget.spent >= 0.3 and budget.steps == len(rates) < 1000
    assert rates[0] == 0.5 and rates == sorted(rates, reverse=True) and rates[-1] < 0.1


def test_what_is_spent_is_remembered():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    first, second = CpuBudget(optimizer, 0.002), CpuBudget(optimizer, 0.002)
    _run(first)
    second.load_state_dict(first.state_dict())
    assert len(_run(second)) == 1  # the step that finds out


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="minutes 0: above 0"):
        CpuBudget(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), 0)
