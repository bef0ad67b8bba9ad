//! What every storage must do (D1): [`suite`] for all, [`exclusive`] for those that another process could open too, [`crashes`] for those
//! whose device can be recorded.

mod crash;
mod exclusive;
mod log;
mod model;
mod random;
mod reader;
mod snapshot;

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{
    ClusterTime, Configuration, Entry, EntryId, EntryKind, Identity, Incarnation, Index, Term, WriteBatch,
};
use atomix_storage::{Recovered, SnapshotWriter, Storage, StorageReader};

pub use crash::{Moment, Recorded, crashes};
pub use exclusive::{Door, exclusive};

/// A place where a server's data lies. Each call opens it, as a process does that starts; what the call before returned, and
/// all side objects of it, are gone by then.
pub type Place = Box<dyn FnMut() -> Box<dyn Storage>>;

/// What must hold, and who checks it on an empty place.
type Case = (&'static str, fn(Server));

/// Runs the suite. `fresh` yields an empty place.
///
/// # Panics
/// If the storage breaks the contract; the message says how.
pub fn suite(fresh: &mut dyn FnMut() -> Place) {
    let cases: &[Case] = &[
        ("a fresh place holds nothing", log::fresh_place_holds_nothing),
        ("each field is found again", log::each_field_is_found_again),
        ("a field stays until it is written again", log::fields_stay),
        ("entries are found in order, byte for byte", log::entries_are_found),
        ("every start finds what the ones before wrote", log::many_starts),
        ("a truncation ends the log", log::truncation_ends_the_log),
        ("truncations and entries of one batch apply in order", log::truncation_and_entries),
        ("a truncation to the last entry changes nothing", log::truncation_to_the_end),
        ("a long log", log::long_log),
        ("a batch of nothing changes nothing", log::nothing_to_write),
        ("entries of all kinds and lengths", log::entries_of_all_kinds),
        ("each field by itself", log::each_field_by_itself),
        ("a truncation against the log empties it", log::truncation_against_the_log),
        ("a snapshot is invisible until published", snapshot::snapshot_until_published),
        ("a snapshot that does not verify is refused", snapshot::bad_snapshots),
        ("beginning a snapshot drops the one before", snapshot::begin_drops),
        ("the newest snapshot counts", snapshot::newest_snapshot_counts),
        ("entries covered by the snapshot are not handed out", snapshot::covered_entries),
        ("a log that does not reach the snapshot is empty", snapshot::log_behind_snapshot),
        ("a log that conflicts with the snapshot is empty", snapshot::log_against_snapshot),
        ("a truncation beyond the end moves the log", snapshot::truncation_beyond_the_end),
        ("compaction keeps what is not covered", snapshot::compaction),
        ("compaction without a snapshot keeps all", snapshot::compaction_without_snapshot),
        ("snapshots of all lengths", snapshot::snapshots_of_all_lengths),
        ("one snapshot writer after another", snapshot::one_writer_after_another),
        ("a truncation to the snapshot's end", snapshot::truncation_to_the_snapshot),
        ("compaction again and again", snapshot::compaction_again_and_again),
        ("a reader finds ranges", reader::reader_finds_ranges),
        ("a reader finds pieces of snapshots", reader::reader_finds_snapshots),
        ("a reader beside a writer", reader::reader_beside_writer),
        ("a snapshot is read while newer ones come", reader::snapshots_read_while_newer_come),
        ("a snapshot is written beside the log", reader::writer_beside_log),
        ("side objects outlive the storage", reader::side_objects_outlive),
    ];
    for (name, case) in cases {
        eprintln!("storage: {name}");
        case(Server::start(fresh()));
    }
    random::histories(fresh);
}

/// A server as far as its storage goes, and what it must find.
struct Server {
    place: Place,
    storage: Option<Box<dyn Storage>>,
    recovered: Recovered,
    entries: Vec<Entry>,
}

impl Server {
    fn start(place: Place) -> Server {
        let mut server =
            Server { place, storage: None, recovered: Recovered::default(), entries: Vec::new() };
        server.restart();
        server
    }

    fn stop(&mut self) {
        self.storage = None;
    }

    fn restart(&mut self) {
        self.stop();
        let mut storage = (self.place)();
        self.entries.clear();
        let entries = &mut self.entries;
        self.recovered = storage.recover(&mut |entry| entries.push(entry)).expect("recovers");
        assert_eq!(self.recovered.damage, Vec::<String>::new(), "all is well");
        self.storage = Some(storage);
    }

    fn storage(&mut self) -> &mut dyn Storage {
        &mut **self.storage.as_mut().expect("started")
    }

    fn write(&mut self, batch: WriteBatch) {
        self.storage().write(&batch).expect("writes");
    }

    fn append(&mut self, entries: impl IntoIterator<Item = Entry>) {
        self.write(WriteBatch { entries: entries.into_iter().collect(), ..WriteBatch::default() });
    }

    /// The first thing that a server ever writes (I1).
    fn identify(&mut self) {
        self.write(WriteBatch { identity: Some(identity()), ..WriteBatch::default() });
    }

    fn snapshot(&mut self, last: EntryId, data: &[u8]) -> SnapshotMeta {
        let mut writer = self.writer();
        let meta = finish_snapshot(&mut *writer, last, data);
        self.storage().publish(&meta).expect("publishes");
        meta
    }

    fn writer(&mut self) -> Box<dyn SnapshotWriter> {
        self.storage().snapshot_writer().expect("a snapshot writer")
    }

    fn reader(&mut self) -> Box<dyn StorageReader> {
        self.storage().reader().expect("a reader")
    }

    /// After a restart, and then once more: recovery changes nothing.
    fn finds(&mut self, entries: &[Entry]) {
        for _ in 0..2 {
            self.restart();
            assert_eq!(self.entries, entries);
        }
    }
}

fn identity() -> Identity {
    Identity { incarnation: Incarnation(0xA70_0001) }
}

fn configuration(index: u64) -> Configuration {
    Configuration { index: Index(index), next_server_id: index + 4, ..Configuration::default() }
}

fn term(term: u64) -> Term {
    Term(term)
}

fn index(index: u64) -> Index {
    Index(index)
}

fn id(term: Term, index: Index) -> EntryId {
    EntryId::new(term, index)
}

/// An entry whose bytes say which one it is; their lengths are of all kinds.
fn entry(term: Term, index: Index) -> Entry {
    let kind = if index.0 % 7 == 1 { EntryKind::NoOp } else { EntryKind::Session };
    let length = if kind == EntryKind::NoOp { 0 } else { (index.0 * 37 + term.0 * 11) % 300 };
    let seed = term.0 * 31 + index.0;
    let payload = (0..length).map(|at| (seed + at) as u8).collect();
    Entry { id: id(term, index), time: ClusterTime(index.0 * 10), kind, payload }
}

fn entries(of: Term, indexes: impl IntoIterator<Item = u64>) -> Vec<Entry> {
    indexes.into_iter().map(|at| entry(of, index(at))).collect()
}

fn describe(last: EntryId, data: &[u8]) -> SnapshotMeta {
    SnapshotMeta {
        last,
        time: ClusterTime(last.index.0 * 10),
        configuration: configuration(1),
        size: data.len() as u64,
        checksum: crc32c::crc32c(data),
    }
}

fn finish_snapshot(writer: &mut dyn SnapshotWriter, last: EntryId, data: &[u8]) -> SnapshotMeta {
    writer.begin(last).expect("begins");
    let mut so_far = Vec::new();
    for piece in data.chunks(1_000) {
        writer.write(piece).expect("takes bytes");
        so_far.extend_from_slice(piece);
        assert_eq!(writer.written(), (so_far.len() as u64, crc32c::crc32c(&so_far)));
    }
    let meta = describe(last, data);
    writer.finish(&meta).expect("finishes");
    meta
}
