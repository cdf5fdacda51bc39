"""WeChat: shared access token, message quotas, media to fetch, subscriptions, what an HTTP answer carried"""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("inbound_message", schema=None) as batch_op:
        batch_op.add_column(sa.Column("delivery_at", sa.String(length=32), nullable=True))
        batch_op.add_column(sa.Column("delivered_with", sa.Integer(), nullable=True))
    op.create_table(
        "wechat_account",
        sa.Column("app_id", sa.String(length=64), primary_key=True),
        sa.Column("token", sa.LargeBinary()),
        sa.Column("token_expires_at", sa.String(length=32)),
        sa.Column("lease_until", sa.String(length=32)),
        sa.Column("forced_at", sa.String(length=32)),
        sa.Column("push_refused_at", sa.String(length=32)),
    )
    op.create_table(
        "wechat_contact",
        sa.Column("conversation_id", sa.String(length=64), primary_key=True),
        sa.Column("messages_left", sa.Integer(), nullable=False),
        sa.Column("messages_until", sa.String(length=32), nullable=False),
        sa.Column("taps_left", sa.Integer(), nullable=False),
        sa.Column("taps_until", sa.String(length=32), nullable=False),
        sa.Column("point", sa.LargeBinary()),
        sa.Column("point_at", sa.String(length=32)),
        sa.Column("unlinked_at", sa.String(length=32)),
    )
    op.create_table(
        "wechat_media",
        sa.Column("id", sa.String(length=40), primary_key=True),
        sa.Column("conversation_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("reason", sa.String(length=120)),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
    )
    with op.batch_alter_table("wechat_media", schema=None) as batch_op:
        batch_op.create_index("ix_wechat_media_due", ["state", "next_attempt_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_wechat_media_conversation_id"), ["conversation_id"], unique=False)
    op.create_table(
        "wechat_subscription",
        sa.Column("conversation_id", sa.String(length=64), primary_key=True),
        sa.Column("template_id", sa.String(length=120), primary_key=True),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("wechat_subscription")
    op.drop_table("wechat_media")
    op.drop_table("wechat_contact")
    op.drop_table("wechat_account")
    with op.batch_alter_table("inbound_message", schema=None) as batch_op:
        batch_op.drop_column("delivered_with")
        batch_op.drop_column("delivery_at")
