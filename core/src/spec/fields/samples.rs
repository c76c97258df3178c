//! The fields of one modality: its samples and what reads them.

use super::super::field::{Field, Kind, above};
use super::SIZE;

/// `modalities.<name>`.
pub(in crate::spec) mod modality {
    use super::*;

    pub(in crate::spec) static INPUT: Field =
        Field::new("input", Kind::Section, "{kind: image, channels: 1}", "how a raw value becomes numbers");
    pub(in crate::spec) static ENCODER: Field =
        Field::new("encoder", Kind::Section, "{kind: cnn}", "the network of this modality");
    pub(in crate::spec) static WORKERS: Field =
        Field::new("workers", Kind::Section, "{min: 1, max: 4}", "how many workers it may have");
    pub(in crate::spec) static MIN: Field =
        Field::new("min", Kind::Whole(1, 1024), "1", "training waits until so many are there")
            .default("1")
            .unit("workers");
    pub(in crate::spec) static MAX: Field =
        Field::new("max", Kind::Whole(1, 1024), "1", "no more than these are used; `min` by default").unit("workers");
}

/// `data`.
pub(in crate::spec) mod data {
    use super::*;

    pub(in crate::spec) static SOURCE: Field =
        Field::new("source", Kind::OneOf(&["parquet", "synth"]), "parquet", "files, or a generated data set")
            .default("parquet");
    pub(in crate::spec) static TRAIN: Field = Field::new(
        "train",
        Kind::Paths,
        "\"s3://data/digits/train-*.parquet\"",
        "files to learn from; `*` and `?` match within a segment",
    );
    pub(in crate::spec) static VALIDATION: Field = Field::new(
        "validation",
        Kind::Other("a share of train from 0 to below 1, as 0.1 or 10%, or a path or URL, or a list of them"),
        "10%",
        "samples to choose by: a share of train, the same in every modality, or files of their own",
    )
    .default("10%");
    pub(in crate::spec) static TEST: Field =
        Field::new("test", Kind::Paths, "test.parquet", "files to report on").default("[]");
    pub(in crate::spec) static COLUMN: Field =
        Field::new("column", Kind::Text, "audio", "the column with this modality; its name by default");
    pub(in crate::spec) static ID: Field =
        Field::new("id", Kind::Text, "id", "the column that pairs samples; without one the row's number")
            .default("null");
    pub(in crate::spec) static KIND: Field = Field::new(
        "kind",
        Kind::OneOf(&["spoken-digits", "features"]),
        "spoken-digits",
        "which data set is generated: columns `image`, `audio`, `text`, or `a`, `b`",
    );
    pub(in crate::spec) static SAMPLES: Field =
        Field::new("samples", Kind::Section, "{train: 2000, test: 500}", "samples in each split");
    pub(in crate::spec) static SAMPLES_TRAIN: Field =
        Field::new("train", Kind::Whole(1, 1_000_000_000), "2000", "samples to learn from")
            .default("2000")
            .unit("samples");
    pub(in crate::spec) static SAMPLES_VALIDATION: Field =
        Field::new("validation", Kind::Whole(0, 1_000_000_000), "500", "samples to choose by")
            .default("500")
            .unit("samples");
    pub(in crate::spec) static SAMPLES_TEST: Field =
        Field::new("test", Kind::Whole(0, 1_000_000_000), "500", "samples to report on").default("500").unit("samples");
    pub(in crate::spec) static MISSING: Field =
        Field::new("missing", Kind::Share, "10%", "share of samples that lack this modality").default("0");
    pub(in crate::spec) static SEED: Field =
        Field::new("seed", Kind::Whole(0, u64::MAX), "1", "seed of the generator, apart from the job's").default("1");
}

/// `input`.
pub(in crate::spec) mod input {
    use super::*;

    pub(in crate::spec) static KIND: Field = Field::new(
        "kind",
        Kind::OneOf(&["auto", "image", "audio", "text", "features"]),
        "image",
        "what the column holds; `auto` looks at its type and first value",
    )
    .default("auto");
    pub(in crate::spec) static HEIGHT: Field =
        Field::new("height", Kind::Whole(1, SIZE), "28", "images are resized to it; by default that of the first")
            .default("null")
            .unit("pixels");
    pub(in crate::spec) static WIDTH: Field =
        Field::new("width", Kind::Whole(1, SIZE), "28", "images are resized to it; by default that of the first")
            .default("null")
            .unit("pixels");
    pub(in crate::spec) static CHANNELS: Field =
        Field::new("channels", Kind::OneOf(&["1", "3"]), "1", "1 is grey, 3 is RGB").default("3");
    pub(in crate::spec) static FRAMES: Field = Field::new(
        "frames",
        Kind::Whole(1, 256),
        "3",
        "images taken of each clip, a list of them, evenly spread; a shorter clip repeats its own; 1 is the middle one",
    )
    .default("1")
    .unit("frames");
    pub(in crate::spec) static SAMPLE_RATE: Field =
        Field::new("sample_rate", Kind::Whole(1_000, 192_000), "8000", "every recording is resampled to it")
            .default("16000")
            .unit("Hz");
    pub(in crate::spec) static SECONDS: Field =
        Field::new("seconds", Kind::Seconds, "1.5 s", "recordings are cut, or padded with silence, to this length")
            .default("1 s")
            .unit("s");
    pub(in crate::spec) static MELS: Field =
        Field::new("mels", Kind::Whole(1, 1024), "64", "bands of the log-mel spectrogram").default("64").unit("bands");
    pub(in crate::spec) static WINDOW: Field =
        Field::new("window", Kind::Whole(16, SIZE), "256", "length of a Fourier window, a power of two")
            .default("512")
            .unit("samples");
    pub(in crate::spec) static HOP: Field =
        Field::new("hop", Kind::Whole(1, SIZE), "128", "from one window to the next, at most `window`")
            .default("256")
            .unit("samples");
    pub(in crate::spec) static TOKENIZER: Field = Field::new(
        "tokenizer",
        Kind::Other("`byte` or the path or URL of a file that ends in .json"),
        "byte",
        "how text is cut: into UTF-8 bytes, or by a Hugging Face tokenizer",
    )
    .default("byte");
    pub(in crate::spec) static MAX_TOKENS: Field =
        Field::new("max_tokens", Kind::Whole(1, SIZE), "128", "longer texts are cut").default("128").unit("tokens");
    pub(in crate::spec) static STANDARDISE: Field =
        Field::new("standardise", Kind::Flag, "true", "subtract the training split's mean and divide by its deviation")
            .default("true");
}

/// `encoder`.
pub(in crate::spec) mod encoder {
    use super::*;
    use crate::spec::model::EncoderSpec;

    pub(in crate::spec) static KIND: Field = Field::new(
        "kind",
        Kind::OneOf(EncoderSpec::BUILT_IN),
        "cnn",
        "the network; `auto` is `mlp` for features, `cnn` for images and audio, `text` for text",
    )
    .default("auto");
    pub(in crate::spec) static OPTIONS: Field = Field::new(
        "options",
        Kind::Other("a mapping of names to numbers, text, true or false, or lists of them"),
        "{channels: 32}",
        "for an encoder that the program registers: what that encoder reads",
    )
    .default("{}");
    pub(in crate::spec) static PRECISION: Field = Field::new(
        "precision",
        Kind::OneOf(&["f32", "bf16"]),
        "bf16",
        "what it computes in; `bf16`, on CUDA cards only, halves what flows between layers and leaves parameters in f32",
    )
    .default("f32");
    pub(in crate::spec) static HIDDEN: Field = Field::new(
        "hidden",
        Kind::Wholes { count: (0, 16), each: (1, SIZE) },
        "[256, 128]",
        "widths of the hidden layers",
    )
    .default("[128]")
    .unit("units");
    pub(in crate::spec) static CHANNELS: Field = Field::new(
        "channels",
        Kind::Wholes { count: (1, 16), each: (1, 8192) },
        "[16, 32, 64]",
        "channels of each stage; every stage halves height and width",
    )
    .default("[16, 32, 64]")
    .unit("channels");
    pub(in crate::spec) static WIDTH: Field =
        Field::new("width", Kind::Whole(1, SIZE), "64", "of the embedding and the blocks, a multiple of `heads`")
            .default("64")
            .unit("units");
    pub(in crate::spec) static LAYERS: Field =
        Field::new("layers", Kind::Whole(1, 128), "2", "transformer blocks").default("2").unit("blocks");
    pub(in crate::spec) static HEADS: Field =
        Field::new("heads", Kind::Whole(1, 256), "4", "attention heads").default("4").unit("heads");
    pub(in crate::spec) static DROPOUT: Field =
        Field::new("dropout", Kind::Share, "0.1", "share of units dropped in training").default("0");
    pub(in crate::spec) static VIT_SIZE: Field = Field::new(
        "size",
        Kind::OneOf(&["tiny", "small", "base"]),
        "small",
        "width, blocks and heads: 192, 12, 3; 384, 12, 6; 768, 12, 12",
    )
    .default("small");
    pub(in crate::spec) static PATCH: Field = Field::new(
        "patch",
        Kind::Whole(1, 64),
        "16",
        "rows and columns of a patch, of which images and mel bands are multiples",
    )
    .default("16")
    .unit("pixels");
    pub(in crate::spec) static POOLING: Field = Field::new(
        "pooling",
        Kind::OneOf(&["cls", "mean"]),
        "cls",
        "what is made of the tokens: the first one, which is there for it, or the mean of the others",
    )
    .default("cls");
    pub(in crate::spec) static BERT_SIZE: Field = Field::new(
        "size",
        Kind::OneOf(&["tiny", "mini", "small", "medium", "base"]),
        "base",
        "width, layers and heads: 128, 2, 2; 256, 4, 4; 512, 4, 8; 512, 8, 8; 768, 12, 12",
    )
    .default("base");
    pub(in crate::spec) static BERT_DROPOUT: Field =
        Field::new("dropout", Kind::Share, "0.1", "share of units dropped in training").default("0.1");
}

/// `encoder`, whatever its kind: what it begins from, and which of it is trained.
pub(in crate::spec) mod transfer {
    use super::*;

    pub(in crate::spec) static WEIGHTS: Field = Field::new(
        "weights",
        Kind::Other("a path or URL, or a mapping with `from`"),
        "{from: resnet18.pth, strict: true}",
        "pretrained weights that the encoder begins from; without any it begins from the seed",
    )
    .default("null");
    pub(in crate::spec) static FROM: Field =
        Field::new("from", Kind::Text, "s3://models/resnet18.pth", "path or URL of a safetensors or PyTorch file");
    pub(in crate::spec) static SHA256: Field = Field::new(
        "sha256",
        Kind::Other("64 hexadecimal digits in lower case"),
        "5c106cde386e87d4033832f2996f5493238eda96ccf559d1d62760c4de0613f8",
        "the file's SHA-256; a file with another one is refused",
    )
    .default("null");
    pub(in crate::spec) static STRICT: Field = Field::new(
        "strict",
        Kind::Flag,
        "false",
        "whether the file must have what the encoder has and nothing else, the adapter aside; else what fits is taken",
    )
    .default("true");
    pub(in crate::spec) static FREEZE: Field = Field::new(
        "freeze",
        Kind::Other("a pattern of names, as conv1.*, or a list of them"),
        r#"["conv1.*", "layer1.*"]"#,
        "parameters that are not trained, by name; `*` stands for any characters and `?` for one",
    )
    .default("[]");
    pub(in crate::spec) static ADAPTER_LR: Field = Field::new(
        "adapter_lr",
        above(0.0),
        "10",
        "the learning rate of the adapter, the encoder's last layer, is this times the optimizer's",
    )
    .default("1");
}
