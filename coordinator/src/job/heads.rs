//! The heads that may have to be granted again: those of every step since the checkpoints that a replacement may begin from.
//! In memory up to a bound, then in a temporary file; before that is full a checkpoint is due, which lets go of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use antiphon_core::head::Head;
use antiphon_core::ids::HeadVersion;
use antiphon_core::linalg::Matrix;
use antiphon_core::turn::HeadRoom;
use tracing::warn;

/// Where so many heads of one size are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadRoomLimits {
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of a temporary file, in `TMPDIR`.
    pub disk: u64,
}

impl Default for HeadRoomLimits {
    fn default() -> Self {
        Self { memory: 512 << 20, disk: 16 << 30 }
    }
}

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
    /// Places whose heads are forgotten.
    free: Vec<u64>,
    file: Option<File>,
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
            free: Vec::new(),
            file: None,
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
        if kept.saturating_add(self.turn.saturating_mul(2)) > self.at_most {
            HeadRoom::Full
        } else if kept > self.at_most / 2 {
            HeadRoom::Low
        } else {
            HeadRoom::Ample
        }
    }

    /// Keeps the head of this version. Where the temporary file takes no more, this one stays in memory, and there is no room
    /// for others until a checkpoint lets go of some.
    pub(super) fn keep(&mut self, version: HeadVersion, head: Arc<Head<f32>>) {
        self.memory.insert(version, head);
        while self.memory.len() > self.in_memory
            && let Some((version, head)) = self.memory.pop_first()
        {
            match self.write(&head) {
                Ok(place) => drop(self.spilled.insert(version, place)),
                Err(error) => {
                    warn!(%error, "a head that may be granted again cannot be written to TMPDIR and stays in memory");
                    self.memory.insert(version, head);
                    self.at_most = self.memory.len() + self.spilled.len();
                    return;
                }
            }
        }
    }

    /// The head of this version.
    ///
    /// # Errors
    /// It is not kept, or the temporary file cannot be read.
    pub(super) fn get(&mut self, version: HeadVersion) -> io::Result<Arc<Head<f32>>> {
        if let Some(head) = self.memory.get(&version) {
            return Ok(Arc::clone(head));
        }
        let place = self.spilled.get(&version).copied();
        let place = place.ok_or_else(|| io::Error::other(format!("head version {version} is not kept")))?;
        self.read(place).map(Arc::new)
    }

    /// Lets go of these.
    pub(super) fn forget(&mut self, versions: &[HeadVersion]) {
        for version in versions {
            self.memory.remove(version);
            self.free.extend(self.spilled.remove(version));
        }
    }

    fn write(&mut self, head: &Head<f32>) -> io::Result<u64> {
        let place = self.free.pop().unwrap_or(self.spilled.len() as u64);
        let at = SeekFrom::Start(place * Self::bytes(self.classes, self.width));
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile()?),
        };
        file.seek(at)?;
        file.write_all(bytemuck::cast_slice(head.weight().as_slice()))?;
        file.write_all(bytemuck::cast_slice(head.bias()))?;
        Ok(place)
    }

    fn read(&mut self, place: u64) -> io::Result<Head<f32>> {
        let at = SeekFrom::Start(place * Self::bytes(self.classes, self.width));
        let file = self.file.as_mut().ok_or_else(|| io::Error::other("nothing was written"))?;
        let mut weight = vec![0.0_f32; self.classes * self.width];
        let mut bias = vec![0.0_f32; self.classes];
        file.seek(at)?;
        file.read_exact(bytemuck::cast_slice_mut(&mut weight))?;
        file.read_exact(bytemuck::cast_slice_mut(&mut bias))?;
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
