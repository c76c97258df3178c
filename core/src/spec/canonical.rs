//! A job in canonical form: every field, in the spelling of a job file, as JSON that [`super::parse`] reads back.
//!
//! The modalities are a list, because their order matters and JSON objects have no order.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::SpecErrors;
use super::json::Json;
use super::model::*;
use super::variables::escape;

impl JobSpec {
    /// The job with every default filled in, on one line. The same job gives the same bytes.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.canonical().to_string()
    }

    /// Reads what [`Self::to_json`] wrote. Variables in the text are not set.
    ///
    /// # Errors
    /// As [`super::parse`]; messages call the text `job`.
    pub fn from_json(text: &str) -> Result<Self, SpecErrors> {
        super::parse_any(text, "job")
    }

    fn canonical(&self) -> Json {
        Json::map([
            ("name", Json::text(self.name.as_str())),
            ("seed", self.seed.into()),
            ("modalities", Json::List(self.modalities.iter().map(modality).collect())),
            ("labels", Json::map([("column", text(&self.labels.column)), ("classes", classes(&self.labels.classes))])),
            ("head", head(&self.head)),
            ("schedule", schedule(&self.schedule)),
            ("fusion", fusion(&self.fusion)),
            ("checkpoints", checkpoints(&self.checkpoints)),
            ("evaluation", evaluation(&self.evaluation)),
        ])
    }
}

impl Serialize for JobSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.canonical().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JobSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = serde_json::Value::deserialize(deserializer)?;
        Self::from_json(&json.to_string()).map_err(serde::de::Error::custom)
    }
}

fn text(text: &str) -> Json {
    Json::Text(escape(text))
}

fn texts(items: &[String]) -> Json {
    Json::List(items.iter().map(|item| text(item)).collect())
}

fn modality(modality: &ModalitySpec) -> Json {
    let WorkerRange { min, max } = modality.workers;
    Json::map([
        ("name", Json::text(modality.name.as_str())),
        ("data", data(&modality.data)),
        ("input", input(&modality.input)),
        ("encoder", encoder(modality)),
        ("optimizer", optimizer(&modality.optimizer)),
        ("workers", Json::map([("min", min.into()), ("max", max.into())])),
    ])
}

fn data(data: &DataSpec) -> Json {
    match data {
        DataSpec::Parquet { train, validation, test, column, id } => Json::map([
            ("source", Json::text("parquet")),
            ("train", texts(train)),
            (
                "validation",
                match validation {
                    ValidationSource::Files(files) => texts(files),
                    ValidationSource::Fraction(share) => (*share).into(),
                },
            ),
            ("test", texts(test)),
            ("column", text(column)),
            ("id", id.as_deref().map_or(Json::Null, text)),
        ]),
        DataSpec::Synth { kind, column, samples, missing, seed } => Json::map([
            ("source", Json::text("synth")),
            ("kind", Json::text(kind.name())),
            ("column", text(column)),
            (
                "samples",
                Json::map([
                    ("train", samples.train.into()),
                    ("validation", samples.validation.into()),
                    ("test", samples.test.into()),
                ]),
            ),
            ("missing", (*missing).into()),
            ("seed", (*seed).into()),
        ]),
    }
}

fn input(input: &InputSpec) -> Json {
    match input {
        InputSpec::Auto => Json::map([("kind", Json::text("auto"))]),
        InputSpec::Image { height, width, channels, frames } => {
            let mut fields = vec![
                ("kind", Json::text("image")),
                ("height", (*height).into()),
                ("width", (*width).into()),
                ("channels", (*channels).into()),
            ];
            // The JSON of jobs with single images stays as it was before clips existed.
            if *frames > 1 {
                fields.push(("frames", (*frames).into()));
            }
            Json::map(fields)
        }
        InputSpec::Audio { sample_rate, seconds, mels, window, hop } => Json::map([
            ("kind", Json::text("audio")),
            ("sample_rate", (*sample_rate).into()),
            ("seconds", (*seconds).into()),
            ("mels", (*mels).into()),
            ("window", (*window).into()),
            ("hop", (*hop).into()),
        ]),
        InputSpec::Text { tokenizer, max_tokens } => Json::map([
            ("kind", Json::text("text")),
            (
                "tokenizer",
                match tokenizer {
                    TokenizerSpec::Byte => Json::text("byte"),
                    TokenizerSpec::File(path) => text(path),
                },
            ),
            ("max_tokens", (*max_tokens).into()),
        ]),
        InputSpec::Features { standardise } => {
            Json::map([("kind", Json::text("features")), ("standardise", Json::Flag(*standardise))])
        }
    }
}

fn encoder(ModalitySpec { encoder, transfer, precision, .. }: &ModalitySpec) -> Json {
    let mut fields = vec![("kind", Json::text(encoder.kind()))];
    fields.extend(network(encoder));
    let weights = |WeightsSpec { from, sha256, strict }: &WeightsSpec| {
        Json::map([
            ("from", text(from)),
            ("sha256", sha256.as_deref().map_or(Json::Null, Json::text)),
            ("strict", Json::Flag(*strict)),
        ])
    };
    fields.push(("weights", transfer.weights.as_ref().map_or(Json::Null, weights)));
    fields.push(("freeze", texts(&transfer.freeze)));
    fields.push(("adapter_lr", transfer.adapter_lr.into()));
    fields.push(("precision", Json::text(precision.name())));
    Json::map(fields)
}

fn network(encoder: &EncoderSpec) -> Vec<(&'static str, Json)> {
    match encoder {
        EncoderSpec::Auto | EncoderSpec::Resnet { .. } => Vec::new(),
        EncoderSpec::Custom { options, .. } => vec![("options", Json::from(options))],
        EncoderSpec::Mlp { hidden, dropout } => {
            vec![("hidden", hidden.as_slice().into()), ("dropout", (*dropout).into())]
        }
        EncoderSpec::Cnn { channels, dropout } => {
            vec![("channels", channels.as_slice().into()), ("dropout", (*dropout).into())]
        }
        EncoderSpec::Text { width, layers, heads, dropout } => vec![
            ("width", (*width).into()),
            ("layers", (*layers).into()),
            ("heads", (*heads).into()),
            ("dropout", (*dropout).into()),
        ],
        EncoderSpec::Vit { size, patch, pooling, dropout } => vec![
            ("size", Json::text(size.name())),
            ("patch", (*patch).into()),
            ("pooling", Json::text(pooling.name())),
            ("dropout", (*dropout).into()),
        ],
        EncoderSpec::Bert { size, pooling, dropout } => vec![
            ("size", Json::text(size.name())),
            ("pooling", Json::text(pooling.name())),
            ("dropout", (*dropout).into()),
        ],
    }
}

fn classes(classes: &Classes) -> Json {
    match classes {
        Classes::Count(count) => (*count).into(),
        Classes::Names(names) => texts(names),
    }
}

fn head(head: &HeadSpec) -> Json {
    Json::map([
        ("width", head.width.into()),
        ("projection", projection(&head.projection)),
        ("optimizer", optimizer(&head.optimizer)),
    ])
}

fn projection(projection: &ProjectionSpec) -> Json {
    let apply = |to: &ApplyTo| Json::text(if *to == ApplyTo::Update { "update" } else { "gradient" });
    match projection {
        ProjectionSpec::Off => Json::map([("kind", Json::text("off"))]),
        ProjectionSpec::Rls { alpha, reset, apply_to } => Json::map([
            ("kind", Json::text("rls")),
            (
                "alpha",
                match alpha {
                    Alpha::Constant(alpha) => (*alpha).into(),
                    Alpha::Decay => Json::text("decay"),
                },
            ),
            ("reset", Json::text(if *reset == Reset::Epoch { "epoch" } else { "never" })),
            ("apply_to", apply(apply_to)),
        ]),
        ProjectionSpec::Window { alpha, turns, apply_to } => Json::map([
            ("kind", Json::text("window")),
            ("alpha", (*alpha).into()),
            ("turns", (*turns).into()),
            ("apply_to", apply(apply_to)),
        ]),
    }
}

fn optimizer(optimizer: &OptimizerSpec) -> Json {
    let lr = ("lr", optimizer.lr.into());
    let schedule = ("schedule", learning_rate(&optimizer.schedule));
    let clip = ("clip", optimizer.clip.into());
    match &optimizer.rule {
        OptimizerRule::Sgd { momentum, weight_decay } => Json::map([
            ("kind", Json::text("sgd")),
            lr,
            ("momentum", (*momentum).into()),
            ("weight_decay", (*weight_decay).into()),
            schedule,
            clip,
        ]),
        OptimizerRule::Adamw { beta1, beta2, eps, weight_decay } => Json::map([
            ("kind", Json::text("adamw")),
            lr,
            ("beta1", (*beta1).into()),
            ("beta2", (*beta2).into()),
            ("eps", (*eps).into()),
            ("weight_decay", (*weight_decay).into()),
            schedule,
            clip,
        ]),
    }
}

fn learning_rate(schedule: &LearningRateSchedule) -> Json {
    match schedule {
        LearningRateSchedule::Constant { warmup } => {
            Json::map([("kind", Json::text("constant")), ("warmup", (*warmup).into())])
        }
        LearningRateSchedule::Step { at, factor, warmup } => Json::map([
            ("kind", Json::text("step")),
            ("warmup", (*warmup).into()),
            ("at", at.as_slice().into()),
            ("factor", (*factor).into()),
        ]),
        LearningRateSchedule::Cosine { floor, warmup } => {
            Json::map([("kind", Json::text("cosine")), ("warmup", (*warmup).into()), ("floor", (*floor).into())])
        }
    }
}

fn schedule(schedule: &ScheduleSpec) -> Json {
    Json::map([
        match schedule.length {
            Length::Epochs(n) => ("epochs", n.into()),
            Length::Turns(n) => ("turns", n.into()),
        },
        (
            "order",
            match &schedule.order {
                TurnOrder::Cyclic => Json::text("cyclic"),
                TurnOrder::WeakFirst => Json::text("weak-first"),
                TurnOrder::Weighted(turns) => {
                    Json::Map(turns.iter().map(|(name, n)| (name.to_string(), (*n).into())).collect())
                }
            },
        ),
        ("mode", Json::text(schedule.mode.as_str())),
        ("batch", schedule.batch.into()),
        ("turn_batches", schedule.turn_batches.into()),
        ("micro_shards", schedule.micro_shards.into()),
        ("lease_ttl", schedule.lease_ttl.into()),
        ("turn_deadline", schedule.turn_deadline.into()),
    ])
}

fn fusion(fusion: &FusionSpec) -> Json {
    match fusion {
        FusionSpec::Entropy => Json::text("entropy"),
        FusionSpec::Mean => Json::text("mean"),
        FusionSpec::Tuned => Json::text("tuned"),
        FusionSpec::Fixed(weights) => {
            Json::Map(weights.iter().map(|(name, weight)| (name.to_string(), (*weight).into())).collect())
        }
    }
}

fn checkpoints(checkpoints: &CheckpointSpec) -> Json {
    Json::map([
        ("to", checkpoints.to.as_deref().map_or(Json::Null, text)),
        ("every", Json::text(checkpoints.every.to_string())),
        ("keep", checkpoints.keep.into()),
    ])
}

fn evaluation(evaluation: &EvaluationSpec) -> Json {
    Json::map([("every", Json::text(evaluation.every.to_string())), ("chunk", evaluation.chunk.into())])
}
