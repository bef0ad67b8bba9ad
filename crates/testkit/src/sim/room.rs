//! No room: what a storage thread can't do then is given back or waits, and is tried again, as in a server (D5).

use atomix_engine::Input;
use atomix_protocol::EntryId;
use atomix_protocol::peer::SnapshotMeta;
use atomix_raft::ChunkOutcome;
use atomix_session::SnapshotSource;
use atomix_storage::{Storage, StorageError};

use super::checker::Check;
use super::coverage::Mark;
use super::network::Node;
use super::server::Input as ServerInput;
use super::settings::{SECOND, Time};
use super::storage::{Effect, LOG, SNAPSHOTS, Task, Threads};
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

impl Threads {
    /// There was no room for a task. What the server is told.
    pub(super) fn put_back(&mut self, lane: usize, task: Task) -> Result<(Effect, Vec<Input>), StorageError> {
        match task {
            Task::TakeSnapshot(meta, source) => {
                self.drop_written(meta.last)?;
                self.held = Some(Held::Own(meta, source));
                self.holds = true;
            }
            Task::WriteChunk { meta, .. } => {
                self.drop_written(meta.last)?;
                let behind = self.lanes[lane].queue.drain(..).filter_map(|task| match task {
                    Task::WriteChunk { meta, .. } => Some(meta.last),
                    _ => None,
                });
                self.held = Some(Held::Chunks(std::iter::once(meta.last).chain(behind).collect()));
                self.holds = true;
            }
            Task::Publish(meta) => self.waiting.push_front(meta),
            Task::Write(token, batch) => {
                self.storage.has_room()?;
                self.refused = true;
                let told = [Some(Input::NotWritten(token, batch)), self.tell(false)];
                return Ok((Effect::Refused(token), told.into_iter().flatten().collect()));
            }
            _ => unreachable!("no other task needs room"),
        }
        Ok((Effect::None, Vec::new()))
    }

    /// There may be room for a snapshot that waits to be published.
    pub(super) fn publish_again(&mut self) {
        if let Some(meta) = self.waiting.pop_front() {
            self.lanes[LOG].queue.push_front(Task::Publish(meta));
        }
    }

    /// Whether there is room. A write that was refused is given again when anything is told of that.
    pub(super) fn look(&mut self) -> Result<Option<Input>, StorageError> {
        let room = self.storage.has_room()?;
        if std::mem::take(&mut self.refused) {
            self.room = false;
            return Ok(Some(Input::Room(false)));
        }
        Ok(self.tell(room))
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
            if self.lanes[LOG].queue.is_empty() {
                self.lanes[LOG].queue.push_back(Task::Look);
            }
            self.publish_again();
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
        if let Input::NotWritten(..) = input {
            self.coverage.mark(Mark::WriteRefused, 1);
        }
        if let Input::Room(room) = input {
            self.trace.change(self.now, || format!("server {}: room: {room}", server + 1));
            self.coverage.mark(if *room { Mark::RoomAgain } else { Mark::DiskFull }, 1);
        }
    }
}
