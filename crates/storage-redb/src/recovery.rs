//! What is there after a start, and how far it is whole.
//!
//! redb has verified every page by now. A value that fails all the same is taken for what D3 says of a damaged log: everything up to it is
//! handed out, what was behind it is acknowledged by nobody any more, and the server abstains until it has it again (D4).

use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Entry, EntryId, Index};
use atomix_storage::{Recovered, StorageError};
use redb::{ReadTransaction, ReadableTable, WriteTransaction};
use serde::de::DeserializeOwned;

use crate::database::{Problem, Shared};
use crate::reader::read_pieces;
use crate::snapshot::{Shelf, remove_pieces};
use crate::tables::{
    ABSTENTION, BASE, CONFIGURATION, HARD_STATE, IDENTITY, LOG, META, PIECES, SNAPSHOTS, Shelved, decode,
    decode_entry, encode, key_of,
};

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) recovered: Recovered,
    /// The log's last entry, or the one that it begins after.
    pub(crate) last: EntryId,
    pub(crate) shelf: Shelf,
}

/// What must be mended before the first entry is handed out.
#[derive(Debug, Default)]
struct Repair {
    /// Snapshots that do not verify, by index and term.
    snapshots: Vec<(u64, u64)>,
    /// Pieces that belong to no published snapshot.
    pieces: Vec<u64>,
    /// The log is empty and goes on right after this entry.
    reset: Option<EntryId>,
}

impl Repair {
    fn is_empty(&self) -> bool {
        self.snapshots.is_empty() && self.pieces.is_empty() && self.reset.is_none()
    }
}

/// See [`Storage::recover`](atomix_storage::Storage::recover).
pub(crate) fn recover(shared: &Shared, entry: &mut dyn FnMut(Entry)) -> Result<Found, StorageError> {
    let (mut found, repair) = shared.read(look)?;
    if !repair.is_empty() {
        let abstention = found.recovered.abstention;
        shared.write(0, |transaction| mend(transaction, &repair, abstention))?;
    }
    let start = found.recovered.snapshot.as_ref().map_or(EntryId::ZERO, |meta| meta.last);
    let mut intact = start;
    let damage = shared.read(|transaction| hand_out(transaction, &mut intact, found.last, entry))?;
    let lost = std::mem::replace(&mut found.last, intact).index;
    if let Some(damage) = damage {
        found.recovered.damage.push(damage);
        found.recovered.abstention = found.recovered.abstention.max(Some(lost));
        let abstention = found.recovered.abstention;
        shared.write(0, |transaction| {
            put_abstention(transaction, abstention)?;
            let mut log = transaction.open_table(LOG)?;
            Ok(log.retain_in(intact.index.0 + 1.., |_, _| false)?)
        })?;
    }
    Ok(found)
}

fn look(transaction: &ReadTransaction) -> Result<(Found, Repair), Problem> {
    let mut recovered = Recovered {
        identity: field(transaction, IDENTITY)?,
        hard_state: field(transaction, HARD_STATE)?.unwrap_or_default(),
        configuration: field(transaction, CONFIGURATION)?,
        abstention: field::<Option<Index>>(transaction, ABSTENTION)?.flatten(),
        ..Recovered::default()
    };
    let mut repair = Repair::default();
    let (shelf, lost) = look_at_snapshots(transaction, &mut recovered, &mut repair)?;
    let base: EntryId = field(transaction, BASE)?.unwrap_or_default();
    let last = transaction.open_table(LOG)?.last()?.map_or(base.index, |(key, _)| Index(key.value()));
    let start = recovered.snapshot.as_ref().map_or(EntryId::ZERO, |meta| meta.last);
    let mut end = EntryId::new(start.term, last);
    let there = id_at(transaction, base, start.index)?;
    if there != Some(Some(start)) {
        // Of a log that conflicts with the snapshot, or does not reach it, nothing is of use. If that is so only because a newer
        // snapshot is damaged, or the entry itself, what is lost may have been acknowledged.
        let damaged = there == Some(None);
        if damaged {
            recovered.damage.push(format!("log entry {} is damaged", start.index));
        }
        if damaged || lost.is_some() {
            recovered.abstention = recovered.abstention.max(lost.max(Some(last)));
        }
        repair.reset = Some(start);
        end = start;
    }
    Ok((Found { recovered, last: end, shelf }, repair))
}

/// The newest snapshot that verifies, and the last index of the newest that does not.
fn look_at_snapshots(
    transaction: &ReadTransaction,
    recovered: &mut Recovered,
    repair: &mut Repair,
) -> Result<(Shelf, Option<Index>), Problem> {
    let mut shelf = Shelf::default();
    let (mut kept, mut lost) = (Vec::new(), None);
    // An empty snapshot has a generation, and no pieces.
    let mut next_generation = 0;
    for item in transaction.open_table(SNAPSHOTS)?.iter()?.rev() {
        let (key, value) = item?;
        let (index, term) = key.value();
        let shelved = decode::<Shelved>(&key_of(index, term), value.value());
        let sound = match &shelved {
            // The older one is verified when it is read.
            Some(_) if recovered.snapshot.is_some() => true,
            Some((meta, generation)) => verifies(transaction, meta, *generation)?,
            None => false,
        };
        next_generation = next_generation.max(shelved.as_ref().map_or(0, |(_, generation)| generation + 1));
        if let (true, Some((meta, generation))) = (sound, shelved) {
            kept.push(generation);
            shelf.published.insert(0, meta.clone());
            recovered.snapshot.get_or_insert(meta);
        } else {
            recovered.damage.push(format!("the snapshot of index {index} does not verify"));
            lost = lost.max(Some(Index(index)));
            repair.snapshots.push((index, term));
        }
    }
    let pieces = transaction.open_table(PIECES)?;
    let mut next = 0;
    while let Some(item) = pieces.range((next, 0)..)?.next() {
        let (generation, _) = item?.0.value();
        next = generation + 1;
        if !kept.contains(&generation) {
            repair.pieces.push(generation);
        }
    }
    shelf.next_generation = next_generation.max(next);
    Ok((shelf, lost))
}

fn verifies(transaction: &ReadTransaction, meta: &SnapshotMeta, generation: u64) -> Result<bool, Problem> {
    let mut crc = 0;
    let size = usize::try_from(meta.size).unwrap_or(usize::MAX);
    let read = read_pieces(transaction, generation, 0, size, &mut |piece| {
        crc = crc32c::crc32c_append(crc, piece);
    });
    match read {
        Ok(()) => Ok(crc == meta.checksum),
        Err(Problem::Ours(StorageError::Corrupt(_))) => Ok(false),
        Err(problem) => Err(problem),
    }
}

/// The id of the log's entry at an index. `None` if the log has none there, `Some(None)` if it is damaged.
fn id_at(
    transaction: &ReadTransaction,
    base: EntryId,
    index: Index,
) -> Result<Option<Option<EntryId>>, Problem> {
    if index == base.index {
        return Ok(Some(Some(base)));
    }
    let table = transaction.open_table(LOG)?;
    let Some(value) = table.get(index.0)? else { return Ok(None) };
    Ok(Some(decode_entry(index, value.value())?.map(|entry| entry.id)))
}

fn field<T: DeserializeOwned>(transaction: &ReadTransaction, name: &str) -> Result<Option<T>, Problem> {
    let Some(value) = transaction.open_table(META)?.get(name)? else { return Ok(None) };
    match decode(name.as_bytes(), value.value()) {
        Some(field) => Ok(Some(field)),
        None => Err(StorageError::Corrupt(format!("the field `{name}` is damaged")).into()),
    }
}

fn mend(transaction: &WriteTransaction, repair: &Repair, abstention: Option<Index>) -> Result<(), Problem> {
    put_abstention(transaction, abstention)?;
    let mut snapshots = transaction.open_table(SNAPSHOTS)?;
    for key in &repair.snapshots {
        snapshots.remove(key)?;
    }
    for generation in &repair.pieces {
        remove_pieces(transaction, *generation)?;
    }
    if let Some(base) = repair.reset {
        transaction.open_table(LOG)?.retain(|_, _| false)?;
        transaction.open_table(META)?.insert(BASE, encode(BASE.as_bytes(), &base).as_slice())?;
    }
    Ok(())
}

fn put_abstention(transaction: &WriteTransaction, abstention: Option<Index>) -> Result<(), Problem> {
    let value = encode(ABSTENTION.as_bytes(), &abstention);
    transaction.open_table(META)?.insert(ABSTENTION, value.as_slice())?;
    Ok(())
}

/// Hands out what follows `intact`, and moves it along. What is damaged, if it does not reach the end.
fn hand_out(
    transaction: &ReadTransaction,
    intact: &mut EntryId,
    last: EntryId,
    take: &mut dyn FnMut(Entry),
) -> Result<Option<String>, Problem> {
    let table = transaction.open_table(LOG)?;
    for item in table.range(intact.index.0 + 1..)? {
        let (key, value) = item?;
        let next = intact.index.next();
        if key.value() != next.0 {
            return Ok(Some(format!("log entry {next} is missing")));
        }
        match decode_entry(next, value.value())? {
            Some(entry) if entry.id.term >= intact.term => {
                *intact = entry.id;
                take(entry);
            }
            Some(entry) => return Ok(Some(format!("log entry {} follows {intact}", entry.id))),
            None => return Ok(Some(format!("log entry {next} is damaged"))),
        }
    }
    Ok((intact.index < last.index).then(|| format!("log entry {} is missing", intact.index.next())))
}
