"""What a run may spend, and what things cost: the sections `budget` and `prices` of a recipe."""

from pydantic import Field

from pipeline.config.section import Section, Title


class BudgetConfig(Section):
    """What a run may spend, all its attempts together. A run that has spent it stops and is kept;
    `rlaif resume RUN --set budget.tokens=...` continues it with a larger budget.
    """

    tokens: int | None = Field(None, ge=1)
    """Tokens read and written by all models; those of calls in flight at the end are not known."""
    hours: float | None = Field(None, gt=0)
    """Hours of work, trainings included; the time between two attempts does not count."""
    money: float | None = Field(None, gt=0)
    """Sum by `prices`, in their currency."""

    @property
    def limits(self) -> dict[str, float]:
        """The limits that the recipe sets, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


class ModelPrice(Section):
    """What an endpoint asks for one of its models."""

    input: float = Field(0.0, ge=0)
    """Price of a million prompt tokens; cached ones count in full."""
    output: float = Field(0.0, ge=0)
    """Price of a million generated tokens."""

    def of(self, prompt_tokens: int, generated_tokens: int) -> float:
        """Price of these tokens: (input * prompt + output * generated) / 1e6."""
        return (self.input * prompt_tokens + self.output * generated_tokens) / 1e6


class PricesConfig(Section):
    """What a run's tokens and hours cost; see `budget.money` and the costs in the report."""

    currency: Title = "USD"
    """Unit of all prices."""
    hour: float = Field(0.0, ge=0)
    """Price of an hour in which the run works, such as the rent of its GPU."""
    models: dict[str, ModelPrice] = Field({})
    """Price of tokens by the name of a model, as the `model` of its engine has it."""
