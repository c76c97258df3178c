//! The fields that must not change between a checkpoint and the job that resumes from it, because its state depends on
//! them.

use antiphon_core::spec::{CHANGEABLE_ON_RESUME, JobSpec};
use serde_json::Value;

/// A checkpoint belongs to another job: a field differs that must not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it was written with {path} {was}, but the job has {is}; {}", remedy(.path, *.more))]
pub struct OtherJob {
    /// The field.
    pub path: String,
    /// Its value in the checkpoint, as JSON.
    pub was: String,
    /// Its value in the job, as JSON.
    pub is: String,
    /// The number of further fields that differ.
    pub more: usize,
}

fn remedy(path: &str, more: usize) -> String {
    match (path, more) {
        (MODALITIES, _) => "this is another job, so resume from a checkpoint of this one".to_owned(),
        (path, 0) => format!("set {path} to the old value to resume from it"),
        (_, more) => {
            let differ =
                if more == 1 { "1 more field differs".to_owned() } else { format!("{more} more fields differ") };
            format!("{differ}; use the job file and the `--set` options of the first run, or a checkpoint of this job")
        }
    }
}

/// The path that is reported if the modalities have other names.
const MODALITIES: &str = "modalities";

/// Checks that a job `now` can resume from a checkpoint of the job `before`.
///
/// # Errors
/// The first field that differs, with both values.
pub(super) fn same_job(before: &JobSpec, now: &JobSpec) -> Result<(), OtherJob> {
    let names = |spec: &JobSpec| {
        let names: Vec<&str> = spec.modalities.iter().map(|modality| modality.name.as_str()).collect();
        format!("[{}]", names.join(", "))
    };
    let (was, is) = (names(before), names(now));
    if was != is {
        return Err(OtherJob { path: MODALITIES.to_owned(), was, is, more: 0 });
    }
    let mut found = Vec::new();
    differences(&mut Vec::new(), &by_name(before), &by_name(now), &mut found);
    let more = found.len().saturating_sub(1);
    match found.into_iter().next() {
        None => Ok(()),
        Some(first) => Err(OtherJob { more, ..first }),
    }
}

/// The specification with its modalities by name, so that paths contain the names.
fn by_name(spec: &JobSpec) -> Value {
    let mut json = serde_json::to_value(spec).expect("a specification is plain JSON");
    if let Some(Value::Array(list)) = json.get("modalities") {
        let names = spec.modalities.iter().map(|modality| modality.name.to_string());
        json["modalities"] = Value::Object(names.zip(list.clone()).collect());
    }
    json
}

/// The paths whose values differ but must not, in byte order of the keys.
fn differences(path: &mut Vec<String>, before: &Value, now: &Value, found: &mut Vec<OtherJob>) {
    if before == now || is_free(path) {
        return;
    }
    let (Value::Object(was), Value::Object(is)) = (before, now) else {
        return found.push(OtherJob { path: path.join("."), was: before.to_string(), is: now.to_string(), more: 0 });
    };
    let mut keys: Vec<&String> = was.keys().chain(is.keys()).collect();
    // The kind comes first, because the other fields depend on it.
    keys.sort_by_key(|key| (!matches!(key.as_str(), "kind" | "source"), *key));
    keys.dedup();
    // Objects of different kinds are one difference: the fields of the one mean nothing in the other.
    let kinds = |object: &serde_json::Map<String, Value>| ["kind", "source"].map(|key| object.get(key).cloned());
    let other_kind = kinds(was) != kinds(is);
    for key in keys {
        path.push(key.clone());
        let absent = Value::Null;
        differences(path, was.get(key).unwrap_or(&absent), is.get(key).unwrap_or(&absent), found);
        path.pop();
        if other_kind && !found.is_empty() {
            break;
        }
    }
}

fn is_free(path: &[String]) -> bool {
    CHANGEABLE_ON_RESUME.iter().any(|free| {
        let free: Vec<&str> = free.split('.').collect();
        free.len() == path.len() && free.iter().zip(path).all(|(free, key)| *free == "*" || free == key)
    })
}

#[cfg(test)]
mod tests {
    use antiphon_core::spec::parse;

    use super::*;

    fn spec(text: &str) -> JobSpec {
        parse(text, "job.yaml", &[], &|_| None).expect("a good job")
    }

    const JOB: &str = "
name: digits
seed: 5
data: {train: t.parquet, validation: v.parquet}
modalities:
  image: {encoder: {kind: mlp, hidden: [8]}, optimizer: {kind: sgd, lr: 0.1, momentum: 0.9}}
  audio: {}
labels: 3
head: {width: 4, optimizer: {kind: sgd, lr: 0.1, momentum: 0.9}}
schedule: {epochs: 2, batch: 4}
";

    #[test]
    fn lengths_periods_rates_and_names_may_change() {
        for (was, is) in [
            ("name: digits", "name: other"),
            ("epochs: 2", "epochs: 5"),
            ("epochs: 2", "turns: 9"),
            ("epochs: 2", "epochs: 2, mode: sequential"),
            ("epochs: 2", "epochs: 2, order: weak-first"),
            ("epochs: 2", "epochs: 2, order: {audio: 3}"),
            ("lr: 0.1", "lr: 0.2"),
            ("momentum: 0.9}}\nschedule", "momentum: 0.9, weight_decay: 0.1, schedule: {kind: cosine}}}\nschedule"),
            ("labels: 3", "labels: 3\nfusion: mean\nevaluation: {every: 2 turns}\ncheckpoints: {keep: 9, to: there}"),
        ] {
            let changed = JOB.replace(was, is);
            assert_ne!(changed, JOB, "{was}");
            assert_eq!(same_job(&spec(JOB), &spec(&changed)), Ok(()), "{is}");
        }
    }

    #[test]
    fn whatever_else_changes_is_named_with_both_values() {
        for (was, is, path, before, now) in [
            ("seed: 5", "seed: 6", "seed", "5", "6"),
            ("labels: 3", "labels: 4", "labels.classes", "3", "4"),
            ("width: 4", "width: 5", "head.width", "4", "5"),
            ("batch: 4", "batch: 8", "schedule.batch", "4", "8"),
            ("hidden: [8]", "hidden: [9]", "modalities.image.encoder.hidden", "[8]", "[9]"),
            ("kind: mlp, hidden: [8]", "kind: cnn", "modalities.image.encoder.kind", "\"mlp\"", "\"cnn\""),
            ("hidden: [8]", "hidden: [8], freeze: l*", "modalities.image.encoder.freeze", "[]", "[\"l*\"]"),
            ("hidden: [8]", "hidden: [8], adapter_lr: 2", "modalities.image.encoder.adapter_lr", "1.0", "2.0"),
            (
                "hidden: [8]",
                "hidden: [8], precision: bf16",
                "modalities.image.encoder.precision",
                "\"f32\"",
                "\"bf16\"",
            ),
            (
                "hidden: [8]",
                "hidden: [8], weights: w.pth",
                "modalities.image.encoder.weights",
                "null",
                "{\"from\":\"w.pth\",\"sha256\":null,\"strict\":true}",
            ),
            (
                "{kind: sgd, lr: 0.1, momentum: 0.9}}\n  a",
                "{kind: adamw}}\n  a",
                "modalities.image.optimizer.kind",
                "\"sgd\"",
                "\"adamw\"",
            ),
            ("audio:", "text:", "modalities", "[image, audio]", "[image, text]"),
            ("t.parquet", "u.parquet", "modalities.audio.data.train", "[\"t.parquet\"]", "[\"u.parquet\"]"),
        ] {
            let changed = JOB.replace(was, is);
            let message = same_job(&spec(JOB), &spec(&changed)).expect_err(is).to_string();
            let expected = format!("it was written with {path} {before}, but the job has {now}; ");
            let remedy = match (path, was) {
                ("modalities", _) => "this is another job, so resume from a checkpoint of this one".to_owned(),
                // Both modalities inherit it.
                (_, "t.parquet") => "1 more field differs; use the job file and the `--set` options of the first run, \
                                     or a checkpoint of this job"
                    .to_owned(),
                (path, _) => format!("set {path} to the old value to resume from it"),
            };
            assert_eq!(message, expected + &remedy);
        }
    }
}
