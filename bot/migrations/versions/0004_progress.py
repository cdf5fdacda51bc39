"""Progress in WeChat: which status a notice tells, the survey, notifications and their results"""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("notice", schema=None) as batch_op:
        batch_op.add_column(sa.Column("status", sa.String(length=24), nullable=True))
        batch_op.add_column(sa.Column("asks", sa.Boolean(), nullable=True))
        batch_op.add_column(sa.Column("notified_at", sa.String(length=32), nullable=True))
    op.create_table(
        "survey",
        sa.Column("ticket_number", sa.String(length=20), sa.ForeignKey("ticket.number"), primary_key=True),
        sa.Column("conversation_id", sa.String(length=64), nullable=False),
        sa.Column("notice_id", sa.Integer(), nullable=False),
        sa.Column("score", sa.Integer()),
        sa.Column("answered_at", sa.String(length=32)),
    )
    with op.batch_alter_table("survey", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_survey_conversation_id"), ["conversation_id"], unique=False)
    op.create_table(
        "wechat_notification",
        sa.Column("message_id", sa.String(length=40), primary_key=True),
        sa.Column("conversation_id", sa.String(length=64), nullable=False),
        sa.Column("notice_id", sa.Integer()),
        sa.Column("result", sa.String(length=60)),
        sa.Column("at", sa.String(length=32), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("wechat_notification")
    op.drop_table("survey")
    with op.batch_alter_table("notice", schema=None) as batch_op:
        batch_op.drop_column("notified_at")
        batch_op.drop_column("asks")
        batch_op.drop_column("status")
