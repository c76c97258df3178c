//! Names and counters that crates exchange: newtypes, so that a turn is never mistaken for a version.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A text that is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a {what}: {RULE}")]
pub struct BadName {
    /// The kind of name: `job name`, `modality`, `job id`.
    pub what: &'static str,
    /// The text as it was given.
    pub given: String,
}

/// Bytes that the id of a sample may have.
pub const SAMPLE_ID_LIMIT: usize = 1024;

const RULE: &str =
    "use 1 to 63 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen";

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes[bytes.len() - 1] != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as a string slice.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                if is_name(&text) { Ok(Self(text)) } else { Err(BadName { what: $what, given: text }) }
            }
        }

        impl TryFrom<&str> for $type {
            type Error = BadName;
            fn try_from(text: &str) -> Result<Self, BadName> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// Identifies a job permanently. It is a DNS label, so it can be a folder, an object key and a Kubernetes name.
    JobId,
    "job id"
);
name!(
    /// Made by a client for one submission, and sent with every retry of it.
    RequestId,
    "request id"
);
name!(
    /// The `name:` of a job file. Many jobs may share it.
    JobName,
    "job name"
);
name!(
    /// A modality of a job: `audio`, `image`, `text`, ...
    ModalityName,
    "modality"
);
name!(
    /// The name by which a program registers a custom encoder.
    EncoderName,
    "encoder"
);
name!(
    /// One worker process, unique among those that are connected.
    WorkerId,
    "worker id"
);

macro_rules! counter {
    ($(#[$doc:meta])* $type:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $type(pub $inner);

        impl $type {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// The time in which one coordinator is the leader. A newer term fences the older one.
    Term,
    u64
);
counter!(
    /// Counts turns of a job from 0, over all modalities.
    Turn,
    u64
);
counter!(
    /// A step (one batch) within a turn, from 0.
    Step,
    u32
);
counter!(
    /// Counts the grants of a turn, from 0.
    Attempt,
    u32
);
counter!(
    /// Counts the steps that the shared head has taken, from 0.
    HeadVersion,
    u64
);
counter!(
    /// A worker's right to a slot in a job.
    Lease,
    u64
);
counter!(
    /// Counts the evaluations of a job from 0.
    EvaluationId,
    u64
);

/// One of the micro-shards of a batch. Their number is fixed, whatever the number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MicroShard {
    /// From 0.
    pub index: u32,
    /// The number of micro-shards per batch.
    pub count: u32,
}

impl MicroShard {
    /// The whole batch as one micro-shard.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
}

/// Names one step of one attempt at one turn. Every message that could come late or twice carries it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TurnRef {
    /// The job.
    pub job: JobId,
    /// The term of the coordinator that granted the turn.
    pub term: Term,
    /// The turn.
    pub turn: Turn,
    /// The step within the turn.
    pub step: Step,
    /// The number of the grant of this turn, counted from 0.
    pub attempt: Attempt,
    /// The version of the head that was granted.
    pub head_version: HeadVersion,
}

/// One of the three splits of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Encoders and head are trained on it.
    Train,
    /// It selects the best checkpoint and tunes fusion weights.
    Validation,
    /// It is evaluated and reported, and never used to select anything.
    Test,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "audio", "image-2", &"x".repeat(63)] {
            assert_eq!(ModalityName::try_from(good).expect(good).as_str(), good);
        }
        for bad in ["", "Audio", "2d", "a_b", "a-", "ä", "a b", &"x".repeat(64)] {
            assert!(ModalityName::try_from(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_bad_name_says_what_and_why() {
        let message = ModalityName::try_from("My Modality").expect_err("it has a space").to_string();
        assert_eq!(
            message,
            "`My Modality` is not a modality: use 1 to 63 lower-case letters, digits and hyphens, \
             beginning with a letter and not ending with a hyphen"
        );
    }
}
