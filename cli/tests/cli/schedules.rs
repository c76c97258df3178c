//! Computing all encoders at once or one after the other gives the same bits, in every order of turns.

use std::collections::BTreeSet;

use crate::support::{SMALL_JOB, folder_with, json_lines, run_to_end};
use serde_json::Value;

/// Three modalities; the first is about fifty times as expensive as the last. A fifth of each is missing.
fn uneven() -> String {
    let job = SMALL_JOB.replacen("channels: [4, 8]}", "channels: [16, 32, 32]}", 1);
    let job = job.replace("encoder: {kind: text, width: 16,", "encoder: {kind: text, width: 8,");
    assert_ne!(job, SMALL_JOB);
    job
}

/// The result of each step of the head, in order.
fn steps(lines: &[Value]) -> Vec<String> {
    let of = |step: &Value| {
        ["turn", "step", "epoch", "modality", "loss", "projected_ratio"].map(|key| step[key].to_string())
    };
    lines.iter().filter(|line| line["event"] == "step").map(|step| of(step).join(" ")).collect()
}

#[test]
fn pipelined_turns_have_the_bits_of_sequential_ones() {
    let folder = folder_with(&uneven());
    let (mut digests, mut turns) = (BTreeSet::new(), BTreeSet::new());
    for (order, set) in [
        ("cyclic", &["schedule.order=cyclic"][..]),
        ("weak-first", &["schedule.order=weak-first"]),
        ("weighted", &["schedule.order={audio: 3, text: 2}"]),
    ] {
        let run = |mode: &str| {
            let state = format!("{order}-{mode}");
            let mut arguments = vec!["run", "job.yaml", "--schedule", mode, "--state", &state];
            set.iter().for_each(|set| arguments.extend(["--set", *set]));
            let (code, lines) = json_lines(folder.path(), &arguments);
            assert_eq!(code, Some(0), "{order} {mode}: {lines:#?}");
            lines
        };
        let (sequential, pipelined) = (run("sequential"), run("pipelined"));
        assert_eq!(steps(&sequential), steps(&pipelined), "{order}");
        let last = |lines: &[Value], key: &str| lines.last().expect("a last line")[key].clone();
        assert_eq!(last(&sequential, "digest"), last(&pipelined, "digest"), "{order}");
        assert_eq!(last(&sequential, "evaluation"), last(&pipelined, "evaluation"), "{order}");
        digests.insert(last(&pipelined, "digest").to_string());
        let steps = pipelined.iter().filter(|line| line["event"] == "step");
        turns.insert(steps.map(|step| step["modality"].to_string()).collect::<Vec<_>>());
    }
    assert_eq!((digests.len(), turns.len()), (3, 3), "the orders differ");
}

#[test]
fn a_job_resumed_with_the_other_schedule_has_the_same_bits() {
    let folder = folder_with(SMALL_JOB);
    let whole = run_to_end(folder.path(), &["run", "job.yaml", "--state", "whole"]);
    run_to_end(folder.path(), &["run", "job.yaml", "--state", "resumed", "--set", "schedule.turns=31"]);
    let resumed =
        run_to_end(folder.path(), &["run", "job.yaml", "--state", "resumed", "--schedule", "sequential", "--resume"]);
    assert_eq!(whole["digest"], resumed["digest"]);
}

#[test]
fn reported_times_cover_every_phase_and_every_step() {
    let folder = folder_with(&uneven());
    for mode in ["sequential", "pipelined"] {
        let (_, lines) = json_lines(folder.path(), &["run", "job.yaml", "--schedule", mode, "--state", mode]);
        let times = lines.iter().rfind(|line| line["event"] == "times").expect("times are reported");
        assert_eq!((&times["turn"], &times["coordinator"]["steps"]), (&60.into(), &60.into()));
        let mut steps = 0;
        for modality in ["audio", "image", "text"] {
            let account = &times["modalities"][modality];
            steps += account["steps"].as_u64().expect("a number");
            for phase in ["forward", "head", "exchange", "backward"] {
                assert!(account["seconds"][phase].as_f64().is_some_and(|seconds| seconds > 0.0), "{modality} {phase}");
            }
        }
        assert_eq!(steps, 60, "every step is reported before the checkpoint's files are");
        for phase in ["decode", "step", "fold", "encode", "idle"] {
            let seconds = times["coordinator"]["seconds"][phase].as_f64();
            assert!(seconds.is_some_and(|seconds| seconds > 0.0), "{phase}: {times}");
        }
    }
}
