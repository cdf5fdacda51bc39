"""Alembic's entry: runs the migrations with the URL that bot.db.migrate() gives."""
from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, text

from bot import staff_schema  # importing it declares the tables of staff beside the others

# One well-known number: replicas starting together migrate one after another.
ADVISORY_LOCK = 7212345


def run() -> None:
    engine = create_engine(context.config.get_main_option("sqlalchemy.url") or "")
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_lock({ADVISORY_LOCK})"))
        context.configure(connection=connection, target_metadata=staff_schema.models.metadata, render_as_batch=True)
        with context.begin_transaction():
            context.run_migrations()


run()
