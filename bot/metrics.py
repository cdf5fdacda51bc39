"""What operators watch, as Prometheus metrics of one process. Numbers only: nothing a resident said or is called."""
from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy import func, select

from bot.db import StorageError, reading
from bot.schema import handovers, inbound_messages, outbox, tickets
from bot.services import Services


class Metrics:
    def __init__(self, services: Services) -> None:
        self._services = services
        self.registry = CollectorRegistry()
        self.turns = Counter("minsheng_turns", "Messages answered", ["channel"], registry=self.registry)
        self.turn_seconds = Histogram("minsheng_turn_seconds", "Time from message to answer", registry=self.registry)
        self.forged_signatures = Counter("minsheng_forged_signatures", "Requests refused for their signature", registry=self.registry)
        self.rate_limited = Counter("minsheng_rate_limited", "Messages refused by the rate limit", registry=self.registry)
        self._tickets = Gauge("minsheng_tickets", "Tickets by state", ["state"], registry=self.registry)
        self._outbox = Gauge("minsheng_outbox", "Deliveries to dispatch by state", ["state"], registry=self.registry)
        self._unanswered = Gauge("minsheng_unanswered_messages", "Messages kept but not answered yet", registry=self.registry)
        self._waiting = Gauge("minsheng_handovers_waiting", "Conversations waiting for a person", registry=self.registry)

    def render(self) -> bytes:
        """The text exposition; gauges are read from the database, so every replica shows the same."""
        try:
            self._read_gauges()
        except StorageError:
            pass  # counters are still worth showing while the database is away; /readyz says that it is
        return generate_latest(self.registry)

    def _read_gauges(self) -> None:
        with reading(self._services.engine) as connection:
            for gauge, table in ((self._tickets, tickets), (self._outbox, outbox)):
                for state, count in connection.execute(select(table.c.state, func.count()).group_by(table.c.state)):
                    gauge.labels(state).set(count)
            unanswered = select(func.count()).where(inbound_messages.c.answered_at.is_(None))
            self._unanswered.set(connection.execute(unanswered).scalar_one())
            self._waiting.set(connection.execute(select(func.count()).where(handovers.c.closed_at.is_(None))).scalar_one())
