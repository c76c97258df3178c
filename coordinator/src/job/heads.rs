//! The heads that may have to be granted again: those of every step since the checkpoints that a replacement may begin from.
//! In memory up to a bound, then in a temporary file; before that is full a checkpoint is due, which lets go of them.
//!
//! The file is written by a thread of its own, so that turns do not wait for a disk that keeps up with them: at most
//! [`BEHIND`] heads are on their way to it, in memory beside those that stay there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, mpsc};

use antiphon_core::head::Head;
use antiphon_core::ids::HeadVersion;
use antiphon_core::linalg::Matrix;
use antiphon_core::turn::HeadRoom;
use tracing::warn;

use super::contract::HeadRoomLimits;

/// Heads that may be on their way to the file before turns wait for it.
const BEHIND: usize = 2;

/// Heads of C by s, by their version.
#[derive(Debug)]
pub(super) struct GrantedHeads {
    classes: usize,
    width: usize,
    /// How many fit in memory, and in all.
    in_memory: usize,
    at_most: usize,
    /// Heads that a turn needs.
    turn: usize,
    memory: BTreeMap<HeadVersion, Arc<Head<f32>>>,
    /// The place of each head in the file, counted in heads.
    spilled: BTreeMap<HeadVersion, u64>,
    /// Of these, the heads that are on their way to it.
    writing: BTreeMap<HeadVersion, Arc<Head<f32>>>,
    /// Places in the file so far, and those of them whose heads are forgotten.
    places: u64,
    free: Vec<u64>,
    spill: Option<Spill>,
    /// It did not take a head, and no head has been let go of since.
    full: bool,
}

/// The temporary file, and the thread that writes it: in order, so that of two heads for one place the later one stays.
#[derive(Debug)]
struct Spill {
    file: Arc<File>,
    orders: mpsc::Sender<Order>,
    done: mpsc::Receiver<(HeadVersion, io::Result<()>)>,
    /// Ordered and not done yet.
    behind: usize,
}

/// A head to be written.
#[derive(Debug)]
struct Order {
    version: HeadVersion,
    head: Arc<Head<f32>>,
    /// In bytes.
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
                    // The job is over.
                    return;
                }
            }
        })?;
        Ok(Self { file, orders, done, behind: 0 })
    }
}

impl GrantedHeads {
    /// None so far. There is room for the heads of three turns of `steps` steps, whatever the limits.
    pub(super) fn new(classes: usize, width: usize, steps: u32, limits: HeadRoomLimits) -> Self {
        let bytes = Self::bytes(classes, width).max(1);
        let heads = |limit: u64| usize::try_from(limit / bytes).unwrap_or(usize::MAX);
        let turn = steps as usize;
        let in_memory = heads(limits.memory).max(1);
        Self {
            classes,
            width,
            in_memory,
            at_most: in_memory.saturating_add(heads(limits.disk)).max(turn.saturating_mul(3).saturating_add(1)),
            turn,
            memory: BTreeMap::new(),
            spilled: BTreeMap::new(),
            writing: BTreeMap::new(),
            places: 0,
            free: Vec::new(),
            spill: None,
            full: false,
        }
    }

    fn bytes(classes: usize, width: usize) -> u64 {
        let numbers = (classes as u64).saturating_mul(width as u64 + 1);
        numbers.saturating_mul(size_of::<f32>() as u64)
    }

    /// How much room there is for more.
    pub(super) fn room(&self) -> HeadRoom {
        let kept = self.memory.len() + self.spilled.len();
        // This turn may have been granted its successor before anybody heard.
        if self.full || kept.saturating_add(self.turn.saturating_mul(2)) > self.at_most {
            HeadRoom::Full
        } else if kept > self.at_most / 2 {
            HeadRoom::Low
        } else {
            HeadRoom::Ample
        }
    }

    /// Keeps the head of this version. Where the temporary file takes no more, heads stay in memory, and there is no room
    /// for others until a checkpoint lets go of some. Waits only for a file that is behind by more than [`BEHIND`].
    pub(super) fn keep(&mut self, version: HeadVersion, head: Arc<Head<f32>>) {
        self.memory.insert(version, head);
        self.note_written(BEHIND);
        while self.memory.len() > self.in_memory
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
    /// It is not kept, or the temporary file cannot be read.
    pub(super) fn get(&mut self, version: HeadVersion) -> io::Result<Arc<Head<f32>>> {
        if let Some(head) = self.memory.get(&version).or_else(|| self.writing.get(&version)) {
            return Ok(Arc::clone(head));
        }
        let place = self.spilled.get(&version).copied();
        let place = place.ok_or_else(|| io::Error::other(format!("head version {version} is not kept")))?;
        self.read(place).map(Arc::new)
    }

    /// Lets go of these.
    pub(super) fn forget(&mut self, versions: &[HeadVersion]) {
        self.full = false;
        for version in versions {
            self.memory.remove(version);
            self.writing.remove(version);
            self.free.extend(self.spilled.remove(version));
        }
    }

    /// Has a head written.
    fn write(&mut self, version: HeadVersion, head: &Arc<Head<f32>>) -> io::Result<()> {
        let spill = match &mut self.spill {
            Some(spill) => spill,
            None => self.spill.insert(Spill::start(tempfile::tempfile()?)?),
        };
        let place = self.free.pop().unwrap_or(self.places);
        let order = Order { version, head: Arc::clone(head), at: place * Self::bytes(self.classes, self.width) };
        if spill.orders.send(order).is_err() {
            self.free.extend((place < self.places).then_some(place));
            return Err(io::Error::other("the thread that writes it has ended"));
        }
        spill.behind += 1;
        self.places = self.places.max(place + 1);
        self.spilled.insert(version, place);
        self.writing.insert(version, Arc::clone(head));
        Ok(())
    }

    /// Notes what the file has by now, and waits while it lacks more than `behind`.
    fn note_written(&mut self, behind: usize) {
        while let Some(spill) = &mut self.spill {
            let done = if spill.behind > behind { spill.done.recv().ok() } else { spill.done.try_recv().ok() };
            let Some((version, written)) = done else { return };
            spill.behind -= 1;
            // One that was forgotten meanwhile is nobody's loss.
            let Some(head) = self.writing.remove(&version) else { continue };
            if let Err(error) = written {
                self.free.extend(self.spilled.remove(&version));
                self.stays(version, head, &error);
            }
        }
    }

    /// A head that the file does not take.
    fn stays(&mut self, version: HeadVersion, head: Arc<Head<f32>>, error: &io::Error) {
        warn!(%error, "a head that may be granted again cannot be written to TMPDIR and stays in memory");
        self.memory.insert(version, head);
        self.full = true;
    }

    fn read(&self, place: u64) -> io::Result<Head<f32>> {
        let at = place * Self::bytes(self.classes, self.width);
        let spill = self.spill.as_ref().ok_or_else(|| io::Error::other("nothing was written"))?;
        let mut weight = vec![0.0_f32; self.classes * self.width];
        let mut bias = vec![0.0_f32; self.classes];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut weight);
        spill.file.read_exact_at(bytes, at)?;
        let behind_it = at + bytes.len() as u64;
        spill.file.read_exact_at(bytemuck::cast_slice_mut(&mut bias), behind_it)?;
        let weight = Matrix::from_vec(self.classes, self.width, weight).map_err(io::Error::other)?;
        Head::new(weight, bias).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(seed: u64) -> Arc<Head<f32>> {
        Arc::new(Head::initial(seed, 3, 4))
    }

    /// Room for two in memory and six in all; a head takes 60 bytes.
    fn heads(steps: u32) -> GrantedHeads {
        GrantedHeads::new(3, 4, steps, HeadRoomLimits { memory: 130, disk: 250 })
    }

    #[test]
    fn what_does_not_fit_in_memory_comes_back_from_the_file() {
        let mut kept = heads(1);
        for version in 0..6 {
            kept.keep(HeadVersion(version), head(version));
            assert!(kept.spill.as_ref().is_none_or(|spill| spill.behind <= BEHIND), "turns wait for a slow disk");
        }
        assert_eq!((kept.memory.len(), kept.spilled.len()), (2, 4));
        for version in [3, 0, 5, 1, 4, 2] {
            assert_eq!(kept.get(HeadVersion(version)).expect("it is kept"), head(version));
        }
        kept.forget(&[HeadVersion(1), HeadVersion(2)]);
        assert!(kept.get(HeadVersion(1)).is_err());
        for version in 6..8 {
            kept.keep(HeadVersion(version), head(version));
        }
        assert_eq!(kept.spilled.values().max(), Some(&3), "places are used again");
        for version in [0, 3, 4, 5, 6, 7] {
            assert_eq!(kept.get(HeadVersion(version)).expect("it is kept"), head(version), "version {version}");
        }
    }

    #[test]
    fn heads_come_back_from_the_file_alone() {
        let mut kept = heads(1);
        for version in 0..5 {
            kept.keep(HeadVersion(version), head(version));
        }
        kept.forget(&[HeadVersion(0)]);
        // In the place of the one that is forgotten, which may still be on its way there.
        kept.keep(HeadVersion(5), head(5));
        kept.note_written(0);
        assert!(kept.writing.is_empty(), "{:?}", kept.writing.keys());
        for version in 1..6 {
            assert_eq!(kept.get(HeadVersion(version)).expect("it is kept"), head(version), "version {version}");
        }
    }

    #[test]
    fn what_the_file_does_not_take_stays_in_memory_and_there_is_no_room_until_some_are_let_go_of() {
        let mut kept = heads(1);
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("there is always a full device");
        kept.spill = Some(Spill::start(full).expect("a thread starts"));
        for version in 0..4 {
            kept.keep(HeadVersion(version), head(version));
        }
        kept.note_written(0);
        assert_eq!((kept.memory.len(), kept.spilled.len(), kept.room()), (4, 0, HeadRoom::Full));
        for version in 0..4 {
            assert_eq!(kept.get(HeadVersion(version)).expect("it is kept"), head(version));
        }
        kept.keep(HeadVersion(4), head(4));
        assert_eq!(kept.memory.len(), 5, "it is not tried again");
        kept.spill = None;
        kept.forget(&[0, 1, 2, 3].map(HeadVersion));
        kept.keep(HeadVersion(5), head(5));
        kept.keep(HeadVersion(6), head(6));
        kept.note_written(0);
        assert_eq!((kept.memory.len(), kept.spilled.len()), (2, 1), "and then it is");
        assert_eq!(kept.room(), HeadRoom::Ample);
        assert_eq!(kept.get(HeadVersion(4)).expect("it is kept"), head(4));
    }

    #[test]
    fn room_ends_before_a_turn_would_not_fit() {
        let room = |steps: u32, count: u64| {
            let mut kept = heads(steps);
            (0..count).for_each(|version| kept.keep(HeadVersion(version), head(0)));
            kept.room()
        };
        assert_eq!([0, 3].map(|count| room(1, count)), [HeadRoom::Ample; 2]);
        assert_eq!(room(1, 4), HeadRoom::Low);
        assert_eq!([5, 6].map(|count| room(1, count)), [HeadRoom::Full; 2]);
        // At most ten: three turns and one.
        assert_eq!([room(3, 4), room(3, 5)], [HeadRoom::Ample, HeadRoom::Full], "a turn of three steps must fit");
        assert_eq!(room(100, 50), HeadRoom::Ample, "and three turns do, whatever the limits");
    }
}
