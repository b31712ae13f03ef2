"""The table of what people say of answers."""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text


def feedback_table(metadata: MetaData) -> Table:
    """`request` is in the log of requests, `owner` the key that said it."""
    return Table(
        "quality_feedback",
        metadata,
        Column("workspace", Text, primary_key=True),
        Column("request", Text, primary_key=True),
        Column("owner", Text, primary_key=True),
        Column("score", Integer, nullable=False),
        Column("correction", Text),
        Column("answer_score", Integer),
        Column("assistant", Text),
        Column("at", BigInteger, nullable=False),
        Index("ix_quality_feedback_assistant", "workspace", "assistant", "at"),
        Index("ix_quality_feedback_at", "at"),
    )
