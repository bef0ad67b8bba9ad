//! Of two processes with one identity the first stays as long as it shows that it lives (rule I5): what is watched
//! while another process passes for a member that lives (O2).

use atomix_protocol::{Index, ServerId};

use super::checker::{Check, hold, id_of};
use super::faults::Class;
use super::network::Node;
use super::server::Machine;
use super::world::World;

/// The member itself, while nothing keeps it from showing that it lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rival {
    real: Node,
    id: ServerId,
    surroundings: Surroundings,
}

/// What changes if anything happens to the two, or between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Surroundings {
    epochs: (u32, u32),
    /// Faults that last, and connections that broke: how many there were so far.
    faults: u64,
    resets: u64,
    configuration: Option<Index>,
}

impl World {
    /// The member that a process passes for at a server, if it can show that it lives.
    pub(super) fn rival_of(&self, server: Node, id: ServerId) -> Option<Rival> {
        let real = self.node_of(id).filter(|real| *real != server)?;
        let rival = Rival { real, id, surroundings: self.surroundings(server, real) };
        // A damaged frame ends any link, and a machine that stands still is not seen to.
        let is_quiet = !self.swarm.has(Class::X2) && self.settings.promise.is_zero();
        (is_quiet && self.can_answer(server, &rival)).then_some(rival)
    }

    fn surroundings(&self, server: Node, real: Node) -> Surroundings {
        Surroundings {
            epochs: (self.servers[server].epoch, self.servers[real].epoch),
            faults: self.next_ending,
            resets: self.network.resets,
            configuration: self.servers[server].configuration().map(|configuration| configuration.index),
        }
    }

    /// Whether both run, reach each other both ways, and have a link between them that stands. A question and its answer take
    /// less than the second that there is for it then, lost packets included.
    fn can_answer(&self, server: Node, rival: &Rival) -> bool {
        let real = rival.real;
        let runs = |node: Node| self.servers[node].is_running() && !self.servers[node].ills.broken;
        let reach = !self.network.is_blocked(server, real)
            && !self.network.is_blocked(real, server)
            && self.network.extra(server, real) == 0;
        let Some(own) = self.servers[server].id.filter(|_| runs(server) && runs(real) && reach) else {
            return false;
        };
        let known = |link: &atomix_protocol::LinkId| {
            let other = self.network.stands(server, *link).filter(|(node, _)| *node == real);
            other.is_some_and(|(_, link)| self.links_with(real, own).contains(&link))
        };
        self.links_with(server, rival.id).iter().any(known)
    }

    fn links_with(&self, server: Node, other: ServerId) -> Vec<atomix_protocol::LinkId> {
        match self.servers[server].process.as_ref().map(|process| &process.machine) {
            Some(Machine::Full(engine)) => engine.links_with(other),
            _ => Vec::new(),
        }
    }

    /// Before a server steps: whether the member that somebody passes for could have answered so far.
    pub(super) fn watch_rival(&mut self, server: Node) {
        let Some((_, rival)) = self.impostor.rival_at(server) else { return };
        let undisturbed = self.surroundings(server, rival.real) == rival.surroundings;
        if !undisturbed || !self.can_answer(server, &rival) {
            self.impostor.forget_rival();
        }
    }

    /// I14: behind a step, nobody was let in instead of a member that lives and can be reached.
    pub(super) fn check_rival(&mut self, server: Node) -> Check {
        let Some((link, rival)) = self.impostor.rival_at(server) else { return Ok(()) };
        if self.surroundings(server, rival.real) != rival.surroundings {
            return Ok(());
        }
        let Some((_, link)) = self.network.stands(self.impostor_node(), link) else { return Ok(()) };
        hold("I14", !self.links_with(server, rival.id).contains(&link), || {
            format!(
                "server {} lets in another process as {}, which lives and can be reached",
                id_of(server),
                rival.id
            )
        })
    }
}
