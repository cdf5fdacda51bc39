"""Tables of what staff work with: people, calls, reviews, training, jobs. Declarations only, same conventions as schema.py."""
from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, ForeignKey, Index, Integer, LargeBinary, String, Table, Text, UniqueConstraint

from bot.schema import metadata

users = Table(
    "staff_user",
    metadata,
    Column("username", String(40), primary_key=True),
    Column("password_hash", String(200), nullable=False),
    Column("role", String(12), nullable=False),  # agent | supervisor | admin
    Column("districts", Text, nullable=False),  # JSON list of full names; empty = all of the city
    Column("created_at", String(32), nullable=False),
    Column("display_name", String(40), nullable=False, server_default=""),
    Column("cleared", Boolean, nullable=False, server_default="0"),  # may read confidential reports
    Column("department", String(80)),  # works for this department: never sees who reported on it
    Column("failures", Integer, nullable=False, server_default="0"),  # wrong passwords in a row
    Column("locked_until", String(32)),
    Column("disabled_at", String(32)),
    Column("epoch", Integer, nullable=False, server_default="0"),  # counts up with every change that must end old sessions
)

audit_log = Table(
    "audit",  # append-only: who read or changed what about whom
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", String(32), nullable=False, index=True),
    Column("username", String(40), nullable=False, index=True),
    Column("action", String(40), nullable=False),  # login, read_ticket, search, export …
    Column("subject", String(120), nullable=False),  # ticket number, call id …; never personal data
    Column("address", String(64), nullable=False),
    Column("detail", Text, nullable=False, server_default=""),
)

calls = Table(
    "call",
    metadata,
    Column("id", String(64), primary_key=True),  # given by the telephone system, or made here
    Column("state", String(12), nullable=False),  # open | filed | dropped
    Column("username", String(40), index=True),  # the agent who has it
    Column("origin", String(12), nullable=False),  # live | pasted | uploaded | blank
    Column("person_key", String(64), index=True),  # keyed hash of the caller's number
    Column("caller", LargeBinary),  # encrypted number
    Column("form", LargeBinary, nullable=False),  # encrypted: the values a person set, and what they touched
    Column("version", Integer, nullable=False, server_default="0"),
    Column("ticket_numbers", Text, nullable=False, server_default=""),  # comma-separated: a call may hold two appeals
    Column("created_at", String(32), nullable=False),
    Column("updated_at", String(32), nullable=False),
    Column("ended_at", String(32)),  # the caller hung up
    Index("ix_call_open", "state", "updated_at"),
)

call_turns = Table(
    "call_turn",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("call_id", String(64), ForeignKey("call.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("turn_id", String(64), nullable=False),  # the sender's own: a repeated delivery is one turn
    Column("speaker", String(8), nullable=False),  # agent | citizen
    Column("text", LargeBinary, nullable=False),  # encrypted
    Column("at", String(32), nullable=False),
    UniqueConstraint("call_id", "position", name="uq_call_turn_position"),
    UniqueConstraint("call_id", "turn_id", name="uq_call_turn_id"),
)

corrections = Table(
    "correction",  # append-only annotation proposals: what a person changed of what the model had read
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", String(32), nullable=False, index=True),
    Column("username", String(40), nullable=False),
    Column("source", String(12), nullable=False),  # call | ticket | returned | batch
    Column("subject", String(64), nullable=False, index=True),  # call id or ticket number
    Column("field", String(24), nullable=False),
    Column("old", LargeBinary, nullable=False),  # encrypted
    Column("new", LargeBinary, nullable=False),  # encrypted
    Column("evidence", LargeBinary, nullable=False),  # encrypted: the words the old value came from
    Column("model", String(60), nullable=False),
)

review_items = Table(
    "review_item",  # masked utterances and calls with what the model made of them, waiting for a reviewer
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", String(32), nullable=False),
    Column("channel", String(12), nullable=False),  # wechat | web | api | hotline | import
    Column("subject", String(64), nullable=False),  # ticket number, call id, or inbound message id
    Column("text", LargeBinary, nullable=False),  # encrypted, masked
    Column("digest", String(64), nullable=False),  # keyed hash of the folded text: the same words are one item
    Column("prediction", Text, nullable=False),  # JSON: the parse without its text
    Column("model", String(60), nullable=False),
    Column("category_code", String(12), nullable=False),  # as predicted
    Column("district", String(80)),
    Column("confidence", Float, nullable=False),
    Column("reasons", String(80), nullable=False),  # comma-separated: low, corrected, returned, fallback, disagreement, random
    Column("priority", Float, nullable=False),
    Column("state", String(12), nullable=False),  # open | accepted | fixed | skipped | disputed
    Column("cluster", Integer),  # id of the first item of a group that reads alike
    Column("updated_at", String(32), nullable=False),
    UniqueConstraint("digest", name="uq_review_item_digest"),
    Index("ix_review_item_queue", "state", "priority"),
)

annotation_rows = Table(
    "annotation",  # append-only: labels given by people, with their source
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("text", LargeBinary, nullable=False),
    Column("labels", Text, nullable=False),
    Column("author", String(40), nullable=False),
    Column("source", String(40), nullable=False),
    Column("at", String(32), nullable=False),
    Column("weight", Float, nullable=False, default=1.0),
    Column("item_id", Integer, index=True),  # the review item judged
    Column("model", String(60)),  # whose reading was judged
    Column("digest", String(64), index=True),  # as in review_item
    Column("undoes", Integer),  # this row takes back that one
)

test_items = Table(
    "test_item",  # frozen: never in training, nor what is nearly the same
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(12), nullable=False),  # test | must_pass
    Column("text", LargeBinary, nullable=False),  # encrypted, masked
    Column("digest", String(64), nullable=False, unique=True),
    Column("labels", Text, nullable=False),
    Column("author", String(40), nullable=False),
    Column("at", String(32), nullable=False),
    Column("retired_at", String(32)),
    Column("source", String(40), nullable=False, server_default=""),  # shipped | import:<file> | <who added it>
)

models = Table(
    "model",
    metadata,
    Column("version", String(60), primary_key=True),
    Column("state", String(12), nullable=False),  # candidate | promoted | retired
    Column("trained_at", String(32), nullable=False),
    Column("promoted_at", String(32)),
    Column("metrics", Text, nullable=False),
    Column("data_hash", String(64)),  # of data and configuration: the same hash gives the same model
    Column("report", Text),  # JSON of the comparison with the model that served when it was made
    Column("trained_by", String(40)),
    Column("job_id", Integer),
)

model_events = Table(
    "model_event",  # append-only: who promoted or rolled back what, when and why
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", String(32), nullable=False),
    Column("version", String(60), nullable=False),
    Column("previous", String(60)),
    Column("action", String(16), nullable=False),  # promoted | rolled_back | overridden
    Column("username", String(40), nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
)

serving_processes = Table(
    "serving_process",  # what each process really serves, told every few seconds
    metadata,
    Column("id", String(80), primary_key=True),  # host:pid:start
    Column("model", String(60), nullable=False),
    Column("since", String(32), nullable=False),
    Column("seen_at", String(32), nullable=False),
    Column("problem", Text),  # why the promoted model could not be loaded here
)

knowledge_versions = Table(
    "knowledge_version",  # append-only: the city's words, places, categories, routes and time limits over the shipped ones
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", String(32), nullable=False),
    Column("username", String(40), nullable=False),
    Column("note", Text, nullable=False),
    Column("content", Text, nullable=False),  # JSON, whole
)

import_mappings = Table(
    "import_mapping",  # how a city's own columns and labels are meant; asked once
    metadata,
    Column("kind", String(12), primary_key=True),  # columns | label
    Column("key", String(200), primary_key=True),  # header row digest, or the foreign label
    Column("value", Text, nullable=False),  # JSON
    Column("username", String(40), nullable=False),
    Column("at", String(32), nullable=False),
)

import_batches = Table(
    "import_batch",  # one file of work orders; its annotations count while it is done, and not before or after
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", String(32), nullable=False),
    Column("username", String(40), nullable=False),
    Column("file_name", String(120), nullable=False),
    Column("upload", String(64), nullable=False, server_default=""),  # where the file lies until it is imported
    Column("digest", String(64), index=True),  # of the file's bytes: the same file is recognised
    Column("kind", String(12), nullable=False),  # labelled | unlabelled
    Column("state", String(12), nullable=False),  # looking | ready | staging | done | withdrawn | failed
    Column("job_id", Integer),
    Column("preview", LargeBinary),  # encrypted: headings, first rows masked, values of columns that may hold labels
    Column("plan", Text, nullable=False, server_default="{}"),  # JSON: what the columns mean, options
    Column("outcome", Text, nullable=False, server_default="{}"),  # JSON: counts
    Column("problems", Text, nullable=False, server_default="[]"),  # JSON: [row number, sentence]
    Column("updated_at", String(32), nullable=False),
)

label_suspects = Table(
    "label_suspect",  # texts whose label may be wrong, until somebody has judged
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", String(32), nullable=False),
    Column("digest", String(64), nullable=False),  # of the annotated text
    Column("kind", String(12), nullable=False),  # model | twins
    Column("label", String(12), nullable=False),
    Column("suggested", String(12), nullable=False),
    Column("score", Float, nullable=False),  # 0 … 1, likeliest errors first
    Column("twin", String(64)),  # digest of the near-repeat that has the suggested label
    Column("state", String(12), nullable=False),  # open | accepted | kept | removed
    Column("username", String(40)),
    Column("judged_at", String(32)),
    UniqueConstraint("digest", name="uq_label_suspect_digest"),
    Index("ix_label_suspect_queue", "state", "score"),
)

review_marks = Table(
    "review_mark",  # how far the making of review items has come, for each kind of what it reads
    metadata,
    Column("name", String(24), primary_key=True),
    Column("position", Integer, nullable=False),  # id of the last row that was looked at
    Column("seen", Integer, nullable=False),  # newest id of the round before: rows up to it have been committed by now
    Column("lease_until", String(32)),  # until then another process works on it
)

jobs = Table(
    "job",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(24), nullable=False),
    Column("state", String(12), nullable=False),  # waiting | running | done | failed | cancelled
    Column("params", Text, nullable=False),  # JSON
    Column("result", Text),  # JSON
    Column("problem", Text),  # one sentence for people
    Column("step", String(200), nullable=False, server_default=""),
    Column("progress", Float, nullable=False, server_default="0"),  # 0 … 1
    Column("log", Text, nullable=False, server_default=""),
    Column("username", String(40), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("cancel_asked", Boolean, nullable=False, server_default="0"),
    Column("lease_owner", String(80)),
    Column("lease_until", String(32)),
    Column("created_at", String(32), nullable=False),
    Column("started_at", String(32)),
    Column("finished_at", String(32)),
    Index("ix_job_due", "state", "lease_until"),
)
