"""The random walks of ``test_machine`` on PostgreSQL."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from hookline.storage.postgres import PostgresStorage
from tests.contract.conftest import PostgresBackend
from tests.contract.test_machine import Walk


class PostgresWalk(Walk):
    """Each walk has a database of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.runner.run(self.storage.close())
        self.backend = PostgresBackend(self.folder)
        self.storage = self.runner.run(self.backend.connect())

    def teardown(self) -> None:
        assert isinstance(self.storage, PostgresStorage)
        self.runner.run(self.backend.close())
        super().teardown()


@pytest.mark.timeout(400)  # a failure is shrunk for up to five minutes
def test_postgres_answers_as_memory_does() -> None:
    run_state_machine_as_test(
        PostgresWalk,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
