//! The replay buffer: the heads of every step since the checkpoints from which a replacement worker may start. The
//! worker replays its steps under these heads.
//!
//! The buffer is in memory up to a limit, then in a temporary file. Before the file is full, a checkpoint becomes due,
//! which frees heads. A thread writes the file, so turns wait only for a disk that is too slow. At most [`BEHIND`]
//! heads wait to be written; they are in memory in addition to the heads that stay there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, mpsc};

use antiphon_core::head::Head;
use antiphon_core::ids::HeadVersion;
use antiphon_core::linalg::Matrix;
use antiphon_core::turn::ReplayBufferLevel;
use tracing::warn;

use super::super::contract::ReplayBufferLimits;

/// The number of heads that may wait to be written before turns wait for the file.
const BEHIND: usize = 2;

/// Granted heads of C × s, by version.
#[derive(Debug)]
pub(super) struct ReplayBuffer {
    capacity: Capacity,
    memory: BTreeMap<HeadVersion, Arc<Head<f32>>>,
    file: FileSlots,
    /// Heads in [`FileSlots::used`] that are not written yet.
    writing: BTreeMap<HeadVersion, Arc<Head<f32>>>,
    spill: Option<Spill>,
    /// Whether a write to the file failed and no head was forgotten since.
    full: bool,
}

/// The number of heads that fit.
#[derive(Debug, Clone, Copy)]
struct Capacity {
    classes: usize,
    width: usize,
    /// Heads that fit in memory.
    in_memory: usize,
    /// Heads that fit in memory and in the file together.
    at_most: usize,
    /// Heads per turn.
    turn: usize,
}

/// The slots of the file and the heads in them.
#[derive(Debug, Default)]
struct FileSlots {
    used: BTreeMap<HeadVersion, u64>,
    /// The number of slots of the file.
    count: u64,
    /// Slots whose heads are forgotten.
    free: Vec<u64>,
}

impl FileSlots {
    /// Takes a free slot.
    fn take(&mut self) -> u64 {
        self.free.pop().unwrap_or(self.count)
    }

    /// Records that `slot`, from [`Self::take`], holds the head of this version.
    fn put(&mut self, version: HeadVersion, slot: u64) {
        self.count = self.count.max(slot + 1);
        self.used.insert(version, slot);
    }

    /// Returns an unused slot from [`Self::take`].
    fn give_back(&mut self, slot: u64) {
        self.free.extend((slot < self.count).then_some(slot));
    }

    fn forget(&mut self, version: HeadVersion) {
        self.free.extend(self.used.remove(&version));
    }
}

/// The temporary file, and the thread that writes it in order, so that the later of two heads in one slot remains.
#[derive(Debug)]
struct Spill {
    file: Arc<File>,
    orders: mpsc::Sender<Order>,
    done: mpsc::Receiver<(HeadVersion, io::Result<()>)>,
    /// The number of heads that are ordered and not written yet.
    behind: usize,
}

/// A head to write.
#[derive(Debug)]
struct Order {
    version: HeadVersion,
    head: Arc<Head<f32>>,
    /// The position in the file, in bytes.
    at: u64,
}

impl Spill {
    fn start(file: File) -> io::Result<Self> {
        let file = Arc::new(file);
        let (orders, queue) = mpsc::channel::<Order>();
        let (tell, done) = mpsc::channel();
        let written = Arc::clone(&file);
        std::thread::Builder::new().name("heads".to_owned()).spawn(move || {
            for Order { version, head, at } in queue {
                let weight: &[u8] = bytemuck::cast_slice(head.weight().as_slice());
                let bias = bytemuck::cast_slice(head.bias());
                let write = written.write_all_at(weight, at);
                let write = write.and_then(|()| written.write_all_at(bias, at + weight.len() as u64));
                drop(head);
                if tell.send((version, write)).is_err() {
                    // The job has ended.
                    return;
                }
            }
        })?;
        Ok(Self { file, orders, done, behind: 0 })
    }
}

impl ReplayBuffer {
    /// An empty buffer. The heads of three turns of `steps` steps always fit, regardless of the limits.
    pub(super) fn new(classes: usize, width: usize, steps: u32, limits: ReplayBufferLimits) -> Self {
        let bytes = Self::bytes(classes, width).max(1);
        let heads = |limit: u64| usize::try_from(limit / bytes).unwrap_or(usize::MAX);
        let turn = steps as usize;
        let in_memory = heads(limits.memory).max(1);
        let at_most = in_memory.saturating_add(heads(limits.disk)).max(turn.saturating_mul(3).saturating_add(1));
        Self {
            capacity: Capacity { classes, width, in_memory, at_most, turn },
            memory: BTreeMap::new(),
            file: FileSlots::default(),
            writing: BTreeMap::new(),
            spill: None,
            full: false,
        }
    }

    fn bytes(classes: usize, width: usize) -> u64 {
        let numbers = (classes as u64).saturating_mul(width as u64 + 1);
        numbers.saturating_mul(size_of::<f32>() as u64)
    }

    /// The level of the buffer.
    pub(super) fn level(&self) -> ReplayBufferLevel {
        let Capacity { at_most, turn, .. } = self.capacity;
        let heads = self.memory.len() + self.file.used.len();
        // The next turn may have been granted before the machine received the level.
        if self.full || heads.saturating_add(turn.saturating_mul(2)) > at_most {
            ReplayBufferLevel::Full
        } else if heads > at_most / 2 {
            ReplayBufferLevel::High
        } else {
            ReplayBufferLevel::Normal
        }
    }

    /// Adds the head of this version. If the temporary file fails, heads stay in memory, and the buffer is full until a
    /// checkpoint frees some. Waits only if more than [`BEHIND`] heads are not written yet.
    pub(super) fn add(&mut self, version: HeadVersion, head: Arc<Head<f32>>) {
        self.memory.insert(version, head);
        self.note_written(BEHIND);
        while self.memory.len() > self.capacity.in_memory
            && !self.full
            && let Some((version, head)) = self.memory.pop_first()
        {
            if let Err(error) = self.write(version, &head) {
                return self.stays(version, head, &error);
            }
            self.note_written(BEHIND);
        }
    }

    /// The head of this version.
    ///
    /// # Errors
    /// If the buffer does not hold it, or the temporary file cannot be read.
    pub(super) fn get(&mut self, version: HeadVersion) -> io::Result<Arc<Head<f32>>> {
        if let Some(head) = self.memory.get(&version).or_else(|| self.writing.get(&version)) {
            return Ok(Arc::clone(head));
        }
        let slot = self.file.used.get(&version).copied();
        let slot = slot.ok_or_else(|| io::Error::other(format!("the buffer does not hold head version {version}")))?;
        self.read(slot).map(Arc::new)
    }

    /// Frees the heads of these versions.
    pub(super) fn forget(&mut self, versions: &[HeadVersion]) {
        self.full = false;
        for version in versions {
            self.memory.remove(version);
            self.writing.remove(version);
            self.file.forget(*version);
        }
    }

    /// Orders the thread to write a head.
    fn write(&mut self, version: HeadVersion, head: &Arc<Head<f32>>) -> io::Result<()> {
        let spill = match &mut self.spill {
            Some(spill) => spill,
            None => self.spill.insert(Spill::start(tempfile::tempfile()?)?),
        };
        let slot = self.file.take();
        let order = Order { version, head: Arc::clone(head), at: self.capacity.offset(slot) };
        if spill.orders.send(order).is_err() {
            self.file.give_back(slot);
            return Err(io::Error::other("the thread that writes it has ended"));
        }
        spill.behind += 1;
        self.file.put(version, slot);
        self.writing.insert(version, Arc::clone(head));
        Ok(())
    }

    /// Records which heads are written, and waits while more than `behind` are not.
    fn note_written(&mut self, behind: usize) {
        while let Some(spill) = &mut self.spill {
            let done = if spill.behind > behind { spill.done.recv().ok() } else { spill.done.try_recv().ok() };
            let Some((version, written)) = done else { return };
            spill.behind -= 1;
            // The head was forgotten in the meantime.
            let Some(head) = self.writing.remove(&version) else { continue };
            if let Err(error) = written {
                self.file.forget(version);
                self.stays(version, head, &error);
            }
        }
    }

    /// Keeps a head in memory that the file did not accept.
    fn stays(&mut self, version: HeadVersion, head: Arc<Head<f32>>, error: &io::Error) {
        warn!(%error, %version, "a head of the replay buffer cannot be written to TMPDIR and stays in memory");
        self.memory.insert(version, head);
        self.full = true;
    }

    fn read(&self, slot: u64) -> io::Result<Head<f32>> {
        let Capacity { classes, width, .. } = self.capacity;
        let at = self.capacity.offset(slot);
        let spill = self.spill.as_ref().ok_or_else(|| io::Error::other("nothing was written"))?;
        let mut weight = vec![0.0_f32; classes * width];
        let mut bias = vec![0.0_f32; classes];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut weight);
        spill.file.read_exact_at(bytes, at)?;
        let behind_it = at + bytes.len() as u64;
        spill.file.read_exact_at(bytemuck::cast_slice_mut(&mut bias), behind_it)?;
        let weight = Matrix::from_vec(classes, width, weight).map_err(io::Error::other)?;
        Head::new(weight, bias).map_err(io::Error::other)
    }
}

impl Capacity {
    /// The position of a slot in the file, in bytes.
    fn offset(self, slot: u64) -> u64 {
        slot * ReplayBuffer::bytes(self.classes, self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(seed: u64) -> Arc<Head<f32>> {
        Arc::new(Head::initial(seed, 3, 4))
    }

    /// A buffer with space for two heads in memory and six in total. A head takes 60 bytes.
    fn heads(steps: u32) -> ReplayBuffer {
        ReplayBuffer::new(3, 4, steps, ReplayBufferLimits { memory: 130, disk: 250 })
    }

    #[test]
    fn what_does_not_fit_in_memory_comes_back_from_the_file() {
        let mut buffer = heads(1);
        for version in 0..6 {
            buffer.add(HeadVersion(version), head(version));
            assert!(buffer.spill.as_ref().is_none_or(|spill| spill.behind <= BEHIND), "turns wait for a slow disk");
        }
        assert_eq!((buffer.memory.len(), buffer.file.used.len()), (2, 4));
        for version in [3, 0, 5, 1, 4, 2] {
            assert_eq!(buffer.get(HeadVersion(version)).expect("the buffer holds it"), head(version));
        }
        buffer.forget(&[HeadVersion(1), HeadVersion(2)]);
        assert!(buffer.get(HeadVersion(1)).is_err());
        for version in 6..8 {
            buffer.add(HeadVersion(version), head(version));
        }
        assert_eq!(buffer.file.used.values().max(), Some(&3), "slots are used again");
        for version in [0, 3, 4, 5, 6, 7] {
            assert_eq!(
                buffer.get(HeadVersion(version)).expect("the buffer holds it"),
                head(version),
                "version {version}"
            );
        }
    }

    #[test]
    fn heads_come_back_from_the_file_alone() {
        let mut buffer = heads(1);
        for version in 0..5 {
            buffer.add(HeadVersion(version), head(version));
        }
        buffer.forget(&[HeadVersion(0)]);
        // Into the slot of a forgotten head, which may not be written yet.
        buffer.add(HeadVersion(5), head(5));
        buffer.note_written(0);
        assert!(buffer.writing.is_empty(), "{:?}", buffer.writing.keys());
        for version in 1..6 {
            assert_eq!(
                buffer.get(HeadVersion(version)).expect("the buffer holds it"),
                head(version),
                "version {version}"
            );
        }
    }

    #[test]
    fn heads_that_the_file_does_not_take_stay_in_memory() {
        let mut buffer = heads(1);
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("there is always a full device");
        buffer.spill = Some(Spill::start(full).expect("a thread starts"));
        for version in 0..4 {
            buffer.add(HeadVersion(version), head(version));
        }
        buffer.note_written(0);
        assert_eq!((buffer.memory.len(), buffer.file.used.len(), buffer.level()), (4, 0, ReplayBufferLevel::Full));
        for version in 0..4 {
            assert_eq!(buffer.get(HeadVersion(version)).expect("the buffer holds it"), head(version));
        }
        buffer.add(HeadVersion(4), head(4));
        assert_eq!(buffer.memory.len(), 5, "it is not tried again");
        buffer.spill = None;
        buffer.forget(&[0, 1, 2, 3].map(HeadVersion));
        buffer.add(HeadVersion(5), head(5));
        buffer.add(HeadVersion(6), head(6));
        buffer.note_written(0);
        assert_eq!((buffer.memory.len(), buffer.file.used.len()), (2, 1), "and then it is");
        assert_eq!(buffer.level(), ReplayBufferLevel::Normal);
        assert_eq!(buffer.get(HeadVersion(4)).expect("the buffer holds it"), head(4));
    }

    #[test]
    fn the_buffer_is_full_before_a_turn_would_not_fit() {
        let level = |steps: u32, count: u64| {
            let mut buffer = heads(steps);
            (0..count).for_each(|version| buffer.add(HeadVersion(version), head(0)));
            buffer.level()
        };
        assert_eq!([0, 3].map(|count| level(1, count)), [ReplayBufferLevel::Normal; 2]);
        assert_eq!(level(1, 4), ReplayBufferLevel::High);
        assert_eq!([5, 6].map(|count| level(1, count)), [ReplayBufferLevel::Full; 2]);
        // At most ten heads: three turns and one.
        assert_eq!(
            [level(3, 4), level(3, 5)],
            [ReplayBufferLevel::Normal, ReplayBufferLevel::Full],
            "a turn of three steps must fit"
        );
        assert_eq!(level(100, 50), ReplayBufferLevel::Normal, "and three turns do, whatever the limits");
    }
}
