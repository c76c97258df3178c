//! A bare gRPC stream that carries the bytes of a turn: a contribution to the server, a grant to the client.

use std::pin::Pin;

use antiphon_core::ids::{Attempt, HeadVersion, Step, Term, Turn, TurnRef};
use antiphon_proto::chunks::{Assembled, Assembler, chunked};
use antiphon_proto::v1::coordinator_message::Message as Told;
use antiphon_proto::v1::training_service_client::TrainingServiceClient;
use antiphon_proto::v1::training_service_server::{TrainingService, TrainingServiceServer};
use antiphon_proto::v1::worker_message::Message;
use antiphon_proto::{MESSAGE_LIMIT, v1};
use antiphon_transport::{Dial, KeepAlive, incoming};
use anyhow::Context as _;
use futures::{Stream, StreamExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::lab::statistics::Quantiles;

/// The two messages of a turn.
#[derive(Debug, Clone)]
pub(super) struct Echo {
    pub(super) grant: v1::Grant,
    pub(super) contribution: v1::Contribution,
}

/// Answers every contribution with the same grant.
struct Server {
    grant: v1::Grant,
}

type Outbound = Pin<Box<dyn Stream<Item = Result<v1::CoordinatorMessage, Status>> + Send>>;

#[tonic::async_trait]
impl TrainingService for Server {
    type TrainStream = Outbound;

    async fn train(&self, request: Request<Streaming<v1::WorkerMessage>>) -> Result<Response<Outbound>, Status> {
        let mut inbound = request.into_inner();
        let (answers, queued) = mpsc::channel(8);
        let grant = self.grant.clone();
        tokio::spawn(async move {
            let mut assembler = Assembler::default();
            while let Ok(Some(envelope)) = inbound.message().await {
                let Ok(Assembled::Whole(..)) = assembler.take(envelope, usize::MAX) else { continue };
                let answer = v1::CoordinatorMessage::from(Told::Grant(grant.clone()));
                if answers.send(answer).await.is_err() {
                    return;
                }
            }
        });
        let answers = ReceiverStream::new(queued).flat_map(|answer| futures::stream::iter(chunked(answer).map(Ok)));
        Ok(Response::new(Box::pin(answers)))
    }
}

impl Echo {
    /// Measures the times from a contribution to its answer.
    pub(super) async fn round_trips(self, warmup: u64, measured: u64) -> anyhow::Result<Quantiles> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on 127.0.0.1")?;
        let url = format!("http://{}", listener.local_addr()?);
        let service = TrainingServiceServer::new(Server { grant: self.grant.clone() })
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        let serving =
            tokio::spawn(antiphon_transport::server().add_service(service).serve_with_incoming(incoming(listener)));
        // The client runs on a separate thread, as a worker does.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = std::thread::spawn(move || runtime.block_on(self.go_round(&url, warmup, measured)));
        let times = tokio::task::spawn_blocking(move || client.join()).await?;
        serving.abort();
        times.map_err(|_| anyhow::anyhow!("the client of the echo panicked"))?
    }

    async fn go_round(self, url: &str, warmup: u64, measured: u64) -> anyhow::Result<Quantiles> {
        let channel = Dial::new(url, KeepAlive::Streams)?.lazy();
        let mut client = TrainingServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        let (outbound, queued) = mpsc::channel(8);
        let messages =
            ReceiverStream::new(queued).flat_map(|message: v1::WorkerMessage| futures::stream::iter(chunked(message)));
        let mut inbound = client.train(messages).await?.into_inner();
        let (mut assembler, mut times) = (Assembler::default(), Vec::new());
        for round in 0..warmup + measured {
            let started = Instant::now();
            outbound
                .send(Message::Contribution(self.contribution.clone()).into())
                .await
                .context("the echo server has ended")?;
            loop {
                let envelope = inbound.message().await?.context("the echo server ended its stream")?;
                if let Assembled::Whole(..) = assembler.take(envelope, usize::MAX)? {
                    break;
                }
            }
            if round >= warmup {
                times.push(started.elapsed().as_secs_f64());
            }
        }
        Ok(Quantiles::of(times))
    }
}

/// The turn that the messages name.
pub(super) fn turn() -> TurnRef {
    TurnRef {
        job: "bench".try_into().expect("a good id"),
        term: Term(1),
        turn: Turn(0),
        step: Step(0),
        attempt: Attempt(0),
        head_version: HeadVersion(0),
    }
}
