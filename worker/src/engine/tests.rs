use antiphon_core::spec::parse;
use antiphon_model::custom::Encoders;
use antiphon_model::device::DeviceChoice;
use antiphon_proto::v1::worker_message::Message;

use super::*;

const JOB: &str = "name: t\ndata: {source: synth, kind: features, samples: {train: 20, validation: 10, test: 10}}\n\
                   modalities: [a, b]\nlabels: 10\nhead: {width: 8}\nschedule: {epochs: 1, batch: 5}\n";

/// Sends messages to a real engine, and returns all its answers.
async fn answers(commands: Vec<Command>) -> Vec<Message> {
    let config = Config {
        worker: "w".try_into().expect("a name"),
        modality: "a".try_into().expect("a name"),
        coordinator: String::new(),
        connect_timeout: std::time::Duration::ZERO,
        reconnect_timeout: std::time::Duration::ZERO,
        grace: std::time::Duration::ZERO,
        stores: Default::default(),
        store_retry_timeout: std::time::Duration::ZERO,
        decode_threads: 1,
        data_memory: 1 << 20,
        device: DeviceChoice::Cpu,
        encoders: Encoders::default(),
    };
    let (sender, mut receiver) = mpsc::channel(64);
    let (queue, ended) = spawn(Engine::new(config, Device::Cpu, Arc::default()));
    queue.send(Order::Connected(sender)).await.expect("the engine lives");
    for command in commands {
        queue.send(order(command)).await.expect("the engine lives");
    }
    drop(queue);
    ended.await.expect("the engine does not panic");
    let mut answers = Vec::new();
    while let Some(answer) = receiver.recv().await {
        answers.extend(answer.message);
    }
    answers
}

/// The order that the session makes of a command.
fn order(command: Command) -> Order {
    match command {
        Command::Assign(assign) => {
            let under = Under { job: assign.job.clone(), term: assign.term };
            Order::Assign(under, Assigned::decode(assign).map(Box::new))
        }
        command => Order::Command(Received { command, followed: Followed::nothing() }),
    }
}

fn assign(modality: &str) -> Command {
    let specification = parse(JOB, "test", &[], &|_| None).expect("a job").to_json();
    let (job, modality) = ("t-1".to_owned(), modality.to_owned());
    Command::Assign(v1::Assign { job, term: 3, modality, specification, ..Default::default() })
}

fn turn(job: &str) -> v1::TurnRef {
    v1::TurnRef { job: job.to_owned(), term: 3, ..Default::default() }
}

fn rejected(turn: Option<v1::TurnRef>) -> Command {
    Command::Rejected(v1::Rejected { message: "too late".to_owned(), turn, ..Default::default() })
}

fn failed(answers: &[Message]) -> &v1::Failed {
    match answers {
        [Message::Prepared(_), Message::Failed(failed)] => failed,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refusal_without_a_job_is_not_answered() {
    assert_eq!(answers(vec![rejected(None), rejected(Some(turn("t-1")))]).await, []);
}

#[tokio::test]
async fn a_refusal_of_the_job_at_hand_fails_it_once() {
    for about in [None, Some(turn("t-1"))] {
        let answers = answers(vec![assign("a"), rejected(about.clone()), rejected(about)]).await;
        let failed = failed(&answers);
        assert_eq!((failed.job.as_str(), failed.term), ("t-1", 3));
        assert!(failed.reason.contains("too late"), "{}", failed.reason);
    }
}

#[tokio::test]
async fn what_is_about_another_job_changes_nothing() {
    let release = Command::Release(v1::Release { job: "t-0".to_owned(), ..Default::default() });
    let grant = Command::Grant(v1::Grant { turn: Some(turn("t-0")), ..Default::default() });
    let save = Command::SaveFiles(v1::SaveFiles { job: "t-0".to_owned(), term: 3, ..Default::default() });
    let named = Command::Rejected(v1::Rejected { job: "t-0".to_owned(), ..Default::default() });
    let answers = answers(vec![assign("a"), rejected(Some(turn("t-0"))), named, release, grant, save]).await;
    assert!(matches!(answers.as_slice(), [Message::Prepared(_), Message::Released(_)]), "{answers:?}");
}

#[tokio::test]
async fn a_message_that_makes_no_sense_fails_the_job_at_hand() {
    let answers = answers(vec![assign("a"), Command::Grant(v1::Grant::default())]).await;
    assert_eq!((failed(&answers).job.as_str(), failed(&answers).term), ("t-1", 3));
}

#[tokio::test]
async fn a_bad_assignment_is_reported_under_its_own_job() {
    let answers = answers(vec![assign("c")]).await;
    let [Message::Failed(failed)] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!((failed.job.as_str(), failed.term), ("t-1", 3));
}

#[test]
fn a_panic_is_an_error_with_its_message() {
    for (work, message) in [
        (guarded::<()>(|| panic!("of {}", "values")), "the worker panicked: of values"),
        (guarded::<()>(|| panic!("plain")), "the worker panicked: plain"),
    ] {
        assert_eq!(work.expect_err("it panics").to_string(), message);
    }
}
