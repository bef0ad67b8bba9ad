//! What a server does with its storage, and what it must find again after each of its steps.

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{
    Address, ClusterTime, Configuration, Entry, EntryId, EntryKind, HardState, Identity, Incarnation, Index,
    Member, MemberKind, ServerId, Term, WriteBatch,
};
use atomix_storage::{Recovered, Storage, StorageError};
use bytes::Bytes;

use super::Opened;

/// One call, or the few that belong together.
#[derive(Clone, Debug)]
pub enum Step {
    Write(WriteBatch),
    /// Writes and publishes a snapshot.
    Publish(EntryId),
    Compact(Index),
}

pub fn term(term: u64) -> Term {
    Term(term)
}

pub fn index(index: u64) -> Index {
    Index(index)
}

pub fn id(term: Term, index: Index) -> EntryId {
    EntryId::new(term, index)
}

/// An entry whose payload of that length says which one it is.
pub fn entry(term: Term, index: Index, length: usize) -> Entry {
    let payload: Vec<u8> = (0..length).map(|at| (term.0 * 31 + index.0 + at as u64) as u8 | 1).collect();
    let kind = if length == 0 { EntryKind::NoOp } else { EntryKind::Session };
    Entry { id: id(term, index), time: ClusterTime(index.0), kind, payload: Bytes::from(payload) }
}

pub fn identify() -> Step {
    let identity = Some(Identity { incarnation: Incarnation(0xBEEF) });
    Step::Write(WriteBatch { identity, ..WriteBatch::default() })
}

pub fn vote(term: Term) -> Step {
    let hard_state = Some(HardState { term, voted_for: Some(ServerId(1)) });
    Step::Write(WriteBatch { hard_state, ..WriteBatch::default() })
}

pub fn configure(index: Index) -> Step {
    let configuration = Some(Configuration { index, ..Configuration::default() });
    Step::Write(WriteBatch { configuration, ..WriteBatch::default() })
}

/// A configuration that takes some space: each of the members has about 200 bytes.
pub fn populate(index: Index, members: u64) -> Step {
    let member = |id: u64| Member {
        id: ServerId(id),
        incarnation: Incarnation(u128::from(id) << 70 | u128::from(index.0)),
        peer_address: Address::new(format!("{id}.{:p>80}:8700", index.0)),
        client_address: Address::new(format!("{id}.{:c>80}:8700", index.0)),
        kind: MemberKind::Voter,
        priority: 0,
    };
    let configuration = Some(Configuration {
        index,
        members: (1..=members).map(member).collect(),
        next_server_id: members + 1,
        ..Configuration::default()
    });
    Step::Write(WriteBatch { configuration, ..WriteBatch::default() })
}

pub fn abstain(until: Option<Index>) -> Step {
    Step::Write(WriteBatch { abstention: Some(until), ..WriteBatch::default() })
}

pub fn append(entries: Vec<Entry>) -> Step {
    Step::Write(WriteBatch { entries, ..WriteBatch::default() })
}

pub fn replace(after: EntryId, entries: Vec<Entry>) -> Step {
    Step::Write(WriteBatch { truncate_after: Some(after), entries, ..WriteBatch::default() })
}

/// What must be found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub recovered: Recovered,
    pub base: EntryId,
    pub log: Vec<Entry>,
}

pub fn snapshot_data(last: EntryId) -> Vec<u8> {
    (0..700 + last.index.0).map(|at| (at + last.index.0) as u8).collect()
}

pub fn describe(last: EntryId) -> SnapshotMeta {
    let data = snapshot_data(last);
    SnapshotMeta {
        last,
        time: ClusterTime(last.index.0),
        configuration: Configuration::default(),
        size: data.len() as u64,
        checksum: crc32c::crc32c(&data),
    }
}

impl Model {
    pub fn last(&self) -> EntryId {
        self.log.last().map_or(self.base, |entry| entry.id)
    }

    pub fn id_at(&self, index: Index) -> Option<EntryId> {
        let held = self.log.iter().map(|entry| entry.id).find(|id| id.index == index);
        held.or((index == self.base.index).then_some(self.base))
    }

    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Write(batch) => self.write(batch),
            Step::Publish(last) => self.recovered.snapshot = Some(describe(*last)),
            Step::Compact(_) => {}
        }
    }

    /// What a crash in the middle of a step may leave: it before, a prefix of it, all of it.
    pub fn prefixes(&self, step: &Step) -> Vec<Model> {
        let mut prefixes = vec![self.clone()];
        if let Step::Write(batch) = step {
            // What is not log goes first, in one piece; the log's part is one piece too.
            let fields = WriteBatch { truncate_after: None, entries: Vec::new(), ..batch.clone() };
            prefixes.push(self.after(&Step::Write(fields)));
        }
        prefixes.push(self.after(step));
        prefixes.dedup();
        prefixes
    }

    /// It after a step.
    pub fn after(&self, step: &Step) -> Model {
        let mut after = self.clone();
        after.apply(step);
        after
    }

    fn write(&mut self, batch: &WriteBatch) {
        self.recovered.identity = batch.identity.or(self.recovered.identity);
        if let Some(configuration) = &batch.configuration {
            self.recovered.configuration = Some(configuration.clone());
        }
        self.recovered.abstention = batch.abstention.unwrap_or(self.recovered.abstention);
        self.recovered.hard_state = batch.hard_state.unwrap_or(self.recovered.hard_state);
        if let Some(id) = batch.truncate_after {
            if self.id_at(id.index) == Some(id) {
                self.log.retain(|entry| entry.id.index <= id.index);
            } else {
                (self.base, self.log) = (id, Vec::new());
            }
        }
        self.log.extend_from_slice(&batch.entries);
    }

    /// The entries that recovery hands out.
    pub fn handed_out(&self) -> Vec<Entry> {
        let start = self.recovered.snapshot.as_ref().map_or(EntryId::ZERO, |meta| meta.last);
        let joined = self.id_at(start.index) == Some(start);
        self.log.iter().filter(|entry| joined && entry.id.index > start.index).cloned().collect()
    }

    /// What recovery does to it: what is not handed out is no part of the log any more.
    pub fn restart(&mut self) {
        let start = self.recovered.snapshot.as_ref().map_or(EntryId::ZERO, |meta| meta.last);
        if self.id_at(start.index) != Some(start) {
            (self.base, self.log) = (start, Vec::new());
        }
    }

    pub fn is(&self, found: &Opened) -> bool {
        let found_state = Recovered { damage: Vec::new(), ..found.recovered.clone() };
        self.recovered == found_state && self.handed_out() == found.entries
    }
}

pub fn run(storage: &mut dyn Storage, step: &Step) -> Result<(), StorageError> {
    match step {
        Step::Write(batch) => storage.write(batch),
        Step::Publish(last) => {
            let mut writer = storage.snapshot_writer()?;
            writer.begin(*last)?;
            for piece in snapshot_data(*last).chunks(600) {
                writer.write(piece)?;
            }
            let meta = describe(*last);
            writer.finish(&meta)?;
            storage.publish(&meta)
        }
        Step::Compact(through) => storage.compact(*through),
    }
}
