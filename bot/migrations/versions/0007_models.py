"""The model of each turn; where a frozen test item comes from"""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0007'
down_revision = '0009'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("inbound_message", sa.Column("model", sa.String(length=60), nullable=True))
    op.add_column("test_item", sa.Column("source", sa.String(length=40), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("test_item", schema=None) as batch_op:
        batch_op.drop_column("source")
    with op.batch_alter_table("inbound_message", schema=None) as batch_op:
        batch_op.drop_column("model")
