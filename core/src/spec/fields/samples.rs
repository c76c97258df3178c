//! The fields of one modality: its samples and its encoder.

use super::super::field::{Field, Kind, above};
use super::SIZE;

/// `modalities.<name>`.
pub(in crate::spec) mod modality {
    use super::*;

    pub(in crate::spec) static INPUT: Field =
        Field::new("input", Kind::Section, "{kind: image, channels: 1}", "how a raw value becomes the encoder's input");
    pub(in crate::spec) static ENCODER: Field =
        Field::new("encoder", Kind::Section, "{kind: cnn}", "the network that computes this modality's features");
    pub(in crate::spec) static WORKERS: Field =
        Field::new("workers", Kind::Section, "{min: 1, max: 4}", "how many workers the modality may have");
    pub(in crate::spec) static MIN: Field =
        Field::new("min", Kind::Whole(1, 1024), "1", "training waits until this many workers are ready")
            .default("1")
            .unit("workers");
    pub(in crate::spec) static MAX: Field = Field::new(
        "max",
        Kind::Whole(1, 1024),
        "1",
        "the largest number of workers that are used; by default the same as `min`",
    )
    .unit("workers");
}

/// `data`.
pub(in crate::spec) mod data {
    use super::*;

    pub(in crate::spec) static SOURCE: Field = Field::new(
        "source",
        Kind::OneOf(&["parquet", "synth"]),
        "parquet",
        "whether samples are read from files or generated",
    )
    .default("parquet");
    pub(in crate::spec) static TRAIN: Field = Field::new(
        "train",
        Kind::Paths,
        "\"s3://data/digits/train-*.parquet\"",
        "the files of the training split; `*` and `?` match within one segment of the path",
    );
    pub(in crate::spec) static VALIDATION: Field = Field::new(
        "validation",
        Kind::Other(
            "a share of `train` from 0 up to, but not including, 1, such as 0.1 or 10%, or a path or URL, or a list of \
             them",
        ),
        "10%",
        "the validation split, which selects the best checkpoint: a share of `train`, the same samples in every \
         modality, or separate files",
    )
    .default("10%");
    pub(in crate::spec) static TEST: Field = Field::new(
        "test",
        Kind::Paths,
        "test.parquet",
        "the files of the test split, which is evaluated once, at the end of the job",
    )
    .default("[]");
    pub(in crate::spec) static COLUMN: Field = Field::new(
        "column",
        Kind::Text,
        "audio",
        "the column that holds this modality; by default the column named like the modality",
    );
    pub(in crate::spec) static ID: Field = Field::new(
        "id",
        Kind::Text,
        "id",
        "the column by which samples of different modalities are paired; without one, rows are paired by number",
    )
    .default("null");
    pub(in crate::spec) static KIND: Field = Field::new(
        "kind",
        Kind::OneOf(&["spoken-digits", "features"]),
        "spoken-digits",
        "the data set that is generated: `spoken-digits` has the columns `image`, `audio` and `text`, `features` has \
         `a` and `b`",
    );
    pub(in crate::spec) static SAMPLES: Field =
        Field::new("samples", Kind::Section, "{train: 2000, test: 500}", "the number of samples in each split");
    pub(in crate::spec) static SAMPLES_TRAIN: Field =
        Field::new("train", Kind::Whole(1, 1_000_000_000), "2000", "the number of samples in the training split")
            .default("2000")
            .unit("samples");
    pub(in crate::spec) static SAMPLES_VALIDATION: Field =
        Field::new("validation", Kind::Whole(0, 1_000_000_000), "500", "the number of samples in the validation split")
            .default("500")
            .unit("samples");
    pub(in crate::spec) static SAMPLES_TEST: Field =
        Field::new("test", Kind::Whole(0, 1_000_000_000), "500", "the number of samples in the test split")
            .default("500")
            .unit("samples");
    pub(in crate::spec) static MISSING: Field =
        Field::new("missing", Kind::Share, "10%", "the share of samples in which this modality is missing")
            .default("0");
    pub(in crate::spec) static SEED: Field = Field::new(
        "seed",
        Kind::Whole(0, u64::MAX),
        "1",
        "the seed of the generated data, independent of the job's seed",
    )
    .default("1");
}

/// `input`.
pub(in crate::spec) mod input {
    use super::*;

    pub(in crate::spec) static KIND: Field = Field::new(
        "kind",
        Kind::OneOf(&["auto", "image", "audio", "text", "features"]),
        "image",
        "what the column holds; `auto` decides by the column's type and its first value",
    )
    .default("auto");
    pub(in crate::spec) static HEIGHT: Field = Field::new(
        "height",
        Kind::Whole(1, SIZE),
        "28",
        "images are resized to it; by default that of the first image",
    )
    .default("null")
    .unit("pixels");
    pub(in crate::spec) static WIDTH: Field =
        Field::new("width", Kind::Whole(1, SIZE), "28", "images are resized to it; by default that of the first image")
            .default("null")
            .unit("pixels");
    pub(in crate::spec) static CHANNELS: Field =
        Field::new("channels", Kind::OneOf(&["1", "3"]), "1", "1 for grey images, 3 for RGB").default("3");
    pub(in crate::spec) static FRAMES: Field = Field::new(
        "frames",
        Kind::Whole(1, 256),
        "3",
        "the number of images taken from each clip (a list of images), evenly spread; a shorter clip repeats images; \
         1 takes the middle one",
    )
    .default("1")
    .unit("frames");
    pub(in crate::spec) static SAMPLE_RATE: Field = Field::new(
        "sample_rate",
        Kind::Whole(1_000, 192_000),
        "8000",
        "the sample rate to which recordings are converted",
    )
    .default("16000")
    .unit("Hz");
    pub(in crate::spec) static SECONDS: Field = Field::new(
        "seconds",
        Kind::Seconds,
        "1.5 s",
        "the length to which recordings are truncated or padded with silence",
    )
    .default("1 s")
    .unit("s");
    pub(in crate::spec) static MELS: Field =
        Field::new("mels", Kind::Whole(1, 1024), "64", "the number of bands of the log-mel spectrogram")
            .default("64")
            .unit("bands");
    pub(in crate::spec) static WINDOW: Field =
        Field::new("window", Kind::Whole(16, SIZE), "256", "the length of a Fourier window; a power of two")
            .default("512")
            .unit("samples");
    pub(in crate::spec) static HOP: Field = Field::new(
        "hop",
        Kind::Whole(1, SIZE),
        "128",
        "the distance from one Fourier window to the next; at most `window`",
    )
    .default("256")
    .unit("samples");
    pub(in crate::spec) static TOKENIZER: Field = Field::new(
        "tokenizer",
        Kind::Other("`byte` or the path or URL of a file that ends in .json"),
        "byte",
        "how text is split into tokens: `byte` for UTF-8 bytes, or the file of a Hugging Face tokenizer",
    )
    .default("byte");
    pub(in crate::spec) static MAX_TOKENS: Field =
        Field::new("max_tokens", Kind::Whole(1, SIZE), "128", "the number of tokens after which a text is truncated")
            .default("128")
            .unit("tokens");
    pub(in crate::spec) static STANDARDISE: Field = Field::new(
        "standardise",
        Kind::Flag,
        "true",
        "whether to subtract the training split's mean and divide by its standard deviation",
    )
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
        "the network; `auto` means `mlp` for features, `cnn` for images and audio, `text` for text",
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
        "the number format of the values between layers; `bf16` halves their memory and needs a CUDA device; \
         parameters stay in f32",
    )
    .default("f32");
    pub(in crate::spec) static HIDDEN: Field = Field::new(
        "hidden",
        Kind::Wholes { count: (0, 16), each: (1, SIZE) },
        "[256, 128]",
        "the widths of the hidden layers",
    )
    .default("[128]")
    .unit("units");
    pub(in crate::spec) static CHANNELS: Field = Field::new(
        "channels",
        Kind::Wholes { count: (1, 16), each: (1, 8192) },
        "[16, 32, 64]",
        "the channels of each stage; every stage halves height and width",
    )
    .default("[16, 32, 64]")
    .unit("channels");
    pub(in crate::spec) static WIDTH: Field = Field::new(
        "width",
        Kind::Whole(1, SIZE),
        "64",
        "the width of the embedding and of the transformer blocks; a multiple of `heads`",
    )
    .default("64")
    .unit("units");
    pub(in crate::spec) static LAYERS: Field =
        Field::new("layers", Kind::Whole(1, 128), "2", "the number of transformer blocks").default("2").unit("blocks");
    pub(in crate::spec) static HEADS: Field =
        Field::new("heads", Kind::Whole(1, 256), "4", "the number of attention heads in each block")
            .default("4")
            .unit("heads");
    pub(in crate::spec) static DROPOUT: Field =
        Field::new("dropout", Kind::Share, "0.1", "the share of units that are set to zero in training").default("0");
    pub(in crate::spec) static VIT_SIZE: Field = Field::new(
        "size",
        Kind::OneOf(&["tiny", "small", "base"]),
        "small",
        "the size of the network; width, blocks and heads are 192, 12, 3 for `tiny`, 384, 12, 6 for `small`, 768, 12, \
         12 for `base`",
    )
    .default("small");
    pub(in crate::spec) static PATCH: Field = Field::new(
        "patch",
        Kind::Whole(1, 64),
        "16",
        "the height and width of a patch; images' sides and the number of mel bands must be multiples of it",
    )
    .default("16")
    .unit("pixels");
    pub(in crate::spec) static POOLING: Field = Field::new(
        "pooling",
        Kind::OneOf(&["cls", "mean"]),
        "cls",
        "how token features become one vector: `cls` takes the extra first token, `mean` averages the others",
    )
    .default("cls");
    pub(in crate::spec) static BERT_SIZE: Field = Field::new(
        "size",
        Kind::OneOf(&["tiny", "mini", "small", "medium", "base"]),
        "base",
        "the size of the network; width, layers and heads are 128, 2, 2 for `tiny`, 256, 4, 4 for `mini`, 512, 4, 8 \
         for `small`, 512, 8, 8 for `medium`, 768, 12, 12 for `base`",
    )
    .default("base");
    pub(in crate::spec) static BERT_DROPOUT: Field =
        Field::new("dropout", Kind::Share, "0.1", "the share of units that are set to zero in training").default("0.1");
}

/// `encoder`, for all kinds: its pretrained weights, and which parameters are trained.
pub(in crate::spec) mod transfer {
    use super::*;

    pub(in crate::spec) static WEIGHTS: Field = Field::new(
        "weights",
        Kind::Other("a path or URL, or a mapping with `from`"),
        "{from: resnet18.pth, strict: true}",
        "pretrained weights from which the encoder starts; without them it starts from random weights",
    )
    .default("null");
    pub(in crate::spec) static FROM: Field =
        Field::new("from", Kind::Text, "s3://models/resnet18.pth", "the path or URL of a safetensors or PyTorch file");
    pub(in crate::spec) static SHA256: Field = Field::new(
        "sha256",
        Kind::Other("64 lower-case hexadecimal digits"),
        "5c106cde386e87d4033832f2996f5493238eda96ccf559d1d62760c4de0613f8",
        "the expected SHA-256 of the file; a file with a different one is rejected",
    )
    .default("null");
    pub(in crate::spec) static STRICT: Field = Field::new(
        "strict",
        Kind::Flag,
        "false",
        "whether the file must hold exactly the encoder's parameters, except those of the adapter; with `false` every \
         parameter that fits is loaded",
    )
    .default("true");
    pub(in crate::spec) static FREEZE: Field = Field::new(
        "freeze",
        Kind::Other("a name pattern, such as conv1.*, or a list of them"),
        r#"["conv1.*", "layer1.*"]"#,
        "names of parameters that are not trained; `*` matches any characters and `?` one character",
    )
    .default("[]");
    pub(in crate::spec) static ADAPTER_LR: Field = Field::new(
        "adapter_lr",
        above(0.0),
        "10",
        "the learning rate of the adapter (the encoder's last layer), as a multiple of the optimizer's `lr`",
    )
    .default("1");
}
