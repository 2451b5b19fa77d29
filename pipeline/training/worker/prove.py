"""Whether a model that is trained from a folder can be saved, asked before anything is paid for.

    python -m pipeline.training.worker.prove FOLDER

The folder's configurations are loaded and validated as a training does it, without the weights.
Prints `note: ...` for what a training repairs, or `error KIND: message` and ends with code 2.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

from transformers import AutoConfig

from pipeline.errors import ConfigError
from pipeline.training.worker.__main__ import report
from pipeline.training.worker.loading import load_generation_config, prove_savable


def prove_folder(folder: Path) -> None:
    """Load and validate config.json and generation_config.json.

    Raises:
        ConfigError: they cannot be loaded, or not saved again.
    """
    generation = load_generation_config(folder)
    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:  # whatever a configuration's class raises for an odd value
        raise ConfigError(
            f"model folder '{folder}': its config.json cannot be loaded "
            f"({str(error)[:300] or type(error).__name__}); correct it, or download it again"
        ) from None
    prove_savable(SimpleNamespace(config=config, generation_config=generation), folder)


if __name__ == "__main__":
    try:
        prove_folder(Path(sys.argv[1]))
    except ConfigError as error:
        sys.exit(report(error))
