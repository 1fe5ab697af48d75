"""One line on a model's parameters, in the place of Lightning's table."""

from typing import Any

from lightning.pytorch.callbacks import ModelSummary


class ParameterCount(ModelSummary):
    """Prints how many parameters each part has, and how many of them are trained."""

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        *_: Any,
        **__: Any,
    ) -> None:
        """Print the line; parts without parameters, such as metrics, are left out."""
        columns = dict(summary_data)
        counts = zip(columns["Name"], columns["Params"], strict=True)
        parts = [f"{name} {' '.join(count.split())}" for name, count in counts if count.strip() != "0"]
        trained = "all" if trainable_parameters == total_parameters else f"{trainable_parameters:,}"
        print(f"parameters: {', '.join(parts)}; {trained} of {total_parameters:,} trained", flush=True)
