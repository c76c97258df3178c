//! Sizes of what crosses a connection.

/// One frame for most tensors: with the default of 16 KiB a head of 300 kB takes twenty.
pub(crate) const FRAME: u32 = 1 << 20;
/// Bytes in flight per stream before the reader has to agree to more: several tensors.
pub(crate) const STREAM_WINDOW: u32 = 8 << 20;
/// The same for all streams of a connection that a server reads.
pub(crate) const CONNECTION_WINDOW: u32 = 32 << 20;
/// The same for all streams of a connection that a client reads: one stream carries its tensors.
pub(crate) const CLIENT_CONNECTION_WINDOW: u32 = STREAM_WINDOW;
