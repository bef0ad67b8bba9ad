//! A device in memory that remembers every operation, may run out of room, and fails when told to.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use atomix_storage::StorageError;
use parking_lot::Mutex;
use redb::StorageBackend;

use crate::directory::{Format, Home};

/// Room is taken in pieces of this length.
const BLOCK: usize = 4096;
/// Devices write this much at once, or nothing of it.
pub(super) const SECTOR: usize = 512;

/// Something that changes the file.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Extend(usize),
    Write(usize, Vec<u8>),
    Sync,
    /// The file got its name, durably.
    Named,
}

/// What can be told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Read,
    Extend,
    Write,
    Sync,
}

/// Clones are handles to one device.
#[derive(Clone, Debug, Default)]
pub(super) struct Device(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    file: Vec<u8>,
    /// Whether the file has its name: without it, a start finds nothing.
    named: bool,
    operations: Vec<Operation>,
    blocks: BTreeSet<usize>,
    /// Blocks that can still be taken; unbounded if `None`.
    room: Option<usize>,
    reserve: bool,
    /// The call that fails, counted from now; all after it do too.
    fails: Option<(Call, usize)>,
}

/// Blocks held in reserve.
pub(super) const RESERVE: usize = 64;

impl Device {
    pub(super) fn of(file: Vec<u8>, named: bool) -> Device {
        Device(Arc::new(Mutex::new(State { file, named, ..State::default() })))
    }

    pub(super) fn image(&self) -> (Vec<u8>, bool) {
        let state = self.0.lock();
        (state.file.clone(), state.named)
    }

    pub(super) fn forget_operations(&self) {
        self.0.lock().operations.clear();
    }

    pub(super) fn operations(&self) -> Vec<Operation> {
        self.0.lock().operations.clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.0.lock().file);
    }

    /// So much room is left, in blocks.
    pub(super) fn set_room(&self, room: usize) {
        self.0.lock().room = Some(room);
    }

    pub(super) fn fail(&self, call: Call, after: usize) {
        self.0.lock().fails = Some((call, after));
    }

    /// The file in this process, as redb uses it.
    pub(super) fn backend(&self) -> Handle {
        Handle(self.clone())
    }
}

impl State {
    fn called(&mut self, call: Call) -> io::Result<()> {
        match &mut self.fails {
            Some((which, 0)) if *which == call => Err(io::Error::other("the device is gone")),
            Some((which, left)) if *which == call => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn take(&mut self, blocks: usize) -> io::Result<()> {
        let Some(room) = &mut self.room else { return Ok(()) };
        *room = room.checked_sub(blocks).ok_or(io::ErrorKind::StorageFull)?;
        Ok(())
    }
}

impl Home for Device {
    fn file(&self, format: Format<'_>) -> Result<Box<dyn StorageBackend>, StorageError> {
        let named = self.0.lock().named;
        if !named {
            self.0.lock().file.clear();
            format(Box::new(self.backend()))?;
            let mut state = self.0.lock();
            state.named = true;
            state.operations.push(Operation::Named);
        }
        Ok(Box::new(self.backend()))
    }

    fn has_space(&self, bytes: u64) -> bool {
        self.0.lock().room.is_none_or(|room| (room * BLOCK) as u64 >= bytes)
    }

    fn keep_reserve(&self) -> Result<bool, StorageError> {
        let mut state = self.0.lock();
        if !state.reserve && state.room.is_none_or(|room| room >= 2 * RESERVE) {
            state.reserve = true;
            return Ok(state.take(RESERVE).is_ok());
        }
        Ok(state.reserve)
    }

    fn release_reserve(&self) -> bool {
        let mut state = self.0.lock();
        let kept = std::mem::take(&mut state.reserve);
        if let (true, Some(room)) = (kept, &mut state.room) {
            *room += RESERVE;
        }
        kept
    }
}

/// The file in one process.
#[derive(Debug)]
pub(super) struct Handle(Device);

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.0.lock().file.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.0.0.lock();
        state.called(Call::Read)?;
        let offset = offset as usize;
        let there = state.file.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(there);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.0.0.lock();
        state.called(Call::Extend)?;
        state.file.resize(length as usize, 0);
        state.operations.push(Operation::Extend(length as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.0.lock();
        state.called(Call::Sync)?;
        state.operations.push(Operation::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.0.lock();
        state.called(Call::Write)?;
        let offset = offset as usize;
        // A hole gets its blocks when it is first written.
        let blocks = offset / BLOCK..(offset + data.len()).div_ceil(BLOCK);
        let new: Vec<usize> = blocks.filter(|block| !state.blocks.contains(block)).collect();
        state.take(new.len())?;
        state.blocks.extend(new);
        state.file[offset..offset + data.len()].copy_from_slice(data);
        state.operations.push(Operation::Write(offset, data.to_vec()));
        Ok(())
    }
}
