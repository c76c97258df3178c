//! Large tensors on a stream. A message contains its small tensors, and the elements of the others follow in chunks,
//! which are written to their final memory as they arrive. No gRPC message is larger than a chunk and some names, for a
//! head of any size. Neither end needs more memory than the elements of a tensor and the chunks that the flow control
//! of HTTP/2 allows.

use std::collections::VecDeque;

use bytes::Bytes;

pub use crate::elements::Followed;
use crate::elements::{Elements, F32_BYTES, shape_text};
use crate::error::WireError;
use crate::v1::{self, coordinator_message, worker_message};

/// The largest chunk in bytes. A tensor of at most this size is sent whole.
pub const CHUNK: usize = 1 << 20;

/// An envelope of the training stream.
pub trait Envelope: Sized {
    /// The tensors of its message, each with the path of its field, in the order of the fields.
    fn tensors(&mut self) -> Vec<(&'static str, &mut v1::Tensor)>;
    /// An envelope that holds this chunk.
    fn from_chunk(chunk: v1::TensorChunk) -> Self;
    /// The elements of its chunk.
    ///
    /// # Errors
    /// The envelope itself, if it holds no chunk.
    fn into_chunk(self) -> Result<Bytes, Self>;
    /// Whether it may arrive between a message and its chunks.
    fn may_interrupt(&self) -> bool;
}

impl Envelope for v1::WorkerMessage {
    fn tensors(&mut self) -> Vec<(&'static str, &mut v1::Tensor)> {
        use worker_message::Message;
        match &mut self.message {
            Some(Message::Contribution(contribution)) => {
                let mut tensors = match &mut contribution.gradient {
                    Some(v1::contribution::Gradient::Dense(dense)) => vec![("contribution.dense", dense)],
                    Some(v1::contribution::Gradient::Factors(v1::Factors { errors, features })) => {
                        present([("contribution.factors.errors", errors), ("contribution.factors.features", features)])
                    }
                    None => Vec::new(),
                };
                tensors.extend(present([
                    ("contribution.bias_gradient", &mut contribution.bias_gradient),
                    ("contribution.mean_features", &mut contribution.mean_features),
                ]));
                tensors
            }
            Some(Message::Logits(chunk)) => present([("logits.logits", &mut chunk.logits)]),
            _ => Vec::new(),
        }
    }

    fn from_chunk(chunk: v1::TensorChunk) -> Self {
        Self { message: Some(worker_message::Message::Chunk(chunk)) }
    }

    fn into_chunk(self) -> Result<Bytes, Self> {
        match self.message {
            Some(worker_message::Message::Chunk(chunk)) => Ok(chunk.data),
            _ => Err(self),
        }
    }

    fn may_interrupt(&self) -> bool {
        matches!(self.message, Some(worker_message::Message::Heartbeat(_)))
    }
}

impl Envelope for v1::CoordinatorMessage {
    fn tensors(&mut self) -> Vec<(&'static str, &mut v1::Tensor)> {
        use coordinator_message::Message;
        match &mut self.message {
            Some(Message::Grant(grant)) => {
                present([("grant.weight", &mut grant.weight), ("grant.bias", &mut grant.bias)])
            }
            Some(Message::Evaluate(evaluate)) => {
                present([("evaluate.weight", &mut evaluate.weight), ("evaluate.bias", &mut evaluate.bias)])
            }
            _ => Vec::new(),
        }
    }

    fn from_chunk(chunk: v1::TensorChunk) -> Self {
        Self { message: Some(coordinator_message::Message::Chunk(chunk)) }
    }

    fn into_chunk(self) -> Result<Bytes, Self> {
        match self.message {
            Some(coordinator_message::Message::Chunk(chunk)) => Ok(chunk.data),
            _ => Err(self),
        }
    }

    fn may_interrupt(&self) -> bool {
        false
    }
}

/// The tensors that are set.
fn present<'a, const N: usize>(
    tensors: [(&'static str, &'a mut Option<v1::Tensor>); N],
) -> Vec<(&'static str, &'a mut v1::Tensor)> {
    tensors.into_iter().filter_map(|(field, tensor)| Some((field, tensor.as_mut()?))).collect()
}

/// The envelopes in which a message is sent: the message itself, then its chunks, which share the bytes of the tensors.
#[derive(Debug)]
pub struct Chunked<E> {
    envelope: Option<E>,
    rest: VecDeque<Bytes>,
}

/// Splits a message into the envelopes in which it is sent.
#[must_use]
pub fn chunked<E: Envelope>(mut envelope: E) -> Chunked<E> {
    let large = envelope.tensors().into_iter().filter(|(_, tensor)| tensor.data.len() > CHUNK);
    let rest = large.map(|(_, tensor)| std::mem::take(&mut tensor.data)).collect();
    Chunked { envelope: Some(envelope), rest }
}

impl<E: Envelope> Iterator for Chunked<E> {
    type Item = E;
    fn next(&mut self) -> Option<E> {
        if let Some(envelope) = self.envelope.take() {
            return Some(envelope);
        }
        let tensor = self.rest.front_mut()?;
        let data = tensor.split_to(tensor.len().min(CHUNK));
        if tensor.is_empty() {
            self.rest.pop_front();
        }
        Some(E::from_chunk(v1::TensorChunk { data }))
    }
}

/// Reassembles the messages of a stream.
#[derive(Debug)]
pub struct Assembler<E> {
    open: Option<Open<E>>,
    /// Whether the current message was rejected and its remaining chunks are skipped.
    skipping: bool,
}

#[derive(Debug)]
struct Open<E> {
    envelope: E,
    tensors: VecDeque<Elements>,
}

/// The state of the stream after an envelope.
#[derive(Debug)]
pub enum Assembled<E> {
    /// A complete message, and the elements that followed it.
    Whole(E, Followed),
    /// The message needs more chunks.
    Incomplete,
    /// The message is rejected, and its remaining chunks are skipped.
    Rejected(E, WireError),
}

impl<E> Default for Assembler<E> {
    fn default() -> Self {
        Self { open: None, skipping: false }
    }
}

impl<E: Envelope> Assembler<E> {
    /// Takes the next envelope of the stream. `limit` is the total size of the tensors of one message in bytes: no
    /// memory is allocated for more.
    ///
    /// # Errors
    /// If a chunk belongs to no message, does not match its tensor, or is missing. The stream cannot be read any
    /// further.
    pub fn take(&mut self, envelope: E, limit: usize) -> Result<Assembled<E>, WireError> {
        if envelope.may_interrupt() {
            return Ok(Assembled::Whole(envelope, Followed::nothing()));
        }
        match (envelope.into_chunk(), self.open.take()) {
            (Ok(_), None) if self.skipping => Ok(Assembled::Incomplete),
            (Ok(data), None) => Err(chunk_error(data.len(), 0)),
            (Ok(data), Some(open)) => self.add(open, &data),
            (Err(_), Some(open)) => {
                let missing: usize = open.tensors.iter().map(Elements::missing).sum();
                Err(WireError::Missing { field: format!("chunk.data, of which {missing} bytes are outstanding,") })
            }
            (Err(envelope), None) => Ok(self.begin(envelope, limit)),
        }
    }

    fn begin(&mut self, mut envelope: E, limit: usize) -> Assembled<E> {
        self.skipping = false;
        let mut tensors = VecDeque::new();
        let (mut rejected, mut left) = (None, limit as u64);
        for (field, tensor) in envelope.tensors() {
            let bytes = match tensor.data.len() {
                0 => tensor.shape.iter().try_fold(F32_BYTES as u64, |product, d| product.checked_mul(*d)),
                whole if whole <= CHUNK => continue,
                _ => None,
            };
            let follows = match bytes {
                Some(bytes) if bytes <= CHUNK as u64 => continue,
                Some(bytes) if bytes <= left => Elements::allocate(bytes as usize),
                _ => None,
            };
            match follows {
                Some(elements) => {
                    left -= bytes.unwrap_or_default();
                    tensors.push_back(elements);
                }
                None => {
                    let (field, shape) = (field.to_owned(), shape_text(&tensor.shape));
                    rejected.get_or_insert(WireError::TooLarge { field, shape, limit });
                }
            }
        }
        match rejected {
            Some(error) => {
                self.skipping = true;
                Assembled::Rejected(envelope, error)
            }
            None if tensors.is_empty() => Assembled::Whole(envelope, Followed::nothing()),
            None => {
                self.open = Some(Open { envelope, tensors });
                Assembled::Incomplete
            }
        }
    }

    fn add(&mut self, mut open: Open<E>, data: &[u8]) -> Result<Assembled<E>, WireError> {
        let under_way = open.tensors.iter_mut().find(|tensor| tensor.missing() > 0);
        let Some(tensor) = under_way else { return Err(chunk_error(data.len(), 0)) };
        if data.is_empty() || data.len() > tensor.missing().min(CHUNK) || !data.len().is_multiple_of(F32_BYTES) {
            return Err(chunk_error(data.len(), tensor.missing()));
        }
        tensor.push(data);
        if open.tensors.iter().all(|tensor| tensor.missing() == 0) {
            return Ok(Assembled::Whole(open.envelope, Followed::new(open.tensors)));
        }
        self.open = Some(open);
        Ok(Assembled::Incomplete)
    }
}

fn chunk_error(given: usize, missing: usize) -> WireError {
    crate::error::out_of_range(
        "chunk.data",
        format!("{given} bytes long"),
        format!("whole elements of the current tensor, of which {missing} bytes are missing"),
    )
}
