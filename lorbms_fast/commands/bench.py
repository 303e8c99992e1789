"""`lorbms-fast bench`: the fast iteration against the reference, on this machine."""

import json as json_format
from typing import Any, Literal

import tyro

from lorbms_fast.config import Count, Kernels, Precision, preset_named
from lorbms_fast.counted import counted
from lorbms_fast.devices import device_named
from lorbms_fast.engine.first_use import tried
from lorbms_fast.engine.precision import chosen_precision
from lorbms_fast.measurement.apart import compare_steps
from lorbms_fast.measurement.machine import machine


def bench(
    what: tyro.conf.Positional[Literal["step"]] = "step",
    /,
    *,
    batch_size: Count = 12,
    rounds: Count = 5,
    device: str = "cpu",
    graphs: Literal["on", "off"] = "on",
    kernels: Kernels = "auto",
    precision: Precision | Literal["auto"] = "auto",
    preset: str = "thesis",
    compiled_reference: bool = False,
    json: bool = False,
) -> None:
    """Time whole training iterations (generator twice, classifier, discriminator), reference and fast in turns.

    Each runs in a process of its own. Besides the medians, operations, bytes and the peak memory of both processes are
    counted. On a CPU the reference computes in float32; on a GPU in the fast form's arithmetic, times are taken between
    events, memory is the GPU's, and kernels are counted by the profiler, beside those predicted.
    `make bench` measures every layer as well.

    Args:
        what: step, a whole iteration.
        batch_size: Reference images an iteration.
        rounds: Timed rounds of each, on a GPU of five iterations.
        device: cpu, cuda, cuda:1, or auto for a GPU if there is one.
        graphs: On a GPU, time the fast iteration as a CUDA graph too, or not.
        kernels: Forms of the fast iteration's operations on a GPU, as in train: auto takes what first use finds, triton
            our kernels alone, torch none of them.
        precision: Arithmetic of the fast form; auto is float32 on a CPU, bfloat16 on a GPU, float16 before Ampere.
        preset: Preset whose model runs: thesis or demo.
        compiled_reference: Take the reference under torch.compile as a second yardstick. Compiling took 16 minutes of a
            CPU's time; a line tells of each graph.
        json: Print JSON.
    """
    model = preset_named(preset).model
    where = device_named(device)
    precision = chosen_precision(precision, where)
    on_gpu = where.type == "cuda"
    forms = tried(kernels, where)
    as_graph = on_gpu and graphs == "on"
    result = compare_steps(model, batch_size, rounds, precision, compiled_reference, where, as_graph, kernels)
    if on_gpu and forms:
        from lorbms_fast.measurement.plan import count_iteration

        predicted = count_iteration(model, batch_size, precision)
        result["predicted_launches"] = {"ours": len(predicted.ours), "torch": len(predicted.torchs)}
    settings = {"preset": preset, "batch_size": batch_size, "precision": precision, "kernels": kernels}
    facts = {"machine": machine(), **settings, **result}
    if json:
        print(json_format.dumps(facts, indent=2))
        return
    print(f"{facts['machine']}; {preset} model, batch {batch_size}, medians of {counted(rounds, 'round')} in turns")
    for name in ("reference", "fast"):
        form = result[name]
        print(
            f"  {name:<10}{form['seconds']:8.3f} s  {form['gflop']:7.0f} GFLOP  {form['operations']:6,} operations  "
            f"{form['gigabytes']:6.1f} GB read and written  {form['peak_memory_gb']:5.2f} GB peak memory"
            f"{_kernels(form)}"
        )
    if "captured" in result:
        form = result["captured"]
        print(f"  as a graph{form['seconds']:8.4f} s  {form['peak_memory_gb']:5.2f} GB peak memory{_kernels(form)}")
    if where.type == "cuda" and "launches" not in result["fast"]:
        print(f"  kernels are not counted: torch's profiler saw nothing of {where}")
    if "forms" in result["fast"]:
        chosen = ", ".join(f"{count} '{form}'" for form, count in result["fast"]["forms"].items())
        print(f"  forms of the fast iteration's operations: {chosen}")
    if "predicted_launches" in result:
        counts = result["predicted_launches"]
        print(f"  predicted of fast: {counts['ours']:,} kernels of ours, {counts['torch']:,} or more of torch's")
    print(f"  {result['ratio']:.2f} times faster")
    if compiled_reference:
        form = result["compiled_reference"]
        print(
            f"  reference under torch.compile {form['seconds']:.3f} s, {form['peak_memory_gb']:.2f} GB peak memory"
            f"{_kernels(form)}, {form['compiling_seconds']:.0f} s of compiling: "
            f"fast is {result['ratio_to_compiled']:.2f} times faster"
        )


def _kernels(form: dict[str, Any]) -> str:
    return f"  {form['launches']:,} kernels" if "launches" in form else ""
