"""tickets of one place in order, so that looking for the same matter reads twenty rows and not all"""
from __future__ import annotations

from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('ticket') as batch_op:
        batch_op.drop_index('ix_ticket_place_key')
        batch_op.create_index('ix_ticket_place', ['place_key', 'number'])


def downgrade() -> None:
    with op.batch_alter_table('ticket') as batch_op:
        batch_op.drop_index('ix_ticket_place')
        batch_op.create_index('ix_ticket_place_key', ['place_key'])
