"""Names that a task cannot have, and why. Imports no torch."""

from collections.abc import Iterable, Mapping

RESERVED: Mapping[str, tuple[str, ...]] = {
    "stands for all tasks, as in tasks=all": ("all",),
    "is what phases.*.still keeps besides tasks": ("pyramid",),
    "is what weights_key= calls the trunk without heads": ("trunk",),
    "is a part of the network, which optimizer.rates names": (
        "backbone", "heads", "body", "stem", "layer1", "layer2", "layer3", "layer4", "fpn", "fc", "weight", "bias",
    ),
    "is a field of the lines that predict writes": ("file", "error", "depth", "exif", "remarks"),
}  # fmt: skip
"""By reason: names that mean something else where names of several tasks stand."""
OF_TORCH = (
    "T_destination", "add_module", "apply", "bfloat16", "buffers", "call_super_init", "children", "clear", "compile", "cpu",
    "cuda", "double", "dump_patches", "eval", "extra_repr", "float", "forward", "get_buffer", "get_extra_state",
    "get_parameter", "get_submodule", "half", "ipu", "items", "keys", "load_state_dict", "modules", "mtia", "named_buffers",
    "named_children", "named_modules", "named_parameters", "parameters", "pop", "register_backward_hook", "register_buffer",
    "register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook", "register_full_backward_pre_hook",
    "register_load_state_dict_post_hook", "register_load_state_dict_pre_hook", "register_module", "register_parameter",
    "register_state_dict_post_hook", "register_state_dict_pre_hook", "requires_grad_", "set_extra_state", "set_submodule",
    "share_memory", "state_dict", "to", "to_empty", "train", "training", "type", "update", "values", "xpu", "zero_grad",
)  # fmt: skip
"""Names that torch's dictionary of modules, in which the heads are, has for itself; those with a `_` in front besides."""


def name_problems(names: Iterable[str]) -> list[str]:
    """List which names of a recipe's tasks cannot be used. Those of several stand in settings, files' names and lines."""
    names = list(names)
    why = {name: "is a name that torch's modules have for themselves" for name in OF_TORCH}
    if len(names) > 1:
        why |= {name: reason for reason, taken in RESERVED.items() for name in taken}
    problems = []
    for name in names:
        if name in why:
            problems.append(f"tasks.{name}: this {why[name]}; choose another name, as my_{name}")
        elif len(names) > 1 and not (name.replace("_", "").isalnum() and name[0].isalpha()):
            problems.append(
                f"tasks.{name}: expected a name of letters, digits and _ that begins with a letter, as {_proposed(name)}"
            )
    return problems


def _proposed(name: str) -> str:
    """Make a name that can be used of one that cannot."""
    found = "".join(letter if letter.isalnum() else "_" for letter in name).strip("_")
    return found if found[:1].isalpha() else f"my_{found or 'task'}"
