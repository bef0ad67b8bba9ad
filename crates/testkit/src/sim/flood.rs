//! Commands without end while a snapshot is on its way: the log outgrows it, and is compacted right behind it (M11).

use atomix_protocol::Index;
use atomix_raft::{Raft, Role};

use super::Profile;
use super::checker::Check;
use super::faults::Class;
use super::network::Node;
use super::operator::Step;
use super::settings::{MILLISECOND, Time};
use super::world::{Event, World};

/// So many commands at once of whoever takes part, so often, and so long after each other.
const AT_ONCE: u64 = 6;
const TIMES: u32 = 100;
const BETWEEN: Time = MILLISECOND;
/// So often it is looked whether the log was compacted behind it, with more to be compacted each time.
const LOOKS: u32 = 40;

/// What is known of a transfer that is to be outgrown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flood {
    sender: Node,
    receiver: Node,
    /// The end of the sender's log when it began, and through where it could be compacted.
    last: Index,
    compactable: Index,
    /// Whether the log grew while the snapshot was on its way.
    grew: bool,
    times: u32,
    looks: u32,
}

impl World {
    /// A server receives a snapshot from whoever leads: everybody writes now.
    pub(super) fn begin_flood(&mut self, receiver: Node) {
        let Some(sender) = self.leader().filter(|leader| *leader != receiver) else { return };
        let Some((last, compactable)) = self.log_of(sender) else { return };
        let flood = Flood { sender, receiver, last, compactable, grew: false, times: TIMES, looks: LOOKS };
        self.after(0, Event::Operate(Step::Flood(flood)));
    }

    /// More of it while the snapshot is on its way. It struck when the log grew meanwhile and was compacted then.
    pub(super) fn flood(&mut self, mut flood: Flood) -> Check {
        let on_its_way =
            |world: &World| world.servers[flood.receiver].raft().is_some_and(Raft::is_installing);
        let receives = on_its_way(self);
        if flood.grew || receives && flood.times > 0 {
            self.write_much(flood.sender)?;
        }
        let Some((last, compactable)) = self.log_of(flood.sender) else { return Ok(()) };
        flood.grew |= on_its_way(self) && last > flood.last;
        if flood.grew && compactable > flood.compactable {
            self.coverage.fault(Class::M11);
            return Ok(());
        }
        let wait = if receives && flood.times > 0 {
            flood.times -= 1;
            BETWEEN
        } else if flood.grew && flood.looks > 0 {
            flood.looks -= 1;
            self.settings.longest_election() / 4
        } else {
            return Ok(());
        };
        self.after(wait, Event::Operate(Step::Flood(flood)));
        Ok(())
    }

    /// The end of a leader's log, and through where it may be compacted.
    fn log_of(&self, server: Node) -> Option<(Index, Index)> {
        let raft = self.servers[server].raft().filter(|raft| raft.role() == Role::Leader)?;
        Some((raft.last().index, raft.compactable_index()))
    }

    fn write_much(&mut self, leader: Node) -> Check {
        if self.profile == Profile::Core {
            return self.propose(leader, AT_ONCE);
        }
        for number in 0..self.settings.clients {
            if self.clients[number].paused == 0 {
                let local = self.clients[number].clock.read(self.now);
                let (client, mut shared) = self.client_and_shared(number);
                client.flood(local, AT_ONCE, &mut shared);
                self.drain_client(number)?;
            }
        }
        Ok(())
    }
}
