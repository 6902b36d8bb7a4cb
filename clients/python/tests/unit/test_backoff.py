from __future__ import annotations

from aintandem_agent_sdk.backoff import RetryBudget, backoff, pause


def test_waits_double_up_to_a_limit() -> None:
    assert [round(backoff(attempt), 3) for attempt in (1, 2, 3, 4, 40)] == [0.02, 0.04, 0.08, 0.16, 1.0]


def test_a_wait_that_is_asked_for_is_kept() -> None:
    assert pause(0.05, 1, spread=lambda: 0.0) == 0.05
    assert pause(0.05, 3, spread=lambda: 0.0) == 0.08
    assert pause(0, 9) == 0.0
    assert pause(None, 1, spread=lambda: 1.0) == 0.02 * 1.2


def test_a_budget_runs_out_and_comes_back() -> None:
    now = [0.0]
    budget = RetryBudget(capacity=3, share=0.5, per_second=2.0, clock=lambda: now[0])
    assert [budget.take() for _ in range(4)] == [True, True, True, False]
    budget.succeeded()
    assert not budget.take()
    budget.succeeded()
    assert budget.take()
    now[0] += 0.25
    assert not budget.take()
    now[0] += 0.25
    assert [budget.take() for _ in range(2)] == [True, False]
    now[0] += 100.0
    assert [budget.take() for _ in range(4)] == [True, True, True, False]


def test_the_budget_of_a_client_lasts_for_hundreds_of_callers_and_ten_retries_a_second() -> None:
    now = [0.0]
    budget = RetryBudget(clock=lambda: now[0])
    assert sum(budget.take() for _ in range(2_000)) == 1_000
    now[0] += 2.0
    assert sum(budget.take() for _ in range(2_000)) == 20
    for _ in range(52):
        budget.succeeded()
    assert sum(budget.take() for _ in range(2_000)) == 10
