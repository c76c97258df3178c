//! The stored bytes of a split's samples: in memory up to a bound, beyond it in a temporary file.
//!
//! Bytes are stored in blocks of [`BLOCK`], and no sample spans two blocks. Once the blocks exceed the bound, all of
//! them move to an unlinked temporary file. Samples are read from it by position, in any order and by many threads at
//! once. At most the bound, one block and the samples being read are in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::Bytes;

use super::error::DataError;

/// Bytes per block.
const BLOCK: usize = 4 << 20;

/// The position of a sample's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Bytes from the beginning of the payload.
    pub(super) offset: u64,
    /// The length in bytes.
    pub(super) length: u32,
}

/// Collects the bytes of samples.
#[derive(Debug)]
pub(super) struct PayloadWriter {
    blocks: Vec<Bytes>,
    starts: Vec<u64>,
    open: Vec<u8>,
    open_start: u64,
    bound: u64,
    folder: PathBuf,
    file: Option<File>,
}

/// The collected bytes of samples.
#[derive(Debug)]
pub(super) enum Payload {
    /// Blocks and where each starts.
    Memory { blocks: Vec<Bytes>, starts: Vec<u64> },
    /// The unlinked file and the folder it was in.
    Spool { file: File, folder: PathBuf },
}

impl PayloadWriter {
    /// A writer that keeps up to `bound` bytes in memory, and otherwise all bytes in an unnamed file in `folder`.
    pub(super) fn new(bound: u64, folder: PathBuf) -> Self {
        Self { blocks: Vec::new(), starts: Vec::new(), open: Vec::new(), open_start: 0, bound, folder, file: None }
    }

    /// Appends one sample. It may have at most 4 GiB − 1.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Span, DataError> {
        if !self.open.is_empty() && self.open.len() + bytes.len() > BLOCK {
            self.seal()?;
        }
        let offset = self.open_start + self.open.len() as u64;
        self.open.extend_from_slice(bytes);
        Ok(Span { offset, length: bytes.len() as u32 })
    }

    /// The payload, after the last sample.
    pub(super) fn finish(mut self) -> Result<Payload, DataError> {
        self.seal()?;
        Ok(match self.file {
            Some(file) => Payload::Spool { file, folder: self.folder },
            None => Payload::Memory { blocks: self.blocks, starts: self.starts },
        })
    }

    fn seal(&mut self) -> Result<(), DataError> {
        let block = std::mem::take(&mut self.open);
        let (start, end) = (self.open_start, self.open_start + block.len() as u64);
        self.open_start = end;
        if self.file.is_none() && end > self.bound {
            let file = tempfile::tempfile_in(&self.folder).map_err(|source| self.spool_error(source))?;
            for (block, start) in self.blocks.drain(..).zip(self.starts.drain(..)) {
                file.write_all_at(&block, start).map_err(|source| spool_error(&self.folder, source))?;
            }
            self.file = Some(file);
        }
        match &self.file {
            Some(file) => file.write_all_at(&block, start).map_err(|source| self.spool_error(source)),
            None => {
                self.blocks.push(block.into());
                self.starts.push(start);
                Ok(())
            }
        }
    }

    fn spool_error(&self, source: std::io::Error) -> DataError {
        spool_error(&self.folder, source)
    }
}

impl Payload {
    /// One sample's bytes: shared with the block in memory, or read from the file.
    pub(super) fn read(&self, span: Span) -> Result<Bytes, DataError> {
        match self {
            Self::Memory { blocks, starts } => {
                let block = starts.partition_point(|start| *start <= span.offset).saturating_sub(1);
                let from = (span.offset - starts[block]) as usize;
                Ok(blocks[block].slice(from..from + span.length as usize))
            }
            Self::Spool { file, folder } => {
                let mut bytes = vec![0; span.length as usize];
                file.read_exact_at(&mut bytes, span.offset).map_err(|source| spool_error(folder, source))?;
                Ok(bytes.into())
            }
        }
    }

    /// Whether the samples are in a temporary file.
    pub(super) fn is_spooled(&self) -> bool {
        matches!(self, Self::Spool { .. })
    }
}

fn spool_error(folder: &std::path::Path, source: std::io::Error) -> DataError {
    DataError::Spool { folder: folder.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Vec<u8>> {
        (0..40_usize).map(|i| vec![i as u8; [0, 1, 700_000, 5 << 20][i % 4]]).collect()
    }

    fn gathered(bound: u64) -> (Payload, Vec<Span>) {
        let mut writer = PayloadWriter::new(bound, std::env::temp_dir());
        let spans = samples().iter().map(|sample| writer.push(sample).expect("there is room")).collect();
        (writer.finish().expect("there is room"), spans)
    }

    #[test]
    fn values_come_out_in_any_order_from_memory_and_file() {
        for (bound, spooled) in [(u64::MAX, false), (30 << 20, true), (0, true)] {
            let (payload, spans) = gathered(bound);
            assert_eq!(payload.is_spooled(), spooled);
            for (sample, span) in samples().iter().zip(&spans).rev() {
                assert_eq!(payload.read(*span).expect("it is there"), sample.as_slice());
            }
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let mut writer = PayloadWriter::new(0, "/nonexistent/folder".into());
        writer.push(b"x").expect("still in memory");
        let message = writer.finish().expect_err("no such folder").to_string();
        assert!(message.contains("`/nonexistent/folder`") && message.contains("TMPDIR"), "{message}");
    }
}
