//! The thread that reads beside the storage thread: entries and chunks for followers that are behind, snapshots to be restored.

use atomix_engine::{Input, Restoring, Retired};
use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{Index, ServerId};
use atomix_storage::{StorageError, StorageReader, load};
use tokio::sync::mpsc::UnboundedSender;

use crate::ServerError;
use crate::storage_thread::{Done, Worker};

/// Something for the thread that reads.
pub(crate) enum ReadJob {
    Entries { to: ServerId, from: Index, through: Index, bytes: u64 },
    Chunk { to: ServerId, meta: SnapshotMeta, offset: u64, bytes: usize },
    Whole(SnapshotMeta),
    Restore(SnapshotMeta, Restoring),
    Retire(Retired),
}

/// Starts the thread that reads.
pub(crate) fn start_reader(
    mut reader: Box<dyn StorageReader>,
    done: UnboundedSender<Done>,
) -> Result<Worker<ReadJob>, ServerError> {
    Worker::spawn("atomix-reads", done, move |jobs, done| {
        for job in jobs {
            match read(&mut *reader, job) {
                Ok(None) => {}
                Ok(Some(input)) => _ = done.send(Ok(input)),
                Err(error) => {
                    let _ = done.send(Err(ServerError::Storage(error)));
                    return;
                }
            }
        }
    })
}

fn read(reader: &mut dyn StorageReader, job: ReadJob) -> Result<Option<Input>, StorageError> {
    Ok(Some(match job {
        ReadJob::Entries { to, from, through, bytes } => {
            Input::Fetched { to, from, entries: reader.entries(from, through, bytes)? }
        }
        ReadJob::Chunk { to, meta, offset, bytes } => {
            Input::ChunkRead { to, last: meta.last, offset, data: reader.snapshot(meta.last, offset, bytes)? }
        }
        ReadJob::Whole(meta) => Input::SnapshotLoaded(meta.last, load(reader, &meta)?),
        ReadJob::Restore(meta, restoring) => {
            Input::Restored(meta.last, restoring.read(&load(reader, &meta)?))
        }
        ReadJob::Retire(retired) => {
            drop(retired);
            return Ok(None);
        }
    }))
}
