//! `antiphon predict CHECKPOINT`: the predictions of a checkpoint for every sample.

use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::damage::with_undamaged;
use crate::context::Context;
use crate::exit::{Exit, OrExit as _};
use crate::output::{self, Format};
use crate::predictor::{self, Labels, OutputFile, Prediction, Predictor, Source, exit_of, write_line};
use crate::progress::{Progress, until_interrupted};

/// Predict with a checkpoint
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon predict antiphon-runs/JOB --data 'new/*.parquet'
  antiphon predict antiphon-runs/JOB --data new.parquet --output out.parquet
  antiphon predict runs/JOB --data audio=a.parquet --data text=t.parquet
  antiphon predict runs/JOB --data new.parquet --drop audio --fusion mean

Each sample is one JSON line (here on two), in ascending order of id:
  {\"id\":\"a7\",\"label\":3,\"prediction\":3,\"probabilities\":[…],
   \"modalities\":{\"audio\":{\"lambda\":0.6,\"entropy\":0.2},…}}

label is null if the data have none. label_class and prediction_class are added if the job names its classes. A modality that a \
sample lacks has lambda 0 and entropy null. Parquet files have the columns id, label, prediction and probabilities, and lambda_M \
and entropy_M for each modality M. Samples without any of the modalities are left out.")]
pub struct PredictArgs {
    /// The checkpoint and its data
    #[command(flatten)]
    pub source: Source,

    /// File to write: .jsonl for JSON lines, .parquet for Parquet; it appears once it is complete
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Overwrite the file if it exists
    #[arg(long, requires = "output")]
    pub force: bool,

    /// Do not read labels, even if the data have them
    #[arg(long)]
    pub no_labels: bool,
}

/// Runs the command.
///
/// # Errors
/// A checkpoint that is missing or damaged, options that do not fit it, data that cannot be read, a file that cannot be
/// written.
pub async fn run(args: PredictArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = context.format;
    if let Some(file) = &args.output {
        OutputFile::check(file, args.force).or_exit(Exit::Usage)?;
    }
    let progress = Progress::new();
    let shown = progress.clone();
    let given = args.source.checkpoint.clone();
    let labels = if args.no_labels { Labels::Ignored } else { Labels::Optional };
    let open = async {
        let predictor = predictor::open(args.source, labels, &context.encoders, &progress).await?;
        // An invalid rule is reported before the first prediction.
        predictor.rule().or_exit(Exit::Usage)?;
        Ok(predictor)
    };
    let (file, force) = (args.output.clone(), args.force);
    let done = until_interrupted(open, move |predictor, cancelled| {
        let mut sink = match file {
            None => Sink::Standard(BufWriter::new(io::stdout())),
            Some(file) => {
                let (modalities, classes) = (predictor.modalities(), &predictor.spec().labels.classes);
                Sink::File(Box::new(OutputFile::create(&file, force, &modalities, classes).or_exit(Exit::Usage)?))
            }
        };
        let Some(samples) = predict(&predictor, &mut sink, &shown, cancelled)? else { return Ok(None) };
        sink.finish()?;
        Ok(Some((samples, predictor.checkpoint().url())))
    });
    let done = done.await;
    progress.clear();
    let done = match done {
        Ok(done) => done,
        Err(error) => {
            let predict =
                |url: &str| format!("predict with it: `{} predict {}`", output::program(), output::quoted(url));
            return Err(with_undamaged(error, &given, &context.stores, predict).await);
        }
    };
    let Some((samples, checkpoint)) = done else { return Ok(Exit::Interrupted) };
    let Some(file) = args.output else { return Ok(Exit::Success) };
    let file = file.display().to_string();
    match format {
        Format::Json => {
            output::json(&json!({"event": "predicted", "checkpoint": checkpoint, "samples": samples, "output": file}))?
        }
        Format::Text => output::line(&format!("{samples} predictions in {file}"))?,
    }
    Ok(Exit::Success)
}

/// The destination of predictions.
enum Sink {
    Standard(BufWriter<io::Stdout>),
    File(Box<OutputFile>),
}

impl Sink {
    fn write(&mut self, prediction: &Prediction) -> anyhow::Result<()> {
        match self {
            Self::Standard(out) => write_line(out, prediction),
            Self::File(file) => file.write(prediction).context("cannot write predictions"),
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Standard(mut out) => Ok(out.flush()?),
            Self::File(file) => file.finish(),
        }
    }
}

/// Predicts the split and returns the number of predictions; None if it was cancelled.
fn predict(
    predictor: &Predictor,
    sink: &mut Sink,
    progress: &Progress,
    cancelled: &CancellationToken,
) -> anyhow::Result<Option<u64>> {
    let (rule, modalities) = (predictor.rule().or_exit(Exit::Usage)?, predictor.modalities());
    progress.begin("predicting", predictor.rows());
    let (mut samples, mut count) = (predictor.samples(), 0);
    while let Some(sample) = samples.next() {
        if cancelled.is_cancelled() {
            return Ok(None);
        }
        let sample = sample.map_err(exit_of)?;
        sink.write(&Prediction::of(&sample, &rule, &modalities, &predictor.spec().labels.classes))?;
        count += 1;
        progress.at(samples.rows());
    }
    Ok(Some(count))
}
