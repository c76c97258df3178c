#!/usr/bin/env python3
"""Times training steps of Antiphon's encoders beside PyTorch's: same models, same batches, alternating runs, one table of ratios.

    pip install torch torchvision timm transformers numpy
    cargo build --release
    python3 benches/pytorch/compare.py                                  the usual cases, one thread, batches of 64
    python3 benches/pytorch/compare.py resnet18@1x128x128 --runs 7 --threads 2 --batch 16
    python3 benches/pytorch/compare.py --device cuda --precision bf16 --steps 20

A step is forward, backward from a given gradient of the features, and SGD with momentum and weight decay. In each run both
programs are started afresh, take a step that is not counted and then `--steps` that are; a row compares the medians of all steps, and
the median of the peaks of memory beyond what each program has before it makes the model. A ratio above 1 says that Antiphon
takes longer, or more.

On a card both wait for it before they look at the clock, and both bring the batch up from main memory and the features down in every
step. PyTorch multiplies f32 in full, as Antiphon does, and bf16 is `torch.autocast` on PyTorch's side. Memory is the card's then: the
most that a step has in use at a time, without what libraries and the driver keep for themselves.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

USUAL = ["resnet18@1x128x128", "resnet18@3x112x112", "vit-small@3x112x112", "bert-small@64", "mlp@512"]

VIT = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}
BERT = {"tiny": (128, 2, 2), "mini": (256, 4, 4), "small": (512, 4, 8), "medium": (512, 8, 8), "base": (768, 12, 12)}
VOCABULARY = 30522


def memory(field):
    """Bytes that the system counts under this field, or None where it has no such file."""
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def model_and_batch(case, batch, device):
    """A model that gives features (B, s), and a function of it that runs one batch."""
    import torch

    kind, _, given = case.partition("@")
    try:
        sizes = [int(n) for n in given.split("x")]
    except ValueError:
        raise SystemExit(f"{case}: name the input too, as in resnet18@3x112x112") from None
    if kind.startswith("resnet"):
        import torchvision

        model = getattr(torchvision.models, kind)()
        model.fc = torch.nn.Identity()
        if sizes[0] != 3:
            model.conv1 = torch.nn.Conv2d(sizes[0], 64, 7, stride=2, padding=3, bias=False)
    elif kind.startswith("vit-"):
        import timm

        width, depth, heads = VIT[kind.removeprefix("vit-")]
        model = timm.models.vision_transformer.VisionTransformer(
            img_size=tuple(sizes[1:]), patch_size=16, in_chans=sizes[0], embed_dim=width, depth=depth, num_heads=heads,
            num_classes=0, global_pool="token", fc_norm=False)
    elif kind.startswith("bert-"):
        import transformers

        width, layers, heads = BERT[kind.removeprefix("bert-")]
        model = transformers.BertModel(transformers.BertConfig(
            vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=4 * width, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
            add_pooling_layer=False)
        ids = torch.randint(0, VOCABULARY, (batch, sizes[0]))
        return model.to(device), lambda: model(input_ids=ids.to(device)).last_hidden_state.mean(1)
    elif kind == "mlp":
        linear, relu = torch.nn.Linear, torch.nn.ReLU
        model = torch.nn.Sequential(linear(sizes[0], 512), relu(), linear(512, 512), relu())
    else:
        raise SystemExit(f"there is no PyTorch model beside {case}")
    inputs = torch.randn(batch, *sizes)
    return model.to(device), lambda: model(inputs.to(device))


def run_pytorch(arguments):
    """Measures in this process and prints what `antiphon bench encoder --format json` prints."""
    import torch

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    # Importing the model's library is not part of its memory.
    import timm, torchvision, transformers  # noqa: F401
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass
    before = memory("VmRSS:")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model, forward = model_and_batch(arguments.case[0], arguments.batch, arguments.device)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9, weight_decay=1e-4)
    upstream, steps = None, []

    def now():
        if arguments.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    for _ in range(1 + arguments.steps):
        marks = [now()]
        with torch.autocast(arguments.device.partition(":")[0], torch.bfloat16, enabled=arguments.precision == "bf16"):
            features = forward()
        # Antiphon's features are in f32 either way, and are brought down.
        features = features.float()
        features.detach().cpu()
        marks.append(now())
        if upstream is None:
            upstream = torch.randn_like(features) / arguments.batch
        optimizer.zero_grad(set_to_none=True)
        features.backward(upstream)
        marks.append(now())
        optimizer.step()
        marks.append(now())
        parts = [end - begin for begin, end in zip(marks, marks[1:])]
        steps.append(dict(zip(("forward", "backward", "optimizer"), parts)))
    peak = memory("VmHWM:")
    if arguments.device != "cpu":
        peak, before = torch.cuda.max_memory_allocated(arguments.device), 0
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(json.dumps({"parameters": parameters, "steps": steps[1:], "peak_bytes": peak and peak - before}))


def positive(text):
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def ran(command):
    """What a program that measures prints last. What went wrong it says itself."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def total(steps):
    return statistics.median(sum(step[phase] for phase in ("forward", "backward", "optimizer")) for step in steps)


def compare(case, arguments):
    ours, theirs = [], []
    common = [case, "--batch", str(arguments.batch), "--steps", str(arguments.steps), "--threads", str(arguments.threads),
              "--device", arguments.device, "--precision", arguments.precision]
    for run in range(arguments.runs):
        if sys.stderr.isatty():
            print(f"\r{case}: run {run + 1} of {arguments.runs} ", end="", file=sys.stderr, flush=True)
        ours.append(ran([arguments.antiphon, "bench", "encoder", *common, "--format", "json"]))
        theirs.append(ran([sys.executable, __file__, "--pytorch", *common]))
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    row = {"case": case, "batch": arguments.batch, "threads": arguments.threads, "device": arguments.device,
           "precision": arguments.precision}
    for name, runs in (("antiphon", ours), ("pytorch", theirs)):
        steps = [step for run in runs for step in run["steps"]]
        row[name] = {"seconds": total(steps), "each_run": [total(run["steps"]) for run in runs], "parameters": runs[0]["parameters"],
                     "peak_bytes": statistics.median(run["peak_bytes"] or 0 for run in runs)}
        for phase in ("forward", "backward", "optimizer"):
            row[name][phase] = statistics.median(step[phase] for step in steps)
    if row["antiphon"]["parameters"] != row["pytorch"]["parameters"]:
        raise SystemExit(f"{case}: the models differ: {row['antiphon']['parameters']} and {row['pytorch']['parameters']} parameters")
    pairs = [our / their for our, their in zip(row["antiphon"]["each_run"], row["pytorch"]["each_run"])]
    row["ratio"] = row["antiphon"]["seconds"] / row["pytorch"]["seconds"]
    row["ratios_of_runs"] = [min(pairs), max(pairs)]
    row["memory_ratio"] = row["antiphon"]["peak_bytes"] / row["pytorch"]["peak_bytes"] if row["pytorch"]["peak_bytes"] else None
    return row


def table_line(row):
    ours, theirs = row["antiphon"], row["pytorch"]
    low, high = row["ratios_of_runs"]
    ratios = "  ".join(f"{ours[phase] / theirs[phase]:8.2f}" for phase in ("forward", "backward", "optimizer"))
    mebi = [side["peak_bytes"] / 2**20 for side in (ours, theirs)]
    memory_ratio = f"{row['memory_ratio']:6.2f}" if row["memory_ratio"] else "     ?"
    return (f"{row['case']:<22}{row['batch']:>5}{1e3 * ours['seconds']:>11.1f}{1e3 * theirs['seconds']:>11.1f}"
            f"{row['ratio']:>8.2f}  ({low:.2f} to {high:.2f})  {ratios}{mebi[0]:>9.0f}{mebi[1]:>9.0f}{memory_ratio}")


def main():
    class Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
        pass

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("case", nargs="*", help="as `antiphon bench encoder` names them; the usual ones if none is named")
    parser.add_argument("--batch", type=positive, default=64, help="samples per batch")
    parser.add_argument("--steps", type=positive, default=2, help="steps of a run that are counted")
    parser.add_argument("--runs", type=positive, default=5, help="how often each program is run, one after the other")
    parser.add_argument("--threads", type=positive, default=1, help="threads that compute, in both")
    parser.add_argument("--device", default="cpu", help="where both compute: cpu, cuda or cuda:1")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32", help="what both compute in; bf16 on cards only")
    parser.add_argument("--antiphon", default=str(ROOT / "target/release/antiphon"), help="the program to measure")
    parser.add_argument("--json", action="store_true", help="one JSON object per row instead of a table")
    parser.add_argument("--pytorch", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.precision == "bf16" and arguments.device == "cpu":
        parser.error("Antiphon computes bf16 on cards only: add --device cuda")
    if arguments.pytorch:
        return run_pytorch(arguments)
    if shutil.which(arguments.antiphon) is None:
        parser.error(f"there is no program {arguments.antiphon}: build it with `cargo build --release`, or name it with --antiphon")
    if not arguments.json:
        print("milliseconds per step      Antiphon    PyTorch   ratio   (of runs)         forward  backward  optimizer  MiB: ours  theirs  ratio")
    for case in arguments.case or USUAL:
        row = compare(case, arguments)
        print(json.dumps(row) if arguments.json else table_line(row), flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
