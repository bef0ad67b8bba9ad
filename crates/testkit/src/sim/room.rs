//! No room: what a storage thread can't do then waits, and is tried again, as in a server (D5).

use atomix_engine::Input;
use atomix_protocol::peer::SnapshotMeta;
use atomix_protocol::{EntryId, WriteBatch};
use atomix_raft::ChunkOutcome;
use atomix_session::SnapshotSource;
use atomix_storage::{Storage, StorageError};

use super::checker::Check;
use super::coverage::Mark;
use super::network::Node;
use super::server::Input as ServerInput;
use super::settings::{SECOND, Time};
use super::storage::{LOG, SNAPSHOTS, Task, Threads};
use super::world::{Event, World};

/// Between two looks at whether there is room, and between two attempts of what found none.
const AGAIN: Time = SECOND;
/// The same of snapshots.
const SNAPSHOT_AGAIN: Time = 5 * SECOND;

/// What the thread that writes snapshots found no room for.
pub(super) enum Held {
    Own(SnapshotMeta, Box<dyn SnapshotSource>),
    /// Chunks, all to be answered later: who sends them would begin anew at once.
    Chunks(Vec<EntryId>),
}

impl Task {
    /// Whether it may be carried out before a write that finds no room, though it came after it, as in the server's storage thread:
    /// compaction may, and a snapshot unless the write brings more than entries.
    fn may_overtake(&self, waiting: &Task) -> bool {
        match (self, waiting) {
            (Task::Compact(_), _) => true,
            (Task::Publish(_), Task::Write(_, batch)) => {
                WriteBatch { entries: Vec::new(), ..batch.clone() }.is_empty()
            }
            _ => false,
        }
    }
}

impl Threads {
    /// Which of the tasks that wait for a thread is next.
    pub(super) fn next_place(&self, lane: usize) -> Option<usize> {
        let at = &self.lanes[lane];
        if at.running.is_some() || lane == LOG && self.waits {
            return None;
        }
        if lane != LOG || !self.first_waits {
            return (!at.queue.is_empty()).then_some(0);
        }
        let first = at.queue.front()?;
        (1..at.queue.len()).find(|place| at.queue[*place].may_overtake(first))
    }

    /// There was no room for a task.
    pub(super) fn put_back(
        &mut self,
        lane: usize,
        place: usize,
        task: Task,
    ) -> Result<Option<Input>, StorageError> {
        match task {
            Task::TakeSnapshot(meta, source) => {
                self.drop_written(meta.last)?;
                self.held = Some(Held::Own(meta, source));
                self.holds = true;
                Ok(None)
            }
            Task::WriteChunk { meta, .. } => {
                self.drop_written(meta.last)?;
                let behind = self.lanes[lane].queue.drain(..).filter_map(|task| match task {
                    Task::WriteChunk { meta, .. } => Some(meta.last),
                    _ => None,
                });
                self.held = Some(Held::Chunks(std::iter::once(meta.last).chain(behind).collect()));
                self.holds = true;
                Ok(None)
            }
            task => {
                self.lanes[lane].queue.insert(place, task);
                self.waits = place > 0;
                self.first_waits = true;
                if place > 0 {
                    return Ok(None);
                }
                self.storage.has_room()?;
                Ok(self.tell(false))
            }
        }
    }

    /// Gives back the room that a snapshot took which found too little.
    fn drop_written(&mut self, last: EntryId) -> Result<(), StorageError> {
        match self.writer.begin(last) {
            Err(StorageError::Full(_)) => Ok(()),
            result => result,
        }
    }

    pub(super) fn tell(&mut self, room: bool) -> Option<Input> {
        let before = std::mem::replace(&mut self.room, room);
        (before != room).then_some(Input::Room(room))
    }

    /// Whether there was room when that was last looked at.
    pub(super) fn has_room(&self) -> bool {
        self.room
    }

    /// Whether the snapshots' thread has put something off since the last look.
    pub(super) fn take_holds(&mut self) -> bool {
        std::mem::take(&mut self.holds)
    }

    /// It is time to try again what found no room, or to look whether there is some. What the server is told at once.
    pub(super) fn try_again(&mut self, lane: usize) -> Vec<Input> {
        if lane == LOG {
            if !self.first_waits && self.lanes[LOG].queue.is_empty() {
                self.lanes[LOG].queue.push_back(Task::Look);
            }
            (self.first_waits, self.waits) = (false, false);
            return Vec::new();
        }
        match self.held.take() {
            None => Vec::new(),
            Some(Held::Own(meta, source)) => {
                self.lanes[lane].queue.push_front(Task::TakeSnapshot(meta, source));
                Vec::new()
            }
            Some(Held::Chunks(answers)) => {
                let bad = |last| Input::ChunkWritten { last, outcome: ChunkOutcome::Bad };
                answers.into_iter().map(bad).collect()
            }
        }
    }
}

impl World {
    /// A server came up: from now on its disk is looked at every second, where it may be full.
    pub(super) fn look_for_room_from_now(&mut self, server: Node) {
        if self.swarm.has(super::faults::Class::D12) {
            let epoch = self.servers[server].epoch;
            self.after(0, Event::Room { server, epoch, lane: LOG });
        }
    }

    /// It is time to try again what found no room.
    pub(super) fn on_room(&mut self, server: Node, epoch: u32, lane: usize) -> Check {
        let at = &self.servers[server];
        if at.epoch != epoch || at.process.is_none() {
            return Ok(());
        }
        if lane == LOG {
            self.after(AGAIN, Event::Room { server, epoch, lane });
        }
        let at = &mut self.servers[server];
        let Some(process) = at.process.as_mut().filter(|_| at.hung == 0) else { return Ok(()) };
        let told = process.threads.try_again(lane);
        self.start_lane(server, lane)?;
        for input in told {
            self.give(server, ServerInput::Common(input))?;
        }
        Ok(())
    }

    /// What a thread had just to do with room.
    pub(super) fn look_for_room(&mut self, server: Node) {
        if self.servers[server].disk.take_refused()
            && let Some(class) = self.servers[server].scars.take_filled()
        {
            self.coverage.fault(class);
        }
        let epoch = self.servers[server].epoch;
        let Some(process) = self.servers[server].process.as_mut() else { return };
        if process.threads.take_holds() {
            self.after(SNAPSHOT_AGAIN, Event::Room { server, epoch, lane: SNAPSHOTS });
        }
    }

    /// A server is told of room.
    pub(super) fn count_room(&mut self, server: Node, input: &Input) {
        if let Input::Room(room) = input {
            self.trace.change(self.now, || format!("server {}: room: {room}", server + 1));
            self.coverage.mark(if *room { Mark::RoomAgain } else { Mark::DiskFull }, 1);
        }
    }
}
