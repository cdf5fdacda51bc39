"""Web login: the account's own name; reports of foreign notifications can be found and dropped"""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0010'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("wechat_account", sa.Column("name", sa.String(length=64), nullable=True))
    op.create_index("ix_wechat_notification_foreign", "wechat_notification", ["notice_id", "at"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_wechat_notification_foreign", table_name="wechat_notification")
    with op.batch_alter_table("wechat_account", schema=None) as batch_op:
        batch_op.drop_column("name")
