//! Large tensors cross a stream in chunks and arrive unchanged; wrong chunks are rejected.

use std::sync::Arc;

use antiphon_core::head::{Contribution, Head, HeadGradient};
use antiphon_core::ids::{Attempt, HeadVersion, Lease, MicroShard, Step, Term, Turn, TurnRef};
use antiphon_core::linalg::Matrix;
use antiphon_proto::assignment::{Grant, HeadShape};
use antiphon_proto::chunks::{Assembled, Assembler, CHUNK, Followed, chunked};
use antiphon_proto::contribution::{self, ContributionLimits};
use antiphon_proto::v1::coordinator_message::Message as Told;
use antiphon_proto::v1::worker_message::Message as Said;
use antiphon_proto::{WireError, v1};
use bytes::Bytes;

/// W has 3 MiB and 12 bytes.
const LIMITS: ContributionLimits = ContributionLimits { classes: 1021, width: 771, batch: 500 };
const HEAD: HeadShape = HeadShape { classes: LIMITS.classes, width: LIMITS.width };

fn matrix(rows: usize, columns: usize) -> Matrix<f32> {
    let numbers = (0..rows * columns).map(|i| (i % 4099) as f32 * 0.25 - 1.0).collect();
    Matrix::from_vec(rows, columns, numbers).expect("the shape fits")
}

fn turn() -> TurnRef {
    TurnRef {
        job: "digits-1".try_into().expect("a job id"),
        term: Term(2),
        turn: Turn(7),
        step: Step(1),
        attempt: Attempt(3),
        head_version: HeadVersion(15),
    }
}

fn contribution(gradient: HeadGradient<f32>) -> Contribution<f32> {
    Contribution {
        gradient,
        bias_gradient: vec![0.5; LIMITS.classes],
        mean_features: vec![1.0; LIMITS.width],
        loss: 1.25,
        correct: 1,
        samples: LIMITS.batch as u32,
    }
}

fn both_forms() -> [HeadGradient<f32>; 2] {
    let ContributionLimits { classes, width, batch } = LIMITS;
    let factors = HeadGradient::Factors { errors: matrix(batch, classes), features: matrix(batch, width) };
    [HeadGradient::Dense(matrix(classes, width)), factors]
}

fn said(gradient: HeadGradient<f32>) -> v1::WorkerMessage {
    Said::Contribution(contribution::encode(&turn(), MicroShard::WHOLE, contribution(gradient))).into()
}

fn heartbeat() -> v1::WorkerMessage {
    Said::Heartbeat(v1::Heartbeat { job: String::new(), steps_done: 3, ..Default::default() }).into()
}

/// The messages that an assembler makes of the envelopes.
fn assembled<E: antiphon_proto::chunks::Envelope>(
    envelopes: impl IntoIterator<Item = E>,
    limit: usize,
) -> Result<Vec<(E, Followed)>, WireError> {
    let mut assembler = Assembler::default();
    let mut whole = Vec::new();
    for envelope in envelopes {
        match assembler.take(envelope, limit)? {
            Assembled::Whole(message, followed) => whole.push((message, followed)),
            Assembled::Incomplete => {}
            Assembled::Rejected(_, error) => return Err(error),
        }
    }
    Ok(whole)
}

fn chunk(bytes: usize) -> v1::WorkerMessage {
    Said::Chunk(v1::TensorChunk { data: Bytes::from(vec![0; bytes]) }).into()
}

#[test]
fn chunks_between_heartbeats_are_reassembled_to_the_same_bits() {
    for gradient in both_forms() {
        let mut sent = Vec::new();
        for envelope in chunked(said(gradient.clone())) {
            assert!(prost::Message::encoded_len(&envelope) < CHUNK + CHUNK / 2);
            sent.extend([envelope, heartbeat()]);
        }
        assert!(sent.len() >= 2 * 4, "it is sent in chunks");
        let mut whole = assembled(sent, LIMITS.message_bytes()).expect("it is sound");
        whole.retain(|(message, _)| *message != heartbeat());
        let [(message, followed)] = <[_; 1]>::try_from(whole).expect("one message");
        let Some(Said::Contribution(message)) = message.message else { panic!("a contribution") };
        let decoded = contribution::decode(&message, &LIMITS, followed);
        let checked = contribution(gradient).into_checked(LIMITS.classes, LIMITS.width).expect("it is sound");
        assert_eq!(decoded, Ok((turn(), MicroShard::WHOLE, checked)));
    }
}

#[test]
fn a_grant_of_a_large_head_is_sent_without_a_copy() {
    let head = Head::new(matrix(HEAD.classes, HEAD.width), vec![0.5; HEAD.classes]).expect("of one shape");
    let head = Arc::new(head);
    let grant =
        Grant { turn: turn(), lease: Lease(9), head: Arc::clone(&head), progress: 0.5, epochs: 3.0, replay: false };
    let sent: Vec<v1::CoordinatorMessage> = chunked(Told::Grant(grant.encode()).into()).collect();
    let Some(Told::Chunk(first)) = &sent[1].message else { panic!("a chunk") };
    assert_eq!(first.data.as_ptr(), head.weight().as_slice().as_ptr().cast());
    let [(message, followed)] = <[_; 1]>::try_from(assembled(sent, HEAD.bytes()).expect("sound")).expect("one message");
    let Some(Told::Grant(message)) = message.message else { panic!("a grant") };
    assert_eq!(Grant::decode(&message, HEAD, followed), Ok(grant));
}

#[test]
fn a_number_that_is_not_finite_is_named_in_any_chunk() {
    let [HeadGradient::Dense(mut dense), _] = both_forms() else { panic!("the first is dense") };
    dense.as_mut_slice()[700_001] = f32::NAN;
    let sent = chunked(said(HeadGradient::Dense(dense)));
    let whole = assembled(sent, LIMITS.message_bytes()).expect("it comes together");
    let (message, followed) = whole.into_iter().next().expect("one message");
    let Some(Said::Contribution(message)) = message.message else { panic!("a contribution") };
    let error = contribution::decode(&message, &LIMITS, followed).expect_err("it is not a number");
    assert_eq!(error.to_string(), "`contribution.dense` holds NaN at element 700001, expected finite numbers only");
}

#[test]
fn a_tensor_beyond_the_limit_is_rejected_and_its_chunks_skipped() {
    let [dense, _] = both_forms();
    let mut assembler = Assembler::default();
    let mut answers = Vec::new();
    for envelope in chunked(said(dense)).chain([heartbeat()]) {
        answers.push(match assembler.take(envelope, CHUNK).expect("the stream can be read") {
            Assembled::Rejected(_, error) => error.to_string(),
            Assembled::Incomplete => "incomplete".to_owned(),
            Assembled::Whole(..) => "whole".to_owned(),
        });
    }
    let rejected = "`contribution.dense` of shape (1021, 771) is larger than the limit of 1048576 bytes";
    assert_eq!(answers, [rejected, "incomplete", "incomplete", "incomplete", "incomplete", "whole"]);
}

#[test]
fn a_shape_that_overflows_is_rejected() {
    let [dense, _] = both_forms();
    let mut envelope = chunked(said(dense)).next().expect("a message");
    if let Some(Said::Contribution(contribution)) = &mut envelope.message
        && let Some(v1::contribution::Gradient::Dense(tensor)) = &mut contribution.gradient
    {
        tensor.shape = vec![u64::MAX, u64::MAX];
    }
    let error = assembled([envelope], usize::MAX).expect_err("2^128 elements");
    assert!(matches!(error, WireError::TooLarge { .. }), "{error}");
}

#[test]
fn a_stream_with_a_missing_or_wrong_chunk_is_an_error() {
    let [dense, _] = both_forms();
    let first_two = || chunked(said(dense.clone())).take(2);
    let missing = LIMITS.classes * LIMITS.width * 4 - CHUNK;
    let needed = |given: usize, missing: usize| {
        format!(
            "`chunk.data` is {given} bytes long, expected whole elements of the current tensor, \
             of which {missing} bytes are missing"
        )
    };
    let cases = [
        (vec![chunk(4)], needed(4, 0)),
        (first_two().chain([chunk(3)]).collect(), needed(3, missing)),
        (first_two().chain([chunk(0)]).collect(), needed(0, missing)),
        (first_two().chain([chunk(missing + 4)]).collect(), needed(missing + 4, missing)),
        (
            first_two().chain(first_two()).collect(),
            format!("`chunk.data, of which {missing} bytes are outstanding,` is missing"),
        ),
    ];
    for (envelopes, message) in cases {
        let error = assembled(envelopes, LIMITS.message_bytes()).expect_err(&message);
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn elements_of_another_shape_do_not_fit() {
    let [dense, _] = both_forms();
    let whole = assembled(chunked(said(dense)), LIMITS.message_bytes()).expect("it comes together");
    let (message, followed) = whole.into_iter().next().expect("one message");
    let Some(Said::Contribution(mut message)) = message.message else { panic!("a contribution") };
    if let Some(v1::contribution::Gradient::Dense(tensor)) = &mut message.gradient {
        tensor.shape = vec![1021, 700];
    }
    let limits = ContributionLimits { width: 700, ..LIMITS };
    let error = contribution::decode(&message, &limits, followed).expect_err("other elements came");
    assert!(matches!(error, WireError::ByteLength { .. }), "{error}");
}
