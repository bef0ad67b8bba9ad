//! Which directories may have lost something, so that enough of them never have: then service is owed.
//!
//! A directory is *sound* unless something on its disk was harmed and no start has looked since, or its server abstains. Of the
//! voters of every configuration that anybody might use a majority stays whole and sound: faults that would take one too many don't
//! strike, nor do operators build on a server that may have lost something. So each committed entry stays on a majority of disks where
//! nothing of it is damaged, and somebody can always be elected.
//!
//! In a few seeds disks are harmed without regard to all that: then, where too much is lost, only safety is looked at.

use atomix_protocol::{Configuration, Member};

use super::Profile;
use super::checker::{Broken, Check, hold, id_of};
use super::coverage::Mark;
use super::faults::Class;
use super::majority::promoted;
use super::membership::{has_quorum, holds_log};
use super::network::Node;
use super::server::{Server, server_at};
use super::world::World;

impl World {
    /// Whether a member's directory is known to have everything that it acknowledged.
    pub(super) fn is_sound(&self, member: &Member) -> bool {
        server_at(&member.peer_address).is_none_or(|node| self.checker.is_sound(node))
    }

    /// Whether a quorum remains without a server, in every configuration that anybody might use.
    pub(super) fn may_do_without(&self, server: Node) -> bool {
        let directory = self.checker.directory_of(server);
        let remains = |configuration: &Configuration| {
            has_quorum(configuration, |member| {
                self.is_whole(member)
                    && self.is_sound(member)
                    && self.checker.membership.directory(member.incarnation) != directory
            })
        };
        // Whoever learns may vote before anybody notices.
        let remains =
            |used: &Configuration| remains(used) && remains(&promoted(used, |member| self.is_whole(member)));
        let Some(latest) = self.checker.membership.latest() else { return false };
        if self.console.is_asking() {
            return false;
        }
        // Who is down might have another one in its log.
        let up = latest.members.iter().filter(|member| self.is_whole(member) && holds_log(member));
        let all_up = up.clone().all(|member| self.node_of(member.id).is_some());
        let used = self.servers.iter().filter_map(Server::configuration);
        let others: Vec<Node> = (0..self.servers.len()).filter(|other| *other != server).collect();
        all_up && remains(latest) && used.into_iter().all(remains) && self.can_elect(&others)
    }

    /// Whether something on a server's disk may be harmed.
    pub(super) fn may_harm(&self, server: Node) -> bool {
        let possible = self.belongs(server) && self.servers[server].stranger.is_none();
        possible && (self.settings.reckless || self.may_do_without(server))
    }

    /// Whether enough is left for somebody to be elected, whichever configuration is in force.
    fn is_recoverable(&self) -> bool {
        let enough = |configuration: &Configuration| {
            has_quorum(configuration, |member| self.is_whole(member) && self.is_sound(member))
        };
        let all: Vec<Node> = (0..self.servers.len()).collect();
        self.checker.membership.latest().is_none_or(enough)
            && self.servers.iter().filter_map(Server::configuration).all(enough)
            && self.can_elect(&all)
    }

    /// Where disks were harmed without regard, too much may be lost: nobody can be elected, and nothing is owed but safety. Whether that
    /// is so; then it was looked at.
    pub(super) fn end_without_recovery(&mut self, events: u64) -> Result<bool, Broken> {
        if !self.settings.reckless || self.is_recoverable() {
            return Ok(false);
        }
        self.trace.change(self.now, || "too much is lost: nothing is owed but safety".into());
        self.coverage.without_recovery += 1;
        let spell = 20 * self.settings.longest_election();
        self.run(self.now + spell, |world| world.events >= events)?;
        self.cut_power_everywhere()?;
        self.run(self.now + spell, |_| false)?;
        self.check_refusals()?;
        self.proposals.scan(&self.checker.ledger)?;
        Ok(true)
    }

    /// Something on a server's disk was harmed, and this is what.
    pub(super) fn note_harm(&mut self, class: Class, server: Node, what: &str) {
        self.trace.change(self.now, || format!("disk of server {}: {what}", server + 1));
        self.coverage.fault(class);
        self.coverage.mark(Mark::RotAgain, u64::from(self.checker.abstains(server)));
        self.checker.harmed(server);
    }

    /// L5: whoever was wiped, full, slow or damaged is in order again by itself.
    pub(super) fn expect_cured(&mut self) -> Check {
        let deadline = self.progress_deadline();
        let cured = self.run(deadline, |world| world.not_cured().next().is_none())?;
        hold("L5", cured, || {
            let all: Vec<String> =
                self.not_cured().map(|(server, why)| format!("{} {why}", id_of(server))).collect();
            format!("servers are not in order again: {all:?}; {}", self.describe())
        })
    }

    /// Servers that are not in order, and why.
    fn not_cured(&self) -> impl Iterator<Item = (Node, &'static str)> + '_ {
        let why = |server: &Server| {
            let process = server.process.as_ref();
            let full = process.is_some_and(|process| !process.threads.has_room());
            if self.belongs(server.number) && self.checker.abstains(server.number) {
                Some("abstains")
            } else if full {
                Some("has no room")
            } else if self.waits_for_a_place(server) {
                Some("has no place in the cluster")
            } else {
                None
            }
        };
        self.servers.iter().filter_map(move |server| Some((server.number, why(server)?)))
    }

    /// Whether a server whose directory was emptied asks to be taken in again, and was not yet.
    fn waits_for_a_place(&self, server: &Server) -> bool {
        self.profile == Profile::Full
            && server.wiped
            && server.id.is_none()
            && server.process.is_some()
            && !self.is_member(server.number)
    }
}
