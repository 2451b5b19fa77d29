"""Tables of where the pairs come from: who wrote and labeled them, and what was mixed in.

In:  ReportData: metrics of the run, the manifest of its data set
Out: Table
"""

from pipeline.data.dataset import load_dataset
from pipeline.report.numbers import number, percent
from pipeline.report.source import ReportData
from pipeline.report.tables import Table


def source_table(data: ReportData) -> Table:
    """Who wrote and labeled the pairs."""
    contrast = data.metrics.data.contrast if data.metrics.data else None
    sources = contrast.sources if contrast else ()
    return Table(
        [
            {
                "comparison": source.comparison,
                "labeled by": source.method,
                "chosen": source.chosen,
                "rejected": source.rejected,
                "labeled": number(source.labeled),
                "kept": number(source.kept),
                "share of kept": percent(source.share),
            }
            for source in sources
        ],
        "Where the pairs come from",
    )


def mixture_table(data: ReportData) -> Table:
    """The label sources of the preference set, the run's own pairs among them; empty without."""
    dataset = load_dataset(data.run)
    info = dataset.sets.get("preference") if dataset else None
    uses = info.sources if info else ()
    total = sum(use.num_selected for use in uses)
    return Table(
        [
            {
                "label source": use.name,
                "labeled by": use.kind,
                "usable": number(use.usable),
                "selected": number(use.num_selected),
                "share of selected": percent(use.num_selected / total if total else None),
            }
            for use in uses
        ],
        "Label sources of the preference set",
    )
