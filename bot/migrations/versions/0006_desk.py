"""what the desk finds tickets by: place in order, filters, full-text index; one open hand-over a conversation"""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from bot.search import create_index

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None

LISTED = [
    'position', 'state', 'district', 'confidential', 'request_type', 'category_code', 'urgency', 'emergency', 'source',
    'lead_department', 'due_at', 'filed_at', 'confidence', 'person_key', 'search_revision',
]


def upgrade() -> None:
    op.add_column('ticket', sa.Column('position', sa.BigInteger(), server_default='0', nullable=False))
    op.add_column('ticket', sa.Column('search_revision', sa.Integer(), server_default='0', nullable=False))
    op.execute(
        "UPDATE ticket SET position = CAST(substr(number, 1, 8) AS BIGINT) * 10000000 + CAST(substr(number, 10) AS BIGINT)"
    )
    op.create_index('ix_ticket_list', 'ticket', LISTED)
    op.create_index('ix_ticket_event_actor', 'ticket_event', ['actor', 'ticket_number'])
    # Of several open hand-overs of one conversation the first counts.
    op.execute(
        "UPDATE handover SET closed_at = opened_at WHERE closed_at IS NULL AND id NOT IN "
        "(SELECT min(id) FROM handover WHERE closed_at IS NULL GROUP BY conversation_id)"
    )
    op.create_index(
        'uq_handover_open', 'handover', ['conversation_id'], unique=True,
        sqlite_where=sa.text('closed_at IS NULL'), postgresql_where=sa.text('closed_at IS NULL'),
    )
    create_index(op.get_bind())


def downgrade() -> None:
    op.execute('DROP TABLE ticket_search')
    op.drop_index('uq_handover_open', 'handover')
    op.drop_index('ix_ticket_event_actor', 'ticket_event')
    op.drop_index('ix_ticket_list', 'ticket')
    op.drop_column('ticket', 'search_revision')
    op.drop_column('ticket', 'position')
