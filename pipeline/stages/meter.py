"""What a run has spent of its budget, counted row by row."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config.budget import BudgetConfig, PricesConfig
from pipeline.records import ModelRow, Row

SPELLED = {"tokens": "{:,.0f} tokens", "hours": "{:.2f} hours", "money": "{:,.2f} {currency}"}
"""A value of each limit of a budget, for people."""


@dataclass
class Meter:
    """What a run has spent in all its attempts, and what its budget leaves."""

    budget: BudgetConfig = BudgetConfig()
    prices: PricesConfig | None = None
    tokens: int = 0
    token_money: float = 0.0
    """Price of the tokens."""
    seconds: Callable[[], float] = lambda: 0.0
    """Seconds of work so far, those of this attempt included."""
    run_id: str = "RUN"

    def add(self, row: Row, model: str) -> None:
        """Count a row that was made."""
        if isinstance(row, ModelRow):
            self.add_tokens(row.num_prompt_tokens, row.num_tokens, model)

    def add_tokens(self, prompt_tokens: int, tokens: int, model: str) -> None:
        """Count the tokens of rows that were made."""
        self.tokens += prompt_tokens + tokens
        if self.prices and model in self.prices.models:
            self.token_money += self.prices.models[model].of(prompt_tokens, tokens)

    def spent(self) -> dict[str, float]:
        """Tokens, hours and money so far."""
        hours = self.seconds() / 3600
        rent = self.prices.hour * hours if self.prices else 0.0
        return {"tokens": self.tokens, "hours": hours, "money": self.token_money + rent}

    def problem(self) -> str | None:
        """One line when a limit of the budget is reached, else None."""
        spent = self.spent()
        for name, limit in self.budget.limits.items():
            if spent[name] >= limit:
                return (
                    f"budget.{name} is spent: {self.spelled(name, spent[name])} of "
                    f"{self.spelled(name, limit)}; everything is kept, and `rlaif resume "
                    f"{self.run_id} --set budget.{name}=...` continues with a larger budget"
                )
        return None

    def seconds_left(self) -> float | None:
        """Seconds for which the budget lasts while no token is paid for; None for all time."""
        limits, spent = self.budget.limits, self.spent()
        left = [3600 * (limits["hours"] - spent["hours"])] if "hours" in limits else []
        if "money" in limits and self.prices and self.prices.hour:
            left.append(3600 * (limits["money"] - spent["money"]) / self.prices.hour)
        return max(0.0, min(left)) if left else None

    def spelled(self, name: str, value: float) -> str:
        """A value of a limit, such as `1,200 tokens`."""
        currency = self.prices.currency if self.prices else ""
        return SPELLED[name].format(value, currency=currency)
