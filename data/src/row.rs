//! One sample of one modality, before it is decoded: what every source of data yields.

use bytes::Bytes;

/// What a column held.
#[derive(Debug, Clone, PartialEq)]
pub enum RawValue {
    /// An image or audio file as it was stored: PNG, JPEG, WAV, FLAC or MP3.
    Bytes(Bytes),
    /// What was taken of a list of images, in its order; not empty.
    Clip(Vec<Frame>),
    /// UTF-8 text.
    Text(String),
    /// A feature vector.
    Features(Vec<f32>),
}

impl RawValue {
    /// What it is, for messages.
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
    /// Its place in the clip, from 0.
    pub position: u32,
    /// PNG or JPEG.
    pub bytes: Bytes,
}

/// One sample of one modality.
#[derive(Debug, Clone, PartialEq)]
pub struct RawRow {
    /// Pairs samples across modalities; unique in its split.
    pub id: String,
    /// The class, below the job's number of classes.
    pub label: u32,
    /// None where the sample lacks this modality.
    pub value: Option<RawValue>,
}
