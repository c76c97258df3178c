//! Malformed and invalid client requests: each gets a typed answer, and jobs do not change.

use std::collections::BTreeSet;

use antiphon_core::rng;
use antiphon_proto::v1;
use bytes::{Buf, Bytes};
use prost::Message as _;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::garbage::{Raw, random_bytes, spoilt};
use super::jobs::run_with_good_workers;
use super::server::{Server, TIMEOUT, TINY, told};

/// Sends random bytes and corrupted valid requests to each method.
const RANDOM: u64 = 100;
const SPOILT: u64 = 300;

/// The methods of the service, each with valid requests about jobs `over` and `open` that do not change the jobs.
fn methods() -> [(&'static str, Vec<Vec<u8>>); 5] {
    let named = |job: &str| job.to_owned();
    let submit = |job: Option<&str>, resume: Option<&str>| {
        let (job, resume, request) = (job.map(named), resume.map(named), Some(named("sent")));
        v1::SubmitJobRequest { specification: TINY.to_owned(), job, resume, request }.encode_to_vec()
    };
    let watch = |after| v1::WatchJobRequest { job: named("open"), after }.encode_to_vec();
    let stop = |now| v1::StopJobRequest { job: named("over"), now }.encode_to_vec();
    [
        ("SubmitJob", vec![submit(None, None), submit(Some("over"), None), submit(None, Some("memory://none/at/all"))]),
        ("GetJob", vec![v1::GetJobRequest { job: named("open") }.encode_to_vec()]),
        ("ListJobs", vec![v1::ListJobsRequest {}.encode_to_vec()]),
        ("WatchJob", vec![watch(0), watch(1 << 40)]),
        ("StopJob", vec![stop(false), stop(true)]),
    ]
}

/// Calls a method with these bytes. Of an endless answer, only the start is awaited.
async fn answer(client: &mut Grpc<Channel>, method: &str, bytes: Vec<u8>) -> Result<Option<Bytes>, Status> {
    client.ready().await.expect("the server lives");
    let path = format!("/antiphon.v1.JobService/{method}").parse().expect("a path");
    let call = async {
        let mut answers = client.server_streaming(Request::new(Bytes::from(bytes)), path, Raw).await?.into_inner();
        if method == "WatchJob" { Ok(None) } else { answers.message().await }
    };
    tokio::time::timeout(TIMEOUT, call).await.expect("it is answered")
}

/// Checks that the answer blames the request, not the server.
fn is_typed(status: &Status) -> bool {
    match status.code() {
        Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition => true,
        // Tonic itself answers bytes that are not a message.
        Code::Internal => status.message().starts_with("failed to decode Protobuf message"),
        _ => false,
    }
}

/// The status of all jobs, without their waiting times.
async fn jobs(server: &Server) -> Vec<v1::JobStatus> {
    let listed = server.jobs().await.list_jobs(v1::ListJobsRequest {}).await.expect("they are listed");
    listed.into_inner().jobs.into_iter().map(|job| v1::JobStatus { last_event: 0, ..job }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_is_answered_and_jobs_are_as_before() {
    let server = Server::start("garbled").await;
    server.submit(TINY, "over").await.expect("it is taken");
    run_with_good_workers(&server).await;
    server.submit(TINY, "open").await.expect("it is taken");
    let both = "waiting for 1 `a` worker: 0 registered; waiting for 1 `b` worker: 0 registered";
    server.waits_for("open", both).await;
    let before = jobs(&server).await;

    let mut client = Grpc::new(server.channel().await);
    let mut random = rng::stream(9, &["garbled".into()]);
    let (mut taken, mut refused) = (BTreeSet::new(), 0);
    for (method, good) in methods() {
        for at in 0..RANDOM + SPOILT {
            let bytes = match at.checked_sub(RANDOM) {
                None => random_bytes(&mut random),
                Some(at) => spoilt(good[at as usize % good.len()].clone(), &mut random),
            };
            match answer(&mut client, method, bytes.clone()).await {
                Ok(Some(answer)) if method == "SubmitJob" => {
                    let answer = v1::SubmitJobResponse::decode(answer.chunk()).expect("an answer");
                    taken.insert(answer.job);
                }
                Ok(_) => {}
                Err(status) => {
                    assert!(is_typed(&status), "{method} of {bytes:?}: {}", told(&status));
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > RANDOM, "{refused} were refused");

    let (known, new) = jobs(&server).await.into_iter().partition::<Vec<_>, _>(|job| !taken.contains(&job.job));
    assert_eq!(known, before, "nothing has become of those that were there");
    assert_eq!(new.len(), taken.len(), "and those that were taken are there");
    run_with_good_workers(&server).await;
    assert_eq!(server.finished("open").await["digest"], server.finished("over").await["digest"]);
    server.stop().await;
}
