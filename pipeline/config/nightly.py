"""What a night makes again, and what it leaves out: prompts that are nearly old ones, and trainings
for too little news.
"""

from pydantic import Field

from pipeline.config.section import Section


class NightlyConfig(Section):
    """Nights (`rlaif nightly`), and rounds."""

    near_duplicates: float | None = Field(None, ge=0.1, le=1)
    """Leave out a new prompt that shares at least this part of its three-word runs (Jaccard index)
    with a prompt of an earlier night, such as 0.8; null to leave out equal prompts alone."""
    min_new_share: float = Field(0.0, ge=0, le=1)
    """A night trains only when at least this share of the prompts of its version is newer than the
    last training; otherwise it makes data and says so. 0 trains every night. A night that makes
    rows of earlier nights again always trains."""
    relabel: bool = True
    """When the constitution has changed: make the rows of earlier nights that the change touches
    again, and keep the others; false keeps all."""
