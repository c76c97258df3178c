//! One sample of one modality before decoding, as every source of data yields it.

use bytes::Bytes;

/// A value of a column.
#[derive(Debug, Clone, PartialEq)]
pub enum RawValue {
    /// An image or audio file as it was stored: PNG, JPEG, WAV, FLAC or MP3.
    Bytes(Bytes),
    /// The frames taken from a list of images, in order. Not empty.
    Clip(Vec<Frame>),
    /// UTF-8 text.
    Text(String),
    /// A feature vector.
    Features(Vec<f32>),
}

impl RawValue {
    /// A description for messages.
    #[must_use]
    pub fn what(&self) -> &'static str {
        match self {
            Self::Bytes(_) => "a file's bytes",
            Self::Clip(_) => "a list of images",
            Self::Text(_) => "text",
            Self::Features(_) => "a list of numbers",
        }
    }
}

/// One image of a clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The position in the clip, from 0.
    pub position: u32,
    /// The bytes of a PNG or JPEG file.
    pub bytes: Bytes,
}

/// One sample of one modality.
#[derive(Debug, Clone, PartialEq)]
pub struct RawRow {
    /// The id, which pairs samples across modalities. Unique in its split.
    pub id: String,
    /// The class, below the job's number of classes.
    pub label: u32,
    /// The value. None if the sample lacks this modality.
    pub value: Option<RawValue>,
}
