"""What a run cost, in words, where its recipe has prices."""

from pipeline.report.numbers import duration, number
from pipeline.report.source import ReportData
from pipeline.store.spending import spending


def stage_costs(data: ReportData) -> dict[str, str]:
    """Price of each stage's tokens and time, by folder; empty without prices."""
    prices = data.config.prices if data.config else None
    if prices is None:
        return {}
    stages = spending(data.run, prices).items()
    return {name: f"{each.money:,.4f} {prices.currency}" for name, each in stages}


def run_cost(data: ReportData) -> list[tuple[str, str]]:
    """The cost of the whole run, all its attempts and trainings, as name and value."""
    prices = data.config.prices if data.config else None
    if prices is None:
        return []
    total = spending(data.run, prices)["all"]
    facts = f"{number(total.tokens)} tokens, {duration(total.seconds)} of work"
    return [("Cost", f"{total.money:,.2f} {prices.currency} ({facts})")]
