//! `antiphon bench turn`: the overhead of a turn beyond the computation of the head.

mod echo;

use std::sync::Arc;

use antiphon_coordinator::config::Config;
use antiphon_coordinator::edge::server;
use antiphon_coordinator::registry::Coordinator;
use antiphon_coordinator::registry::Submission;
use antiphon_core::head::{SharedHead, StepContext};
use antiphon_core::ids::{MicroShard, ModalityName};
use antiphon_core::spec::{JobSpec, parse};
use antiphon_proto::assignment::HeadShape;
use antiphon_proto::{contribution, v1};
use anyhow::{Context as _, anyhow};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::head_worker::{self, Batch, HeadWorker, Sent};
use super::rows::Rows;
use crate::exit::{Exit, OrExit as _};
use crate::lab::statistics::Quantiles;
use crate::output::Format;
use echo::Echo;

const MODALITIES: [&str; 2] = ["a", "b"];

/// Measure the overhead of a turn beyond the computation of the head
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon bench turn                      three common heads
  antiphon bench turn 101x768x64 --turns 5000
  antiphon bench turn 20000x4096x64 --turns 20 --format json

A head is given as classes x width x samples per batch. Two workers without encoders train it in turns over gRPC on the loopback \
interface. A turn lasts from one contribution to the next.

  maths   what worker and coordinator compute in a turn, in a plain loop:
          logits, loss, gradients, projection, optimizer
  fold    the update of the projector, which runs while the next worker computes
  echo    round trip of the same number of bytes over a bare gRPC stream
  added   transport, checks and bookkeeping: median and p99 of turn, each minus
          the median of maths

Times are in milliseconds, in JSON in seconds. Run it on an idle machine; otherwise maths and turns are not comparable.")]
pub struct TurnArgs {
    /// Heads to measure, for example `101x768x64` [default: three common ones]
    #[arg(value_name = "CLASSESxWIDTHxBATCH")]
    pub heads: Vec<Size>,

    /// Turns to measure for each head, after a tenth as many to warm up
    #[arg(long, default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(u64).range(10..=10_000_000))]
    pub turns: u64,

    /// Memory limit of a head with its projector, optimizer and messages, in MiB
    #[arg(long, default_value_t = 4096, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub head_memory: u64,
}

/// The sizes of heads in published experiments, and a larger one.
const USUAL: [Size; 3] = [Size::of(10, 512, 64), Size::of(101, 768, 64), Size::of(1000, 2048, 64)];

/// A head and the batches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    head: HeadShape,
    samples: u32,
}

impl Size {
    const fn of(classes: usize, width: usize, samples: u32) -> Self {
        Self { head: HeadShape { classes, width }, samples }
    }
}

impl std::str::FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write classes (2 or more) x width x samples of a batch, as in 101x768x64".to_owned();
        let numbers: Result<Vec<u32>, _> = text.split('x').map(str::parse).collect();
        match numbers.map_err(|_| wrong())?.as_slice() {
            [classes @ (2..), width @ (1..), samples @ (1..)] => {
                Ok(Self::of(*classes as usize, *width as usize, *samples))
            }
            _ => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.head.classes, self.head.width, self.samples)
    }
}

/// One line of the table. Times are in seconds.
#[derive(Debug, Serialize)]
struct Row {
    event: &'static str,
    bench: &'static str,
    head: String,
    /// The content of a contribution: `gradient` (G) or `factors` (D and H).
    sends: &'static str,
    /// Size of a grant in bytes.
    bytes_down: usize,
    /// Size of a contribution in bytes.
    bytes_up: usize,
    turns: u64,
    turns_per_second: f64,
    maths: Quantiles,
    fold: Quantiles,
    echo: Quantiles,
    turn: Quantiles,
    /// The turn at p50 minus the maths at p50.
    added_p50: f64,
    /// The turn at p99 minus the maths at p50.
    added_p99: f64,
}

/// Runs the command.
///
/// # Errors
/// The coordinator or a worker fails.
pub(super) async fn run(args: TurnArgs, format: Format) -> anyhow::Result<Exit> {
    let sizes = if args.heads.is_empty() { USUAL.to_vec() } else { args.heads.clone() };
    let mut rows = Rows::new(format)?;
    for size in sizes {
        let measuring = measure(size, args.turns, args.head_memory << 20);
        if rows.next("measuring turns", measuring, |_| Row::head(), Row::line).await?.is_none() {
            return Ok(Exit::Interrupted);
        }
    }
    Ok(Exit::Success)
}

async fn measure(size: Size, turns: u64, head_memory: u64) -> anyhow::Result<Row> {
    let warmup = (turns / 10).max(2);
    let text = head_worker::job(size.head, size.samples, &MODALITIES, warmup + turns + 1);
    let spec = parse(&text, "a job with this head", &[], &|_| None).or_exit(Exit::Usage)?;
    let config = Config { state: "memory://bench".to_owned(), head_memory, ..Config::default() };
    let coordinator = Coordinator::new(config);
    // A head that is too large is refused before it is allocated.
    let submission = Submission { specification: text, job: None, resume: None, request: None };
    coordinator.submit(submission).await.or_exit(Exit::Usage)?;
    let alone = tokio::task::spawn_blocking(move || maths(&spec, size, warmup, turns));
    let Alone { maths, fold, grant, contribution } = alone.await??;
    let sends = match &contribution.gradient {
        Some(v1::contribution::Gradient::Factors(_)) => "factors",
        _ => "gradient",
    };
    let (bytes_down, bytes_up) = (prost::Message::encoded_len(&grant), prost::Message::encoded_len(&contribution));
    let echo = Echo { grant, contribution }.round_trips(warmup, turns).await?;
    let turn = turns_over_grpc(size, coordinator, warmup).await?;
    Ok(Row {
        event: "bench",
        bench: "turn",
        head: size.to_string(),
        sends,
        bytes_down,
        bytes_up,
        turns,
        turns_per_second: 1.0 / turn.mean,
        maths,
        fold,
        echo,
        turn,
        added_p50: turn.p50 - maths.p50,
        added_p99: turn.p99 - maths.p50,
    })
}

/// The times of the head in a plain loop, and the messages of one of its turns.
struct Alone {
    maths: Quantiles,
    fold: Quantiles,
    grant: v1::Grant,
    contribution: v1::Contribution,
}

fn maths(spec: &JobSpec, size: Size, warmup: u64, turns: u64) -> anyhow::Result<Alone> {
    let mut head = SharedHead::<f32>::new(&spec.head, size.head.classes, spec.seed);
    let batches = MODALITIES.map(|modality| Batch::random(size.head, size.samples, modality));
    let names: Vec<ModalityName> = spec.modalities.iter().map(|modality| modality.name.clone()).collect();
    let (mut maths, mut folds, mut last) = (Vec::new(), Vec::new(), None);
    for turn in 0..warmup + turns {
        let which = turn as usize % MODALITIES.len();
        let started = Instant::now();
        let contribution = head_worker::contribute(head.head(), &batches[which])?;
        head.apply(&names[which], &contribution, StepContext { lr_factor: 1.0, alpha: 0.05 })?;
        let stepped = Instant::now();
        head.end_turn();
        if turn >= warmup {
            maths.push(stepped.duration_since(started).as_secs_f64());
            folds.push(stepped.elapsed().as_secs_f64());
        }
        last = Some(contribution);
    }
    let last = last.context("no turn was taken")?;
    let turn = echo::turn();
    let grant = antiphon_proto::assignment::Grant {
        turn: turn.clone(),
        lease: antiphon_core::ids::Lease(0),
        head: head.share(),
        progress: 0.0,
        epochs: 1.0,
        replay: false,
    };
    Ok(Alone {
        maths: Quantiles::of(maths),
        fold: Quantiles::of(folds),
        grant: grant.encode(),
        contribution: contribution::encode(&turn, MicroShard::WHOLE, last),
    })
}

/// Measures turns of two head workers at a real coordinator.
async fn turns_over_grpc(size: Size, coordinator: Coordinator, warmup: u64) -> anyhow::Result<Quantiles> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on 127.0.0.1")?;
    let url = format!("http://{}", listener.local_addr()?);
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(server::serve_coordinator(coordinator, listener, shutdown.clone()));
    let serves = shutdown.drop_guard();
    let mut threads = Vec::new();
    for modality in MODALITIES {
        let (name, modality) = (format!("bench-{modality}"), modality.to_owned());
        let worker = HeadWorker {
            name,
            modality,
            coordinator: url.clone(),
            of: size.head,
            samples: size.samples,
            steps: Arc::default(),
        };
        threads.push(worker.spawn_thread()?);
    }
    let mut sent: Vec<Sent> = Vec::new();
    for thread in threads {
        let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
        sent.extend(joined.map_err(|_| anyhow!("a worker of the bench panicked"))??.sent);
    }
    drop(serves);
    serving.await??;
    sent.sort_by_key(|sent| sent.turn);
    let lasted = sent.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at).as_secs_f64());
    Ok(Quantiles::of(lasted.skip(warmup as usize).collect()))
}

impl Row {
    fn head() -> String {
        format!(
            "times in ms\n{:<18}{:>9}{:>11}{:>11}   {:>18} {:>9}   {:>18}   {:>18}   {:>18} {:>9}",
            "head",
            "sends",
            "down",
            "up",
            "maths p50   p99",
            "fold p50",
            "echo p50   p99",
            "turn p50   p99",
            "added p50   p99",
            "turns/s"
        )
    }

    fn line(&self) -> String {
        let pair = |p50: f64, p99: f64| format!("{:>9} {:>8}", milliseconds(p50), milliseconds(p99));
        let both = |quantiles: Quantiles| pair(quantiles.p50, quantiles.p99);
        format!(
            "{:<18}{:>9}{:>7} KiB{:>7} KiB   {} {:>9}   {}   {}   {} {:>9.0}",
            self.head,
            self.sends,
            self.bytes_down >> 10,
            self.bytes_up >> 10,
            both(self.maths),
            milliseconds(self.fold.p50),
            both(self.echo),
            both(self.turn),
            pair(self.added_p50, self.added_p99),
            self.turns_per_second,
        )
    }
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.3}", 1e3 * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_parsed_as_it_is_printed() {
        let size: Size = "101x768x64".parse().expect("a size");
        assert_eq!((size, size.to_string().as_str()), (Size::of(101, 768, 64), "101x768x64"));
        for text in ["", "1x2x3", "3x0x1", "3x4", "3x4x5x6", "axbxc", "3x4x-1"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn turns_of_a_small_head_are_measured() {
        let row = measure(Size::of(3, 8, 4), 30, 1 << 20).await.expect("a measurement");
        assert_eq!((row.turns, row.sends), (30, "gradient"));
        assert!(row.bytes_down > 3 * 8 * 4 && row.bytes_up > 3 * 8 * 4, "{row:?}");
        for quantiles in [row.maths, row.echo, row.turn] {
            assert!(quantiles.p50 > 0.0 && quantiles.p99 >= quantiles.p50, "{row:?}");
        }
    }
}
