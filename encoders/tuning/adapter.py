"""An adapter alone: what LoRA added to a base, as peft writes it, with a way to read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmalign.encoders.adapter import core_of
from mmalign.encoders.folders import OWN_PROJECTION

if TYPE_CHECKING:
    from mmalign.encoders.tuning.towers import Tower

__all__ = ["write_adapter"]

CARD = """# {name}: an adapter tuned by mmalign

What LoRA added to `{base}`. mmalign loads this folder as an encoder, and merges it with its base
into one that other libraries load:

```python
from mmalign.encoders.tuning import save_merged

save_merged("{name}", "{name}-merged")
```
"""
TEXT_CARD = """
With peft alone:

```python
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer

base = AutoModel.from_pretrained({arguments})
model = PeftModel.from_pretrained(base, "{name}").eval()
tokenizer = AutoTokenizer.from_pretrained("{name}")
```

`preset.yaml` says how its tokens become a row (`pooling`, `prefix`, `suffix`, `max_length`); what
lies in `2_Dense` and after comes on top.
"""


def write_adapter(part: Path, tower: Tower, name: str) -> None:
    """Write what a tower has beyond its base, and how to load it.

    Args:
        part: Where to.
        tower: In mode ``lora``.
        name: That the folder will have.
    """
    from safetensors.torch import save_file

    preset, source = tower.origin.preset, tower.origin.source
    is_local = preset.hub is None or source.origin == "folder"
    base = str(source.folder.resolve()) if is_local else preset.hub
    for config in tower.adapters.peft_config.values():
        config.base_model_name_or_path = base
    tower.adapters.save_pretrained(part, safe_serialization=True, save_embedding_layers=False)
    added = ("lora_", ".modules_to_save.")  # what peft has written
    own = {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in core_of(tower.trunk).named_parameters()
        if parameter.requires_grad and not any(part in name for part in added)
    }
    if own:
        save_file(own, part / OWN_PROJECTION)
    card = CARD
    arguments = [f'"{base}"']
    if preset.library == "transformers":
        tower.reader.save(part)
        if preset.modality == "text":
            card += TEXT_CARD
            if preset.layers is not None:
                arguments.append(f"num_hidden_layers={preset.layers}")
            arguments += [f'gguf_file="{f.name}"' for f in source.weights if f.suffix == ".gguf"]
    text = card.format(name=name, base=base, arguments=", ".join(arguments))
    (part / "README.md").write_text(text, encoding="utf-8")
