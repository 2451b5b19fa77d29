"""The columns of each file of a data set, in their order, with their Arrow schemas."""

import pyarrow as pa

from pipeline.records import SftRow
from pipeline.sources.rows import FeedbackRow, LabeledRow

SFT_COLUMNS = ("row_id", "prompt_id", "messages", "completion", "completion_id", "round", "run_id")
PREFERENCE_COLUMNS = (
    "row_id",
    "prompt_id",
    "messages",
    "chosen",
    "rejected",
    "chosen_id",
    "rejected_id",
    "soft_label",
    "margin",
    "position_gap",
    "principle_id",
    "judgment_id",
    "comparison",
    "status",
    "run_id",
    "source",
    "source_index",
)
FEEDBACK_COLUMNS = (
    "row_id",
    "prompt_id",
    "messages",
    "completion",
    "completion_id",
    "label",
    "weight",
    "events",
    "status",
    "run_id",
    "source",
    "source_index",
)
SFT_SCHEMA = pa.schema([SftRow.schema().field(name) for name in SFT_COLUMNS])
PREFERENCE_SCHEMA = pa.schema([LabeledRow.schema().field(name) for name in PREFERENCE_COLUMNS])
FEEDBACK_SCHEMA = pa.schema([FeedbackRow.schema().field(name) for name in FEEDBACK_COLUMNS])
