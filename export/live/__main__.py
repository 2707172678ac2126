"""Exports a live separator: `python -m export.live --run runs/live-16ms-seed0 --to exported/live`."""

import argparse
import importlib.metadata
import math
import shutil
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from export.formats import check_libraries
from export.target import check_target
from vae_bss_tf.arguments import Parser, command, path
from vae_bss_tf.checks import check_choice
from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.files import parse_json, replacing_folder, sha256, write_json, write_text
from vae_bss_tf.startup import import_tensorflow

FORMATS = {
    "tflite_float32": "float32.tflite",
    "tflite_float16": "float16.tflite",
    "tflite_dynamic_int8": "dynamic_int8.tflite",
    "tflite_full_int8": "full_int8.tflite",
    "onnx_float32": "float32.onnx",
}
_LIBRARIES = ("vae-bss-tf", "tensorflow", "ai-edge-litert", "ai-edge-quantizer", "tf2onnx", "onnxruntime")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m export.live",
        description="Writes a live separator as TFLite and ONNX files whose state is in the open, and proves each "
        "equal to the model over a minute of sound.",
        epilog="example: python -m export.live --run runs/live-16ms-seed0 --to exported/live",
    )
    parser.add_argument("--run", required=True, type=path, help="a finished run of python -m training.live")
    parser.add_argument("--to", required=True, type=path, help="folder to make")
    parser.add_argument("--formats", nargs="+", metavar="NAME", help=f"of {', '.join(FORMATS)} (default: all)")
    parser.add_argument("--force", action="store_true", help="replace an earlier export of a live separator")
    return parser


def _export(options: argparse.Namespace) -> None:
    names = [check_choice("format", name, FORMATS) for name in options.formats or FORMATS]
    check_target(options.to, live=True, force=options.force)
    check_libraries(names)
    import_tensorflow()
    from export.gate.workers import converters
    from export.live import gate, writers
    from training.live.trainer import load_model, settings_of

    config, _, learned_from = settings_of(options.run)
    if not (options.run / "metrics.json").is_file():
        raise CheckpointError(f"{options.run} is not finished; finish it by --resume.")
    model = load_model(options.run)
    waveform = gate.program(config.sample_rate)
    with replacing_folder(options.to) as staging, tempfile.TemporaryDirectory(dir=staging) as work:
        writers.write_saved_model(model, Path(work) / "saved_model")
        outputs = {name: staging / FORMATS[name] for name in names}
        print(f"writing {', '.join(path.name for path in outputs.values())}", flush=True)
        inputs = gate.calibration(model, waveform) if "tflite_full_int8" in names else []
        with converters() as pool:
            pool.submit(writers.convert, Path(work) / "saved_model", outputs, inputs).result()
        described = _manifest(options, config, model, outputs, learned_from)
        write_json(staging / "manifest.json", described)
        expected = gate.offline(model, waveform)
        from vae_bss_tf.live.runtime import load

        for name, path in outputs.items():
            described["formats"][name] |= gate.check(name, load(path), waveform, expected)
            entry = described["formats"][name]
            print(f"{path.name}: {entry['bytes']:,} bytes, differs by {entry['max_abs_error']:.1e} at most, "
                  f"{entry['ms_per_block']:.2f} ms a block", flush=True)  # fmt: skip
        for name in ("metrics.json", "history.csv", "weights.npz"):
            shutil.copyfile(options.run / name, staging / name)
        content = parse_json((options.run / "config.json").read_text(encoding="utf-8"))
        names_alone = [{key: Path(value).name for key, value in source.items()} for source in learned_from]
        write_json(staging / "config.json", {**content, "learned_from": names_alone})
        write_json(staging / "manifest.json", described)
        write_text(staging / "README.md", _card(described))
    print(
        f"exported to {options.to}\nnext: python -m vae_bss_tf.live --model {options.to} --input duet.wav --output DIR"
    )


def _manifest(
    options: argparse.Namespace, config: Any, model: Any, outputs: dict[str, Path], learned_from: list[dict[str, str]]
) -> dict[str, Any]:
    hop = config.hop_length
    states = [
        {"name": name, "next": f"next_{name}", "shape": list(zero.shape), "dtype": "float32", "zero": 0.0}
        for name, zero in model.initial_state().items()
    ]
    return {
        "kind": "live",
        "name": options.to.name,
        "live": config.to_dict(),
        "parameters": model.num_parameters,
        "latency_ms": 2_000 * hop / config.sample_rate,
        "signature": {
            "name": "step",
            "inputs": {"block": {"shape": [1, hop], "dtype": "float32"}},
            "outputs": {"sources": {"shape": [1, config.num_sources, hop], "dtype": "float32"}},
        },
        "states": states,
        "teachers": [Path(source["teacher"]).name for source in learned_from],
        "formats": {
            name: {"path": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
            for name, path in outputs.items()
        },
        "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES},
    }


def _card(described: dict[str, Any]) -> str:
    live = described["live"]
    rows = [
        f"| `{entry['path']}` | {entry['bytes']:,} | {entry['max_abs_error']:.1e} | {entry['likeness_db']:.1f} |"
        for entry in described["formats"].values()
    ]
    block = described["signature"]["inputs"]["block"]["shape"][1]
    state_bytes = sum(4 * math.prod(state["shape"]) for state in described["states"])
    sources, teachers = live["num_sources"], " and ".join(described["teachers"])
    paragraphs = [
        f"A live separator of {sources} sources at {live['sample_rate']:g} Hz with a latency of "
        f"{described['latency_ms']:.1f} ms: it takes blocks of {block} samples and gives as many of each source, one "
        f"block later. It has {described['parameters']:,} parameters and {state_bytes:,} bytes of state, and was "
        f"trained from recordings of mixtures alone, as {teachers} separate them. Their cards name the data and its "
        "licence.",
        f"Each file has one signature, `step`. Inputs: `block`, float32 `[1, {block}]`, and the states that "
        "`manifest.json` lists, zeros before the first block. Outputs: `sources`, float32 "
        f"`[1, {sources}, {block}]`, and each state's successor, `next_NAME`, which is the input of the next call. "
        "After silence, the source that begins first comes first; of two that begin together, the lower one. They sum "
        "to the mixture of one block before.",
    ]
    about, interface = (textwrap.fill(paragraph, 120, break_long_words=False) for paragraph in paragraphs)
    return f"""# {described["name"]}

{about}

```
python -m vae_bss_tf.live --model {described["name"]} --input duet.wav --output separated
```

```python
import soundfile

from vae_bss_tf.live.runtime import LiveSeparator, load

separator = LiveSeparator(load("{described["name"]}"))
for block in soundfile.blocks("duet.wav", 1024, dtype="float32"):  # one channel, {live["sample_rate"]:g} Hz
    sources = separator.process(block)  # float32 [{live["num_sources"]}, n]
```

| file | bytes | largest difference from the model | likeness, dB |
| --- | --- | --- | --- |
{chr(10).join(rows)}

*Likeness* is the energy of the model's sources over that of their difference, over a minute of made sound.

{interface}
"""


main = command(_parser, _export)


if __name__ == "__main__":
    sys.exit(main())
