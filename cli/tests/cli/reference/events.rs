//! `events.md`: the JSON objects that commands print, written from the tables in the code. The tests also compare the
//! tables with real output.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use antiphon::reference::{PRINTED, Seen, check, nested, unseen};
use antiphon_core::event::{BestCheckpoint, FinalState, Finished, JobEvent, ModalityStart, StepEvent};
use antiphon_core::ids::{EvaluationId, JobId, JobName, ModalityName, Split, Term, Turn, WorkerId};
use antiphon_core::metrics::{ConfusionCell, EvaluationReport, ModalityScores, RuleName, Scores};
use antiphon_core::numerics::NumericFingerprint;
use antiphon_core::reference::{Field, JOB_EVENTS, Kind, Object, Presence};
use antiphon_core::times::{Account, Queued};
use antiphon_core::turn::SplitSizes;
use serde_json::Value;

use crate::support::{folder_with, json_lines};

use super::{code, compare_or_update, page, table};

#[test]
fn the_page_of_events_is_up_to_date() {
    let mut text = String::from(
        "With `--format json`, every command prints one JSON object per line. The key `event` identifies the kind of \
         object. Times are in seconds.\n\n## Events of a job\n\n`run` and `follow` print these events, and so do \
         `submit` and `stop` with `--follow`. The coordinator retains the events of each job, so that `follow` shows \
         them from the first one.\n\n",
    );
    let rows = JOB_EVENTS.iter().map(|event| [link(event), event.meaning.to_owned()]);
    text += &table(["Event", "When"], rows);
    JOB_EVENTS.iter().for_each(|event| describe(event, &mut text));
    text += "\n## Objects of other commands\n";
    for printed in PRINTED {
        let _ = write!(text, "\n### Printed by {}\n\n{}\n", printed.by, printed.meaning);
        printed.objects.iter().for_each(|object| describe(object, &mut text));
    }
    text += "\n## Objects inside other objects\n";
    let mut inner = BTreeMap::new();
    all().for_each(|object| collect(object, &mut inner));
    inner.values().for_each(|object| describe(object, &mut text));
    compare_or_update(
        "events.md",
        &page("Events and JSON", "Commands print the JSON objects below, with these fields.", &text),
    );
}

fn all() -> impl Iterator<Item = &'static Object> {
    JOB_EVENTS.iter().chain(PRINTED.iter().flat_map(|printed| printed.objects))
}

/// The objects that are nested in an object, by name.
fn collect(object: &Object, inner: &mut BTreeMap<&'static str, &'static Object>) {
    for field in object.all_fields() {
        if let Some(object) = nested(&field.kind)
            && inner.insert(object.name, object).is_none()
        {
            collect(object, inner);
        }
    }
}

fn link(object: &Object) -> String {
    format!(
        "[{}](#{})",
        if object.name.contains(' ') { object.name.to_owned() } else { code(object.name) },
        object.name.replace(' ', "-")
    )
}

fn describe(object: &Object, text: &mut String) {
    let name = if object.name.is_empty() { "prediction" } else { object.name };
    let _ = write!(text, "\n#### {name}\n\n{}\n\n", object.meaning);
    *text += &table(["Field", "Type", "Meaning"], object.fields.iter().map(row));
    if let Some(also) = object.also {
        let _ =
            write!(text, "\nThis object also has the fields of [{}](#{}).\n", also.name, also.name.replace(' ', "-"));
    }
}

fn row(field: &Field) -> [String; 3] {
    let presence = match field.presence {
        Presence::Always => "",
        Presence::Nullable => " or null",
        Presence::Optional => ", optional",
    };
    [code(field.name), format!("{}{presence}", kind(&field.kind)), field.meaning.to_owned()]
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Text => "string".to_owned(),
        Kind::OneOf(choices) => choices.iter().map(|choice| code(choice)).collect::<Vec<_>>().join(", "),
        Kind::Whole => "integer".to_owned(),
        Kind::Number => "number".to_owned(),
        Kind::Flag => "boolean".to_owned(),
        Kind::Object(object) => link(object),
        Kind::Map(key, value) => format!("{} by {key}", self::kind(value)),
        Kind::List(value) => format!("list of: {}", self::kind(value)),
        Kind::Any => "any".to_owned(),
    }
}

/// Compares objects with the reference, and returns the fields that occurred.
fn checked<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Seen {
    let mut seen = Seen::new();
    let wrong: Vec<String> = objects.into_iter().filter_map(|object| check(object, &mut seen).err()).collect();
    assert!(wrong.is_empty(), "correct the tables in core/src/reference/ or cli/src/reference/:\n{}", wrong.join("\n"));
    seen
}

#[test]
fn job_events_have_the_fields_that_the_page_has() {
    let events: Vec<Value> = samples().iter().map(|event| serde_json::to_value(event).expect("JSON")).collect();
    let mut unseen = unseen(JOB_EVENTS, &checked(&events));
    assert!(unseen.remove("finished.resume"), "it is added by the command that prints it");
    assert!(unseen.is_empty(), "no event has these fields: {unseen:?}");
}

#[test]
fn commands_print_the_fields_that_the_page_has() {
    let folder = folder_with(JOB);
    let (_, mut lines) = json_lines(folder.path(), &["run", "job.yaml"]);
    let checkpoint =
        lines.last().and_then(|finished| finished["checkpoint"].as_str()).expect("a checkpoint").to_owned();
    let mut print = |arguments: &[&str]| lines.extend(json_lines(folder.path(), arguments).1);
    print(&["check", "job.yaml", "--explain"]);
    print(&["check", "job.yaml", "--set", "schedule.batch=0"]);
    print(&["check", "none.yaml"]);
    print(&["eval", &checkpoint]);
    print(&["predict", &checkpoint]);
    print(&["predict", &checkpoint, "--output", "answers.jsonl"]);
    print(&["verify", &checkpoint, "--replay"]);
    print(&["data", "synth", "features", "vectors", "--train", "10", "--validation", "5", "--test", "5"]);
    print(&["data", "inspect", "vectors/*.parquet"]);
    print(&["jobs", "--coordinator", "http://127.0.0.1:9"]);
    let seen = checked(&lines);
    let tried = ["check", "eval", "verify", "data", "Every"];
    let tried = PRINTED.iter().filter(|printed| tried.iter().any(|command| printed.by.starts_with(command)));
    let unseen: Vec<String> = unseen(tried.flat_map(|printed| printed.objects), &seen).into_iter().collect();
    // Fields that occur only with other data, another checkpoint or another split.
    let elsewhere = ["class.name", "evaluation.not_tuned", "replay.from", "verified file.reason"];
    assert_eq!(unseen, elsewhere, "no command prints these fields");
}

/// A job of two modalities whose classes have names.
const JOB: &str = "
name: small
data: {source: synth, kind: features, samples: {train: 40, validation: 20, test: 20}}
modalities: {a: {encoder: {kind: mlp, hidden: [4]}}, b: {encoder: {kind: mlp, hidden: [4]}}}
labels: {classes: [zero, one, two, three, four, five, six, seven, eight, nine]}
head: {width: 4}
schedule: {turns: 6, batch: 8}
";

/// One event of every kind, with every field that it may have.
fn samples() -> Vec<JobEvent> {
    let mut events = of_the_job();
    events.extend(of_workers());
    events
}

const TURN: Turn = Turn(7);

fn job() -> JobId {
    JobId::try_from("small-1").expect("an id")
}

fn name(text: &str) -> ModalityName {
    ModalityName::try_from(text).expect("a name")
}

fn some() -> String {
    "it is a sample".to_owned()
}

fn of_the_job() -> Vec<JobEvent> {
    let (job, turn) = (job(), TURN);
    vec![
        JobEvent::Submitted {
            job: job.clone(),
            name: JobName::try_from("small").expect("a name"),
            resumed_from: Some(some()),
        },
        JobEvent::Recovered { job: job.clone(), term: Term(2), turn, checkpoint: Some(some()), reason: some() },
        JobEvent::Suspended { job: job.clone(), turn, checkpoint: Some(some()) },
        JobEvent::Waiting { job: job.clone(), reason: some(), seconds: 1.5 },
        JobEvent::Started { job: job.clone(), turn, turns: 60, modalities: [(name("audio"), start())].into() },
        JobEvent::Step(step(job.clone())),
        JobEvent::Times {
            job: job.clone(),
            turn,
            modalities: [(name("audio"), Account::default())].into(),
            coordinator: Account::default(),
            queued: Queued::default(),
        },
        JobEvent::Evaluated { job: job.clone(), turn, evaluation: EvaluationId(1), report: report() },
        JobEvent::Checkpoint {
            job: job.clone(),
            turn,
            checkpoint: some(),
            digest: some(),
            best: true,
            seconds: 0.5,
            stall_seconds: 0.1,
        },
        JobEvent::Finished(finished(job)),
    ]
}

fn of_workers() -> Vec<JobEvent> {
    let (job, turn, modality) = (job(), TURN, name("audio"));
    let worker = WorkerId::try_from("w-1").expect("a name");
    vec![
        JobEvent::LeaseExpired {
            job: job.clone(),
            turn,
            modality: modality.clone(),
            worker: worker.clone(),
            reason: some(),
        },
        JobEvent::WorkerLost {
            job: job.clone(),
            turn,
            modality: modality.clone(),
            worker: worker.clone(),
            reason: some(),
        },
        JobEvent::WorkerReady {
            job: job.clone(),
            turn,
            modality: modality.clone(),
            worker: worker.clone(),
            replayed: 3,
            seconds: 0.5,
        },
        JobEvent::MixedNumerics {
            job,
            turn,
            modality,
            worker,
            fingerprint: NumericFingerprint(2),
            before: [NumericFingerprint(1)].into(),
        },
    ]
}

fn start() -> ModalityStart {
    ModalityStart {
        samples: SplitSizes { train: 3, validation: 2, test: 1 },
        parameters: 10,
        fingerprint: Some(NumericFingerprint(1)),
        turns_done: 0,
        turns: 30,
    }
}

fn step(job: JobId) -> StepEvent {
    StepEvent {
        job,
        turn: TURN,
        step: 0,
        epoch: 0,
        modality: name("audio"),
        loss: 2.3,
        accuracy: 0.1,
        gradient_norm: 1.0,
        projected_ratio: 0.5,
        projector_trace: 4.0,
        lr: 0.1,
    }
}

fn finished(job: JobId) -> Finished {
    Finished {
        job,
        state: FinalState::Stopped,
        reason: Some(some()),
        turn: TURN,
        turns: Some(60),
        checkpoint: Some(some()),
        digest: Some(some()),
        best: Some(BestCheckpoint { turn: TURN, checkpoint: some(), score: 0.5 }),
        evaluation: Some(report()),
    }
}

fn report() -> EvaluationReport {
    let scores = Scores {
        accuracy: 0.5,
        macro_f1: 0.4,
        ece: Some(0.1),
        confusion: vec![ConfusionCell { label: 0, answer: 1, count: 2 }],
    };
    let alone = ModalityScores { samples: 2, scores: scores.clone(), loss: 2.0, entropy: 1.0, lambda: 0.5 };
    EvaluationReport {
        split: Split::Validation,
        samples: 2,
        modalities: [(name("audio"), alone)].into(),
        fused: [(RuleName::Entropy, scores)].into(),
        tuned_weights: Some([(name("audio"), 1.0)].into()),
        not_tuned: Some(some()),
    }
}
