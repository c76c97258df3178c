//! `antiphon.v1.TrainingService`: workers connect here.

use std::pin::Pin;

use antiphon_proto::chunks::chunked;
use antiphon_proto::service_error::status;
use antiphon_proto::v1::{self, coordinator_message, training_service_server::TrainingService};
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::error::{first_message_status, session_status};
use crate::registry::Coordinator;
use crate::workers::pool::Registration;
use crate::workers::session::{OUTBOX, Session, SessionEnd, first_message};

/// The service over a coordinator.
#[derive(Clone)]
pub struct Training {
    /// The coordinator that the workers register with.
    pub coordinator: Coordinator,
    /// Ends every stream.
    pub closing: CancellationToken,
}

type Outbound = Pin<Box<dyn Stream<Item = Result<v1::CoordinatorMessage, Status>> + Send>>;

#[tonic::async_trait]
impl TrainingService for Training {
    type TrainStream = Outbound;

    async fn train(&self, request: Request<Streaming<v1::WorkerMessage>>) -> Result<Response<Outbound>, Status> {
        let mut inbound = request.into_inner();
        let register = first_message(&mut inbound).await.map_err(first_message_status)?;
        let (worker, modality, device) = (&register.worker, &register.modality, &register.device);
        tracing::info!(%worker, %modality, device, "a worker asks to register");
        let registration = self.coordinator.register(register.worker, register.modality).map_err(status)?;
        Ok(Response::new(self.open(registration, inbound)))
    }
}

impl Training {
    /// Starts the worker's session, which outlives this call.
    fn open(&self, registration: Registration, inbound: Streaming<v1::WorkerMessage>) -> Outbound {
        let config = self.coordinator.config();
        let (outbound, queued) = mpsc::channel(OUTBOX);
        let (ended, end) = oneshot::channel();
        let registered = v1::Registered {
            term: self.coordinator.term().0,
            heartbeat_interval_ms: u64::try_from(config.heartbeat.as_millis()).unwrap_or(u64::MAX),
        };
        outbound
            .try_send(coordinator_message::Message::Registered(registered).into())
            .expect("a new channel has room for one message");
        let session =
            Session { registration, inbound, outbound, silence: config.silence(), closing: self.closing.clone() };
        tokio::spawn(session.run(ended));
        // A large head is split while it is sent, so that at most one chunk of it is in memory twice.
        let messages = stream::unfold(Some((queued, end)), next_message);
        Box::pin(messages.flat_map(|message| match message {
            Ok(message) => stream::iter(chunked(message).map(Ok)).left_stream(),
            Err(status) => stream::iter([Err(status)]).right_stream(),
        }))
    }
}

type Queue = Option<(mpsc::Receiver<v1::CoordinatorMessage>, oneshot::Receiver<SessionEnd>)>;

/// The next message. After the last one, the reason for the end of the session, if the worker should know it.
async fn next_message(queue: Queue) -> Option<(Result<v1::CoordinatorMessage, Status>, Queue)> {
    let (mut queued, mut end) = queue?;
    let end = tokio::select! {
        biased;
        message = queued.recv() => match message {
            Some(message) => return Some((Ok(message), Some((queued, end)))),
            None => end.await,
        },
        end = &mut end => end,
    };
    end.ok().and_then(session_status).map(|status| (Err(status), None))
}
