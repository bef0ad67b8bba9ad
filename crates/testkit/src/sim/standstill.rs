//! Machines that stand still between the reading of their state and the next reading of their clock: what answers by
//! lease are looked at again for (R3).

use atomix_engine::Output;

use super::bare::Emitted;
use super::checker::{Check, id_of};
use super::network::Node;
use super::server::Input;
use super::settings::MILLISECOND;
use super::world::{Event, World};

/// Probability that a machine stands still behind a read by lease.
const STANDSTILL: f64 = 0.02;

impl World {
    /// Whether the machine stands still between reading its state and reading its clock again: only where that
    /// matters (R3).
    pub(super) fn stands_still(&mut self, emitted: &[Emitted]) -> bool {
        let by_lease = |one: &Emitted| {
            matches!(one, Emitted::Common(Output::Answer { .. }) | Emitted::ReadsReady(_, _, Some(_)))
        };
        self.faults_on
            && !self.settings.promise.is_zero()
            && emitted.iter().any(by_lease)
            && self.randoms.lease.chance(STANDSTILL)
    }

    pub(super) fn stand_still(&mut self, server: Node, emitted: Vec<Emitted>) -> Check {
        let longest = 4 * self.settings.longest_election();
        let wait = self.randoms.lease.range(MILLISECOND, longest);
        let at = &mut self.servers[server];
        at.paused += 1;
        let epoch = at.epoch;
        self.trace.change(self.now, || format!("server {} stands still behind a read", id_of(server)));
        self.after(wait, Event::Resume { server, epoch, emitted });
        Ok(())
    }

    pub(super) fn on_resume(&mut self, server: Node, epoch: u32, emitted: Vec<Emitted>) -> Check {
        let at = &mut self.servers[server];
        if at.epoch == epoch && at.process.is_some() && at.paused > 1 {
            // Paused for another reason too.
            self.after(MILLISECOND, Event::Resume { server, epoch, emitted });
            return Ok(());
        }
        at.paused -= 1;
        if at.epoch != epoch || at.process.is_none() {
            return Ok(());
        }
        self.finish_step(server, emitted)?;
        self.step(server)
    }

    /// An answer was dropped for the lease's sake: the server is told with its next batch, which follows at once.
    pub(super) fn late(&mut self, server: Node, input: Input) {
        let at = &mut self.servers[server];
        at.inbox.push_back(input);
        let epoch = at.epoch;
        if let Some(process) = at.process.as_mut().filter(|process| !process.wake) {
            process.wake = true;
            self.after(1, Event::Wake { server, epoch });
        }
    }
}
