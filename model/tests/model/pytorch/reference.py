#!/usr/bin/env python3
"""What PyTorch computes with the encoders that Antiphon has under the same names.

Models of torchvision, timm and transformers are run in float64: features in training and in evaluation, the gradients of
every parameter for a given gradient of the features, and the running statistics after that one step.

    pip install torch torchvision timm transformers safetensors numpy
    python3 model/tests/model/pytorch/reference.py             every encoder with the library's own random weights, as a file that the
                                                          library saves, whole; then `cargo test` compares them
    python3 model/tests/model/pytorch/reference.py --golden    rewrites golden/*.json: weights by a formula that both sides know,
                                                          and a few numbers of each gradient
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy
import timm
import torch
import torchvision
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent

# Of each gradient a golden file has this many of the largest numbers, and as many others.
SAMPLES = 4

VIT = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}
BERT = {"tiny": (128, 2, 2), "small": (512, 4, 8), "base": (768, 12, 12)}
DEPTHS = {18: "eighteen", 34: "thirty-four", 50: "fifty"}


def mixed(name, count):
    """`count` words of 32 bits that are the name's own: FNV-1a of it begins a Weyl sequence, MurmurHash3's last steps mix it."""
    start = 0x811C9DC5
    for byte in name.encode():
        start = (start ^ byte) * 0x01000193 % 2**32
    words = (numpy.arange(count, dtype=numpy.uint64) * 0x9E3779B9 + start).astype(numpy.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        words = ((words ^ (words >> shift)).astype(numpy.uint64) * factor).astype(numpy.uint32)
    return words ^ (words >> 16)


def numbers(name, shape):
    """Numbers in [-1, 1) that float32 holds exactly."""
    count = int(numpy.prod(shape))
    return ((mixed(name, count) >> 8).astype(numpy.float64) / 2**23 - 1).reshape(shape)


def formula(name, shape):
    """The value of a parameter or buffer: weights of deviation 1/√inputs, scales and variances about 1, all else about 0."""
    values = numbers(name, shape)
    if name.endswith("weight") and len(shape) > 1:
        values = values * numpy.sqrt(3.0 / numpy.prod(shape[1:]))
    elif name.endswith("weight") or name.endswith("running_var"):
        values = 1.0 + values * 0.25
    else:
        values = values * 0.125
    return values.astype(numpy.float32)


class Case:
    """A model, what it reads, and how Antiphon's job file calls it."""

    def __init__(self, name, encoder, shape, samples, build, lengths=None, saved="safetensors"):
        self.name, self.encoder, self.shape, self.samples = name, encoder, shape, samples
        self.build, self.lengths, self.saved = build, lengths, saved

    def input(self):
        if self.lengths is None:
            dims = [self.samples] + [self.shape[key] for key in ("channels", "height", "width")]
            return torch.from_numpy(numbers("input", dims))
        ids = mixed("input", self.samples * max(self.lengths)) % (self.shape["vocabulary"] - 1)
        return torch.from_numpy(ids.astype(numpy.int64).reshape(self.samples, max(self.lengths)))

    def run(self, model):
        """Features (B, s) of the model in its present mode."""
        inputs = self.input()
        if self.lengths is None:
            return model(inputs)
        there = torch.arange(max(self.lengths))[None, :] < torch.tensor(self.lengths)[:, None]
        tokens = model(input_ids=inputs * there, attention_mask=there.long()).last_hidden_state
        if self.encoder["pooling"] == "cls":
            return tokens[:, 0]
        return (tokens * there[:, :, None]).sum(1) / there.sum(1, keepdim=True)

    def about(self):
        fields = {"encoder": self.encoder, "shape": self.shape, "samples": self.samples}
        return fields | ({"lengths": self.lengths} if self.lengths else {})


def grid(channels, height, width):
    return {"kind": "grid", "channels": channels, "height": height, "width": width}


def resnet(depth, channels, height, width, samples, name=None, **more):
    def build():
        model = getattr(torchvision.models, f"resnet{depth}")()
        model.fc = torch.nn.Identity()
        if channels != 3:
            model.conv1 = torch.nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        return model

    encoder = {"kind": "resnet", "depth": DEPTHS[depth]}
    return Case(name or f"resnet{depth}", encoder, grid(channels, height, width), samples, build, **more)


def vit(size, patch, pooling, channels, height, width, samples, name=None):
    def build():
        embedding, depth, heads = VIT[size]
        pool = {"cls": "token", "mean": "avg"}[pooling]
        return timm.models.vision_transformer.VisionTransformer(
            img_size=(height, width), patch_size=patch, in_chans=channels, embed_dim=embedding, depth=depth,
            num_heads=heads, num_classes=0, global_pool=pool, fc_norm=False)

    encoder = {"kind": "vit", "size": size, "patch": patch, "pooling": pooling, "dropout": 0.0}
    return Case(name or f"vit-{size}", encoder, grid(channels, height, width), samples, build)


def vit_transformers(size, patch, height, samples, name):
    def build():
        width, layers, heads = VIT[size]
        config = transformers.ViTConfig(
            hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width,
            image_size=height, patch_size=patch, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            layer_norm_eps=1e-6)
        return transformers.ViTModel(config, add_pooling_layer=False)

    encoder = {"kind": "vit", "size": size, "patch": patch, "pooling": "cls", "dropout": 0.0}
    case = Case(name, encoder, grid(3, height, height), samples, build)
    case.run = lambda model: model(case.input()).last_hidden_state[:, 0]
    return case


def bert(size, pooling, vocabulary, lengths, name=None):
    def build():
        width, layers, heads = BERT[size]
        config = transformers.BertConfig(
            vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=4 * width, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=None)
        return transformers.BertModel(config, add_pooling_layer=False)

    encoder = {"kind": "bert", "size": size, "pooling": pooling, "dropout": 0.0}
    shape = {"kind": "tokens", "vocabulary": vocabulary + 1, "max_tokens": max(lengths), "padding": vocabulary}
    return Case(name or f"bert-{size}", encoder, shape, len(lengths), build, lengths)


GOLDEN = [
    resnet(18, 1, 33, 40, 3),
    vit("tiny", 8, "cls", 3, 16, 24, 2),
    bert("tiny", "mean", 50, [7, 12, 1]),
]

WHOLE = [
    resnet(18, 1, 128, 128, 4, "resnet18-one-channel", saved="pth"),
    resnet(18, 3, 112, 112, 4, "resnet18-three-channels"),
    resnet(34, 3, 64, 64, 4),
    resnet(50, 3, 64, 64, 4),
    vit("tiny", 16, "mean", 1, 128, 64, 4, "vit-tiny-spectrogram"),
    vit("small", 16, "cls", 3, 112, 112, 4),
    vit_transformers("tiny", 16, 64, 4, "vit-tiny-transformers"),
    vit("base", 16, "cls", 3, 112, 112, 2),
    bert("tiny", "cls", 1000, [64, 33, 1, 50]),
    bert("small", "mean", 1000, [64, 33, 1, 50]),
    bert("base", "mean", 1000, [32, 17]),
]


def floats(model):
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


def computed(case, model):
    """Features when evaluating and when training, gradients, and the buffers after one step."""
    model = model.double()
    with torch.no_grad():
        evaluated = case.run(model.eval())
    features = case.run(model.train())
    upstream = torch.from_numpy(numbers("upstream", tuple(features.shape)))
    (features * upstream).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    buffers = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    return features.detach(), evaluated, gradients, buffers


def shortened(values):
    return [float(f"{value:.8g}") for value in values]


def sampled(name, tensor):
    """[where, value] of the largest numbers of a tensor and of some others."""
    flat = tensor.double().flatten().numpy()
    largest = numpy.argsort(-abs(flat), kind="stable")[:SAMPLES]
    others = mixed(f"sample {name}", SAMPLES) % len(flat)
    return [[int(at), float(f"{flat[at]:.8g}")] for at in sorted({int(at) for at in [*largest, *others]})]


def write_golden(case):
    model = case.build()
    with torch.no_grad():
        for name, tensor in floats(model).items():
            tensor.copy_(torch.from_numpy(formula(name, tuple(tensor.shape))))
    shapes = {name: list(tensor.shape) for name, tensor in floats(model).items()}
    features, evaluated, gradients, buffers = computed(case, model)
    content = case.about() | {
        "weights": shapes,
        "features": shortened(features.flatten().tolist()),
        "evaluated": shortened(evaluated.flatten().tolist()),
        "gradients": {name: sampled(name, gradient) for name, gradient in gradients.items()},
        "buffers": {name: sampled(name, buffer) for name, buffer in buffers.items()},
    }
    lines = [f"{json.dumps(key)}: {one_per_line(value) if isinstance(value, dict) else json.dumps(value)}"
             for key, value in content.items()]
    (HERE / "golden" / f"{case.name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def one_per_line(fields):
    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in fields.items()) + "\n}"


def write_whole(case, folder):
    torch.manual_seed(7)
    model = case.build()
    with torch.no_grad():
        # Scales, shifts and running statistics that tell a mistake, unlike the ones and zeros that a new model has.
        for name, tensor in floats(model).items():
            if tensor.dim() == 1:
                tensor.copy_(torch.from_numpy(formula(name, tuple(tensor.shape))))
    state = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    weights = folder / f"{case.name}.{case.saved}"
    torch.save(state, weights) if case.saved == "pth" else save_file(state, weights)
    features, evaluated, gradients, buffers = computed(case, model)
    tensors = {"features": features, "evaluated": evaluated}
    tensors |= {f"gradients.{name}": tensor for name, tensor in gradients.items()}
    tensors |= {f"buffers.{name}": tensor for name, tensor in buffers.items()}
    reference = folder / f"{case.name}.reference"
    save_file({name: tensor.float().contiguous() for name, tensor in tensors.items()}, reference)
    files = {"weights": str(weights), "reference": str(reference)}
    (folder / f"{case.name}.json").write_text(json.dumps(case.about() | files))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", action="store_true", help="rewrite golden/*.json instead of comparing")
    parser.add_argument("case", nargs="*", help="only these: " + ", ".join(case.name for case in WHOLE))
    arguments = parser.parse_args()
    if arguments.golden:
        for case in GOLDEN:
            write_golden(case)
        return 0
    unknown = set(arguments.case) - {case.name for case in WHOLE}
    if unknown:
        parser.error(f"there is no case {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as folder:
        for case in WHOLE:
            if not arguments.case or case.name in arguments.case:
                print(f"PyTorch: {case.name}", flush=True)
                write_whole(case, pathlib.Path(folder))
        command = ["cargo", "test", "--release", "--workspace", "--test", "pytorch", "--", "--nocapture"]
        environment = os.environ | {"ANTIPHON_PYTORCH_REFERENCE": folder}
        return subprocess.run(command, cwd=HERE, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
