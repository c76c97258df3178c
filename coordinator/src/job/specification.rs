//! A job's specification in this process: parsed once, and serialised once.

use std::ops::Deref;
use std::sync::Arc;

use antiphon_core::spec::{JobSpec, SpecErrors};

/// A parsed specification and its canonical JSON. Clones share both.
#[derive(Debug, Clone)]
pub struct Specification {
    spec: Arc<JobSpec>,
    json: Arc<str>,
}

impl Specification {
    /// Reads what [`Self::json`] returned for the same job, in this process or an earlier one.
    ///
    /// # Errors
    /// As [`JobSpec::from_json`].
    pub fn from_json(json: &str) -> Result<Self, SpecErrors> {
        Ok(Self { spec: Arc::new(JobSpec::from_json(json)?), json: json.into() })
    }

    /// The specification as [`JobSpec::to_json`] writes it.
    #[must_use]
    pub fn json(&self) -> &Arc<str> {
        &self.json
    }
}

impl From<JobSpec> for Specification {
    fn from(spec: JobSpec) -> Self {
        Self { json: spec.to_json().into(), spec: Arc::new(spec) }
    }
}

impl Deref for Specification {
    type Target = JobSpec;

    fn deref(&self) -> &JobSpec {
        &self.spec
    }
}
