//! Encoders in bf16, end to end. On a GPU (`ANTIPHON_DEVICE=cuda`, as `model/tests/cuda/run cli` sets it) a job is
//! run, resumed and used for predictions. On the CPU, the job is refused before any file is read.

use crate::support::{antiphon, folder_with_job, json_lines, run_to_end};
use serde_json::Value;

/// The options that set every encoder of the small job to bf16.
const BF16: [&str; 6] = [
    "--set",
    "modalities.audio.encoder.precision=bf16",
    "--set",
    "modalities.image.encoder.precision=bf16",
    "--set",
    "modalities.text.encoder.precision=bf16",
];

fn on_a_card() -> bool {
    std::env::var("ANTIPHON_DEVICE").is_ok_and(|device| device.starts_with("cuda"))
}

/// The exit code and error of a command that is refused.
fn refused(folder: &std::path::Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = antiphon(folder, arguments).output().expect("the program starts");
    (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
}

const MESSAGE: &str = "`precision: bf16` needs a GPU of the Ampere generation (8.0) or later, but this device is the CPU; \
                       train on such a GPU (`--device cuda`), or leave `precision` at f32";

#[test]
fn main_memory_refuses_a_job_in_bf16_and_says_what_to_do() {
    let folder = folder_with_job();
    let set = ["run", "job.yaml", "--device", "cpu", "--set", "modalities.image.encoder.precision=bf16"];
    let (code, said) = refused(folder.path(), &set);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("the encoder of `image`: {MESSAGE}")), "{said}");
    let (code, said) = refused(folder.path(), &["bench", "encoder", "mlp@8", "--device", "cpu", "--precision", "bf16"]);
    assert_eq!((code, said.contains(MESSAGE)), (Some(2), true), "{said}");
}

#[test]
fn a_job_in_bf16_has_one_digest_and_predicts_anywhere() {
    if !on_a_card() {
        return;
    }
    let folder = folder_with_job();
    let run = |arguments: &[&str]| run_to_end(folder.path(), &[&["run", "job.yaml"][..], &BF16, arguments].concat());
    let whole = run(&["--state", "whole"]);
    run(&["--state", "resumed", "--set", "schedule.turns=25"]);
    assert_eq!(run(&["--state", "resumed", "--resume"])["digest"], whole["digest"]);
    let in_f32 = run_to_end(folder.path(), &["run", "job.yaml", "--state", "f32"]);
    assert_ne!(in_f32["digest"], whole["digest"]);
    let accuracy = |run: &Value| run["evaluation"]["fused"]["entropy"]["accuracy"].as_f64().expect("an accuracy");
    assert!((accuracy(&whole) - accuracy(&in_f32)).abs() < 0.15, "{} and {}", accuracy(&whole), accuracy(&in_f32));

    let (code, said) = refused(folder.path(), &["run", "job.yaml", "--state", "whole", "--resume"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("encoder.precision \"bf16\", but the job has \"f32\""), "{said}");

    let checkpoint = whole["checkpoint"].as_str().expect("a checkpoint");
    let answers = |device: &str| -> Vec<Value> {
        let (code, lines) = json_lines(folder.path(), &["predict", checkpoint, "--split", "test", "--device", device]);
        assert_eq!((code, lines.len()), (Some(0), 50), "{lines:#?}");
        lines
    };
    let same = |line: &(Value, Value)| line.0["prediction"] == line.1["prediction"];
    let pairs: Vec<(Value, Value)> = answers("cuda").into_iter().zip(answers("cpu")).collect();
    assert!(pairs.iter().filter(|pair| same(pair)).count() >= 45, "{pairs:#?}");
}
