//! The job service's refusals, health checks and reflection.

use antiphon_proto::v1;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::server::{Server, TIMEOUT, TINY, golden, told};

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_where_and_what_to_do() {
    let server = Server::start("refusals").await;
    server.submit(TINY, "taken").await.expect("it is taken");
    let mut answers = Vec::new();
    let elsewhere = |to: &str| format!("{TINY}checkpoints: {{to: \"{to}\"}}\n");
    for (name, specification, job, resume) in [
        ("two-mistakes", TINY.replace("seed", "sead").replace("epochs: 2", "epochs: two"), "a", None),
        ("no-yaml", "name: [tiny".to_owned(), "a", None),
        ("empty", String::new(), "a", None),
        ("head-too-large", TINY.replace("width: 4", "width: 16384").replace("labels: 3", "labels: 60000"), "a", None),
        ("bad-id", TINY.to_owned(), "No Id", None),
        ("taken-id", TINY.to_owned(), "taken", None),
        ("unknown-store", elsewhere("ftp://host/runs"), "a", None),
        ("store-to-read-only", elsewhere("https://host/runs"), "a", None),
        ("resume-from-nothing", TINY.to_owned(), "a", Some("memory://refusals/nothing")),
        ("resume-from-no-url", TINY.to_owned(), "a", Some("s3://[")),
    ] {
        let refused = server.submit_from(&specification, job, resume.map(str::to_owned)).await;
        answers.push((name, told(&refused.expect_err(name))));
    }
    let mut jobs = server.jobs().await;
    let job = || "unheard-of".to_owned();
    let status = jobs.get_job(v1::GetJobRequest { job: job() }).await.expect_err("it is unknown");
    answers.push(("get-unknown", told(&status)));
    let status = jobs.stop_job(v1::StopJobRequest { job: job(), now: false }).await.expect_err("it is unknown");
    answers.push(("stop-unknown", told(&status)));
    let status = jobs.watch_job(v1::WatchJobRequest { job: job(), after: 0 }).await.expect_err("it is unknown");
    answers.push(("watch-unknown", told(&status)));
    let status = jobs.get_job(v1::GetJobRequest { job: "../x".to_owned() }).await.expect_err("it is no id");
    answers.push(("get-no-id", told(&status)));
    golden("job_service.txt", &answers);
    let listed = jobs.list_jobs(v1::ListJobsRequest {}).await.expect("they are listed").into_inner().jobs;
    let listed: Vec<&str> = listed.iter().map(|status| status.job.as_str()).collect();
    assert_eq!(listed, ["taken"], "nothing is left of what was refused");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_made_of_the_name_and_is_free() {
    let server = Server::start("ids").await;
    let mut jobs = server.jobs().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let request = v1::SubmitJobRequest { specification: TINY.to_owned(), ..Default::default() };
        ids.push(jobs.submit_job(request).await.expect("it is taken").into_inner().job);
    }
    assert!(ids.iter().all(|id| id.starts_with("tiny-")), "{ids:?}");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_answers_for_the_server_and_its_services() {
    let server = Server::start("health").await;
    let mut health = HealthClient::new(server.channel().await);
    for service in ["", "antiphon.v1.JobService", "antiphon.v1.TrainingService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.expect(service).into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = HealthCheckRequest { service: "antiphon.v1.Nothing".to_owned() };
    assert_eq!(health.check(unknown).await.expect_err("it is unknown").code(), tonic::Code::NotFound);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_of_every_service_that_it_shuts_down() {
    let server = Server::start("unhealthy").await;
    let mut health = HealthClient::new(server.channel().await);
    let mut watched = Vec::new();
    for service in ["", "antiphon.v1.JobService", "antiphon.v1.TrainingService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut stream = health.watch(request).await.expect(service).into_inner();
        let first = stream.message().await.expect(service).expect("there is an answer");
        assert_eq!(first.status(), ServingStatus::Serving, "{service}");
        watched.push((service, stream));
    }
    server.shutdown.cancel();
    for (service, mut stream) in watched {
        let next = tokio::time::timeout(TIMEOUT, stream.message()).await.expect("it says so");
        assert_eq!(next.expect(service).expect(service).status(), ServingStatus::NotServing, "{service}");
    }
    server.stop().await;
}

async fn reflect(server: &Server, asked: MessageRequest) -> ServerReflectionResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(asked) };
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let answers = reflection.server_reflection_info(tokio_stream::once(request)).await.expect("it is served");
    answers.into_inner().message().await.expect("the stream is sound").expect("there is an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_describes_the_services() {
    let server = Server::start("reflection").await;
    let answer = reflect(&server, MessageRequest::ListServices(String::new())).await;
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("{answer:?}") };
    let mut names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    names.sort_unstable();
    let ours = ["antiphon.v1.JobService", "antiphon.v1.TrainingService", "grpc.health.v1.Health"];
    assert!(ours.iter().all(|name| names.contains(name)), "{names:?}");
    let answer = reflect(&server, MessageRequest::FileContainingSymbol("antiphon.v1.Contribution".to_owned())).await;
    assert!(matches!(answer.message_response, Some(MessageResponse::FileDescriptorResponse(_))), "{answer:?}");
    server.stop().await;
}
