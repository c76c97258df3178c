//! Fields of several objects.

use antiphon_core::reference::{Field, Kind};

pub(super) const JOB: Field = Field::new("job", Kind::Text, "Id of the job.");
pub(super) const CHECKPOINT: Field = Field::new("checkpoint", Kind::Text, "URL or path of the checkpoint.");
