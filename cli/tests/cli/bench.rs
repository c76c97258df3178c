//! Tests of `antiphon bench`.

use std::path::Path;

use crate::support::{antiphon, folder_with_job, json_lines, run_to_end};
use serde_json::Value;

/// The only line that a bench prints.
fn bench(folder: &Path, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = ["bench", "joint"].iter().chain(arguments).copied().collect();
    let (code, lines) = json_lines(folder, &arguments);
    assert_eq!((code, lines.len()), (Some(0), 1), "{lines:#?}");
    lines.into_iter().next().expect("one line")
}

fn accuracy(comparison: &Value, training: &str, modality: &str) -> f64 {
    comparison[training]["modalities"][modality]["accuracy"].as_f64().expect("an accuracy")
}

#[test]
fn a_joint_comparison_is_deterministic_and_trains_as_a_run_does() {
    let folder = folder_with_job();
    let first = bench(folder.path(), &["job.yaml"]);
    assert_eq!(first, bench(folder.path(), &["job.yaml", "--data-memory", "0"]));
    assert_eq!(names(folder.path()), ["job.yaml"], "nothing is kept");
    assert_eq!((&first["event"], &first["bench"], &first["seed"]), (&"bench".into(), &"joint".into(), &11.into()));

    let run = run_to_end(folder.path(), &["run", "job.yaml"]);
    assert_eq!(first["in_turns"], run["evaluation"]);
    for training in ["joint", "in_turns", "alone"] {
        let report = &first[training];
        assert_eq!((&report["split"], &report["samples"]), (&"test".into(), &50.into()));
        for modality in ["audio", "image", "text"] {
            let samples = &report["modalities"][modality]["samples"];
            assert_eq!(samples, &run["evaluation"]["modalities"][modality]["samples"], "{training} {modality}");
        }
    }
    assert_ne!(first["joint"], first["alone"]);
    let less = bench(folder.path(), &["job.yaml", "--skip-alone", "--set", "fusion=tuned"]);
    assert!(less["alone"].is_null() && less["joint"]["fused"]["tuned"]["accuracy"].is_number(), "{less}");
    assert_eq!(less["joint"]["modalities"], first["joint"]["modalities"], "fusion has no part in training");
    let other = bench(folder.path(), &["job.yaml", "--skip-alone", "--set", "seed=12"]);
    assert_ne!(first["joint"], other["joint"]);
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn the_table_holds_what_the_line_holds() {
    let folder = folder_with_job();
    let set = ["job.yaml", "--set", "data.samples.test=0", "--set", "schedule={epochs: 1, batch: 16}"];
    let line = bench(folder.path(), &set);
    assert_eq!(
        (&line["joint"]["split"], &line["epochs"]),
        (&"validation".into(), &1.0.into()),
        "there is no test split"
    );
    let output = antiphon(folder.path(), &["bench", "joint"]).args(set).output().expect("the program starts");
    let table = String::from_utf8(output.stdout).expect("it prints UTF-8");
    let row = |name: &str| {
        let cells = ["joint", "in_turns", "alone"].map(|training| accuracy(&line, training, name));
        cells.iter().fold(format!("  {name:<18}"), |row, cell| row + &format!("{:>8.1} %", 100.0 * cell))
    };
    assert!(table.starts_with("small, seed 11, 1 epoch: accuracy on the validation split, 40 samples\n"), "{table}");
    for modality in ["audio", "image", "text"] {
        assert!(table.contains(&row(modality)), "{table}");
    }
    let starved = line["starved"].as_array().expect("a list");
    assert_eq!(table.matches("joint training starves").count(), starved.len().max(1), "{table}");
}

#[test]
fn what_cannot_be_compared_is_said() {
    let folder = folder_with_job();
    let refused = |set: &[&str]| {
        let output = antiphon(folder.path(), &["bench", "joint", "job.yaml"]).args(set).output();
        let output = output.expect("the program starts");
        (output.status.code(), String::from_utf8(output.stderr).expect("it prints UTF-8"))
    };
    let (code, message) = refused(&["--set", "data.samples={train: 30, validation: 0, test: 0}"]);
    assert!(code == Some(2) && message.contains("neither a test split nor a validation split"), "{message}");
    let one = "name: one\ndata: {source: synth, kind: spoken-digits}\nmodalities: [text]\nlabels: 10\nschedule: {epochs: 1}\n";
    std::fs::write(folder.path().join("job.yaml"), one).expect("a job file");
    let (code, message) = refused(&[]);
    assert!(code == Some(2) && message.contains("nothing to train jointly"), "{message}");
}

/// A shorter version of the example on generated digits, with smaller encoders. Measured: text 35.4 % jointly, 64.2 %
/// in turns and 56.3 % alone; image 65.6 %, 68.8 % and 71.4 %; fused 83.7 %, 88.0 % and 86.7 %.
#[test]
fn joint_training_on_digits_starves_texts_and_turns_do_not() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/spoken-digits.yaml");
    let mut arguments = vec![example];
    for set in [
        "data.samples={train: 800, validation: 0, test: 300}",
        "modalities.audio.encoder.channels=[8, 16]",
        "modalities.audio.input.hop=256",
        "modalities.audio.input.mels=16",
        "modalities.image.encoder.channels=[8, 16]",
        "schedule.epochs=6",
        "schedule.batch=32",
    ] {
        arguments.extend(["--set", set]);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let found = bench(folder.path(), &arguments);
    let accuracy = |training: &str, modality: &str| accuracy(&found, training, modality);
    assert!(found["starved"].as_array().expect("a list").contains(&"text".into()), "{found}");
    for training in ["in_turns", "alone"] {
        assert!(accuracy(training, "text") > accuracy("joint", "text") + 0.1, "{training}: {found}");
    }
    assert!(accuracy("joint", "image") > accuracy("alone", "image") - 0.1, "images are not starved: {found}");
    let fused = |training: &str| found[training]["fused"]["entropy"]["accuracy"].as_f64().expect("an accuracy");
    assert!(fused("in_turns") > fused("joint") + 0.02 && fused("in_turns") > 0.8, "{found}");
}

fn numbers(line: &Value, keys: &[&str]) {
    for key in keys {
        assert!(line[key].as_f64().is_some_and(|number| number > 0.0), "{key}: {line}");
    }
}

#[test]
fn turns_are_measured_beside_the_maths_and_a_bare_stream() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, lines) = json_lines(folder.path(), &["bench", "turn", "3x8x4", "40x300x8", "--turns", "20"]);
    assert_eq!((code, lines.len()), (Some(0), 2), "{lines:#?}");
    assert_eq!((&lines[0]["head"], &lines[0]["sends"]), (&"3x8x4".into(), &"gradient".into()));
    assert_eq!((&lines[1]["head"], &lines[1]["sends"]), (&"40x300x8".into(), &"factors".into()));
    for line in &lines {
        numbers(line, &["bytes_down", "bytes_up", "turns"]);
        for phase in ["maths", "fold", "echo", "turn"] {
            numbers(&line[phase], &["mean", "p50", "p99", "max"]);
        }
    }
    let (code, lines) = json_lines(folder.path(), &["bench", "turn", "101x768"]);
    assert_eq!(code, Some(2), "{lines:#?}");
}

#[test]
fn one_coordinator_runs_several_jobs_and_counts_their_turns() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, lines) = json_lines(folder.path(), &["bench", "scale", "--jobs", "1,3", "--turns", "90"]);
    assert_eq!((code, lines.len()), (Some(0), 2), "{lines:#?}");
    for (line, jobs) in lines.iter().zip([1, 3]) {
        assert_eq!((line["jobs"].as_u64(), line["workers"].as_u64()), (Some(jobs), Some(3 * jobs)));
        numbers(line, &["turns", "turns_per_second", "maths"]);
        numbers(&line["turn"], &["p50", "p99"]);
    }
}

#[test]
fn both_schedules_end_in_the_same_bits_in_separate_processes() {
    let folder = folder_with_job();
    let arguments =
        ["bench", "pipeline", "job.yaml", "--cycles", "2", "--runs", "1", "--set", "schedule.turn_batches=2"];
    let (code, lines) = json_lines(folder.path(), &arguments);
    assert_eq!((code, lines.len()), (Some(0), 1), "{lines:#?}");
    let pair = &lines[0];
    numbers(pair, &["workers", "speedup"]);
    assert_eq!(pair["sequential"]["digest"], pair["pipelined"]["digest"]);
    for way in ["sequential", "pipelined"] {
        assert_eq!(pair[way]["schedule"], way);
        numbers(&pair[way], &["seconds_per_cycle"]);
        // Twelve turns of two steps.
        assert_eq!(pair[way]["times"]["coordinator"]["steps"], 24);
    }
    let (code, lines) = json_lines(folder.path(), &["bench", "pipeline", "nothing.yaml"]);
    assert_eq!(code, Some(2), "{lines:#?}");
}

#[test]
fn a_dead_worker_replays_its_steps_a_dead_coordinator_all_turns() {
    let folder = folder_with_job();
    let longer = [
        "--set",
        "schedule.turns=100000",
        "--set",
        "checkpoints.every=120 turns",
        "--set",
        "data.samples.validation=0",
    ];
    let measure = |more: &[&str]| {
        json_lines(folder.path(), &[&["bench", "recovery", "job.yaml", "--deaths", "1"][..], &longer, more].concat())
    };
    let (code, lines) = measure(&["--modality", "text", "--after", "15"]);
    assert_eq!((code, lines.len()), (Some(0), 2), "{lines:#?}");
    for line in &lines {
        numbers(line, &["ready", "caught_up", "stalled", "a_turn"]);
        assert!(line["since_checkpoint"].as_u64().is_some_and(|turns| turns >= 15), "{line}");
    }
    let [worker, coordinator] = &lines[..] else { panic!("two deaths: {lines:#?}") };
    let again = |line: &Value| line["replayed"].as_u64().expect("a number");
    assert_eq!(
        (&worker["killed"], &worker["modality"], &worker["spare"]),
        (&"worker".into(), &"text".into(), &true.into())
    );
    // A third of the turns belong to its modality. It replays at most the turns since the checkpoint before the last
    // due one, even if it was killed long after the event of the last checkpoint.
    assert!((1..=2 * 120 / 3).contains(&again(worker)), "{worker}");
    assert_eq!((&coordinator["killed"], &coordinator["modality"]), (&"coordinator".into(), &Value::Null));
    // It replays fewer if another checkpoint was completed between that event and its death.
    assert!(Some(again(coordinator)) <= coordinator["since_checkpoint"].as_u64(), "{coordinator}");

    let (code, lines) = measure(&["--modality", "smell"]);
    let expected = "--modality smell: the job has `audio`, `image`, `text`";
    assert_eq!((code, &lines[0]["error"]), (Some(2), &expected.into()));
    let (code, lines) = measure(&["--after", "1000"]);
    let expected = "the job wrote a checkpoint 120 turns after the previous one: use a smaller --after, or `--set \
                    \"checkpoints.every=2002 turns\"`";
    assert_eq!((code, &lines[0]["error"]), (Some(2), &expected.into()));
}
