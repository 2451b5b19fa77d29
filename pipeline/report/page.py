"""report.html: one file, no request to anywhere, every foreign text escaped.

In:  ReportData, the sampled pairs, and report.html.jinja, report.css and report.js beside this file
Out: the page as text

Values reach the template through autoescape; the pairs travel as JSON in which `<`, `>`, `&` and
quotes are escaped, and the script puts them on the page as text, never as HTML. The page's own
policy forbids every script but that one, by its hash, and every request.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report.audit import (
    FIGURE_TITLES,
    audit_checks,
    audit_figures,
    audit_verdict,
    efficacy_rows,
    revision_rows,
)
from pipeline.report.charts import histogram
from pipeline.report.curves import panels
from pipeline.report.headline import cards, headline, tone_of
from pipeline.report.numbers import count_of, duration, number, percent, percent_range, policy_label
from pipeline.report.source import ReportData
from pipeline.report.tables import (
    lineage_rows,
    match_rows,
    policy_rows,
    principle_rows,
    reason_rows,
    score_notes,
    score_rows,
    share_groups,
    stage_rows,
    training_rows,
)

_HERE = Path(__file__).parent


def render_page(data: ReportData, pairs: Sequence[dict[str, Any]]) -> str:
    """The whole page."""
    made = data.metrics.get("data") or {}
    script = (_HERE / "report.js").read_text(encoding="utf-8").strip()
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            run_id=data.run.run_id,
            name=data.info.get("name") or data.run.run_id,
            finished=data.run.metrics.exists(),
            constitution=data.constitution,
            headline=headline(data),
            cards=cards(data),
            groups=share_groups(data),
            matches=match_rows(data),
            policies=policy_rows(data),
            changes=data.changes,
            tone_of=tone_of,
            reasons=reason_rows(data),
            labels=made.get("labels"),
            truth=data.metrics.get("labels"),
            kept=made.get("kept", 0),
            num_pairs=made.get("pairs", 0),
            margins=histogram("Margins of all labeled pairs", made.get("margins") or []),
            principles=principle_rows(data),
            scores=score_rows(data),
            score_notes=score_notes(data),
            audit={
                "verdict": audit_verdict(data.audit),
                "checks": audit_checks(data.audit),
                "figures": audit_figures(data.audit),
                "titles": FIGURE_TITLES,
                "notes": data.audit.get("notes") or [],
            },
            revisions=revision_rows(data),
            efficacy=efficacy_rows(data),
            training=training_rows(data),
            curves=[p for r in data.training for p in panels(r)],
            stages=stage_rows(data),
            pairs=list(pairs),
            lineage=lineage_rows(data),
            requests={pair["principle"]: data.request_of(pair["principle"]) for pair in pairs},
            recipe_text=data.recipe_text,
            constitution_text=data.constitution_text,
            style=(_HERE / "report.css").read_text(encoding="utf-8"),
            script=script,
            script_hash=script_hash(script),
        )
    )


def script_hash(script: str) -> str:
    """What the page's content security policy calls this script."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def soften(text: str) -> Markup:
    """A sentence whose brackets, the numbers, are set lighter."""
    parts = re.split(r"(\([^()]*\))", text)
    return Markup("").join(
        Markup('<span class="soft">{}</span>').format(part) if part.startswith("(") else part
        for part in parts
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "soften": soften,
        "number": number,
        "duration": duration,
        "policy_label": policy_label,
    }
    environment.globals |= {"percent_range": percent_range, "count_of": count_of}
    return environment
