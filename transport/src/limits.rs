//! Size limits of connections.

/// The frame size, in bytes. Most tensors fit one frame; with the default of 16 KiB, a head of 300 kB would take
/// twenty.
pub(crate) const FRAME: u32 = 1 << 20;
/// The flow-control window per stream, in bytes: several tensors.
pub(crate) const STREAM_WINDOW: u32 = 8 << 20;
/// The flow-control window of a server's connection, over all streams.
pub(crate) const CONNECTION_WINDOW: u32 = 32 << 20;
/// The flow-control window of a client's connection. One stream carries all its tensors.
pub(crate) const CLIENT_CONNECTION_WINDOW: u32 = STREAM_WINDOW;
