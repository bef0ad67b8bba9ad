//! Power is lost at any operation of the device, with any fate of what was not synced.

use std::ops::Range;

use atomix_storage::Storage;
use atomix_testkit::conformance::storage::{Moment, Place, Recorded, crashes};

use super::CACHE_BYTES;
use super::device::{Device, Operation, SECTOR};
use crate::RedbStorage;

/// What a crash does to an operation that was not synced.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Kept,
    Dropped,
    /// Of a write, the first sectors.
    Torn,
    /// Of a write, the last sectors.
    TornBefore,
    /// Of a write, the first bytes.
    Cut,
}

struct Recording {
    device: Device,
    begin: (Vec<u8>, bool),
}

impl Recording {
    /// The device, where operations up to `until` were called, and those from `unsynced` on met a fate each.
    fn image(&self, operations: &[Operation], unsynced: usize, fate: impl Fn(usize) -> Fate) -> Device {
        let (mut file, mut named) = self.begin.clone();
        for (number, operation) in operations.iter().enumerate() {
            let fate = if number < unsynced { Fate::Kept } else { fate(number) };
            match (operation, fate) {
                (Operation::Named, _) => named = true,
                (Operation::Sync, _) | (Operation::Extend(_), Fate::Dropped) => {}
                (Operation::Extend(length), _) => file.resize(*length, 0),
                (Operation::Write(offset, bytes), fate) => {
                    let kept = kept(bytes.len(), fate);
                    // Writes behind an extension that was lost are lost with it.
                    let end = (offset + kept.end).min(file.len());
                    if let Some(place) = file.get_mut(offset + kept.start..end) {
                        place.copy_from_slice(&bytes[kept.start..kept.start + place.len()]);
                    }
                }
            }
        }
        Device::of(file, named)
    }
}

fn kept(length: usize, fate: Fate) -> Range<usize> {
    let middle = (length / 2).next_multiple_of(SECTOR).min(length);
    match fate {
        Fate::Kept => 0..length,
        Fate::Dropped => 0..0,
        Fate::Torn => 0..middle,
        Fate::TornBefore => middle..length,
        Fate::Cut => 0..length / 3,
    }
}

fn place(device: Device) -> Place {
    Box::new(move || Box::new(RedbStorage::over(Box::new(device.clone()), CACHE_BYTES)) as Box<dyn Storage>)
}

impl Recorded for Recording {
    fn open(&mut self) -> Box<dyn Storage> {
        Box::new(RedbStorage::over(Box::new(self.device.clone()), CACHE_BYTES))
    }

    fn watch(&mut self) {
        self.begin = self.device.image();
        self.device.forget_operations();
    }

    fn crashes(&mut self, at: Moment, state: &mut dyn FnMut(Place)) {
        let operations = self.device.operations();
        let begin = if at == Moment::After { operations.len() } else { 0 };
        for until in begin..=operations.len() {
            let done = &operations[..until];
            let synced = done.iter().rposition(|one| matches!(one, Operation::Sync | Operation::Named));
            let unsynced = synced.map_or(0, |at| at + 1);
            let mut play = |fate: &dyn Fn(usize) -> Fate| state(place(self.image(done, unsynced, fate)));
            play(&|_| Fate::Kept);
            if unsynced == until {
                continue;
            }
            play(&|_| Fate::Dropped);
            for one in unsynced..until {
                let alone = |fate: Fate, others: Fate| move |at| if at == one { fate } else { others };
                play(&alone(Fate::Dropped, Fate::Kept));
                play(&alone(Fate::Kept, Fate::Dropped));
                // The last operation is the one that the crash met; others may be torn as well.
                for fate in [Fate::Torn, Fate::TornBefore, Fate::Cut] {
                    play(&alone(fate, Fate::Kept));
                }
            }
        }
    }
}

#[test]
fn what_was_acknowledged_outlives_a_power_cut_anywhere() {
    let played = crashes(&mut || {
        let device = Device::default();
        Box::new(Recording { begin: device.image(), device }) as Box<dyn Recorded>
    });
    println!("{played} crashes");
    assert!(played > 2_000, "only {played} crashes were played");
}
