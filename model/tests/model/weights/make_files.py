"""Makes the files beside it that other libraries write: run with torch, torchvision, transformers and safetensors.

names.json   names and shapes of small models, as the libraries save them
files/*.pth  small files that torch.save wrote, and one that would run a command when Python loads it
"""

import json
import os
import pickle
import tempfile
import zipfile
from pathlib import Path

import torch
import torchvision
import transformers
from safetensors import safe_open
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

HERE = Path(__file__).parent


def shapes(tensors):
    return {name: written(tensor.shape) for name, tensor in tensors.items()}


def written(shape):
    return " ".join(map(str, shape))


def saved(model):
    """As on the Hub, where names are older than those in memory."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with safe_open(Path(folder) / "model.safetensors", "pt") as file:
            return {name: written(file.get_slice(name).get_shape()) for name in file.keys()}


def names():
    transformer = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    grid = dict(image_size=32, patch_size=16)
    vit = transformers.ViTForImageClassification(transformers.ViTConfig(**transformer, **grid))
    ast = transformers.ASTForAudioClassification(
        transformers.ASTConfig(**transformer, max_length=48, num_mel_bins=32, time_stride=16, frequency_stride=16)
    )
    bert = transformers.BertForPreTraining(transformers.BertConfig(**transformer, vocab_size=50))
    resnet = dict(embedding_size=64, depths=[2, 1, 1, 1])
    basic = transformers.ResNetForImageClassification(
        transformers.ResNetConfig(**resnet, hidden_sizes=[64, 128, 256, 512], layer_type="basic")
    )
    bottleneck = transformers.ResNetModel(
        transformers.ResNetConfig(**resnet, hidden_sizes=[256, 512, 1024, 2048], layer_type="bottleneck")
    )
    torchvision_vit = torchvision.models.VisionTransformer(
        image_size=32, patch_size=16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=32, num_classes=3
    )
    return {
        "resnet basic, torchvision": shapes(ResNet(BasicBlock, [2, 1, 1, 1], num_classes=3).state_dict()),
        "resnet basic, transformers": saved(basic),
        "resnet bottleneck, torchvision": shapes(ResNet(Bottleneck, [2, 1, 1, 1], num_classes=3).state_dict()),
        "resnet bottleneck, transformers": saved(bottleneck),
        "vit, torchvision": shapes(torchvision_vit.state_dict()),
        "vit, transformers": saved(vit),
        "vit, transformers in memory": shapes(vit.state_dict()),
        "ast, transformers": saved(ast),
        "bert, transformers": saved(bert),
    }


class Command:
    def __reduce__(self):
        return os.system, ("touch executed",)


def files(folder):
    numbers = torch.arange(24, dtype=torch.float32)
    state = {
        "whole": numbers.reshape(2, 3, 4) / 4,
        "half": (numbers[:6] / 8).to(torch.float16),
        "brain": (numbers[:6] / 8).to(torch.bfloat16),
        "double": numbers[:6].double() / 8,
        "transposed": (numbers[:6] / 8).reshape(2, 3).T,
        "view": numbers.reshape(4, 6)[1:3, 2:4],
        "same": numbers.reshape(4, 6)[1:3, 2:4],
        "scalar": torch.tensor(1.5),
        "parameter": torch.nn.Parameter(numbers[:2] + 1),
        "counted": torch.tensor(7),
    }
    torch.save(state, folder / "plain.pth")
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    with torch.no_grad():
        for at, value in enumerate(module.state_dict().values()):
            value.copy_(torch.arange(value.numel()).reshape(value.shape) + 10 * at)
    training = {"epoch": 3, "args": {"lr": 0.1}, "model": {"state_dict": module.state_dict()}, "optimizer": {"state": {}}}
    torch.save(training, folder / "nested.pth")
    torch.save(module.state_dict(), folder / "protocol4.pth", pickle_protocol=4)
    torch.save({"epoch": 3, "weights": [numbers]}, folder / "elsewhere.pth")
    torch.save(module, folder / "module.pth")
    torch.save(module.state_dict(), folder / "legacy.pth", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(folder / "command.pth", "w") as archive:
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), pickle.dumps({"weight": Command()}, protocol=2))
        archive.writestr(zipfile.ZipInfo("archive/version"), "3\n")
    (folder / "command.pkl").write_bytes(pickle.dumps(Command(), protocol=2))


if __name__ == "__main__":
    (HERE / "names.json").write_text(json.dumps(names(), indent=0, sort_keys=True) + "\n")
    files(HERE / "files")
