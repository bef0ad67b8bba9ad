//! An operator at a console: a client that asks whole servers for changes and hand-overs, over links as any
//! client has them.

use atomix_protocol::change::{ChangeRefused, TransferRefused};
use atomix_protocol::client::{ClientRequest, ClientResponse, Manage, ManageAction, ManageOutcome};
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::Hello;
use atomix_protocol::{BootNonce, GroupId, LinkId, Term};
use atomix_raft::Raft;

use super::asked::Asked;
use super::checker::Check;
use super::coverage::Mark;
use super::faults::Class;
use super::network::{Node, Told};
use super::operator::Step;
use super::server::server_at;
use super::settings::Time;
use super::wishes::Wish;
use super::world::{Event, World};

/// So often a request follows the leader.
const REDIRECTIONS: u32 = 3;

/// What an operator is at.
#[derive(Debug, Default)]
pub(super) struct Console {
    links: u64,
    tickets: u64,
    asking: Option<Asking>,
    pub(super) asked: Asked,
}

#[derive(Debug)]
struct Asking {
    link: LinkId,
    ticket: u64,
    server: Node,
    wish: Wish,
    /// Only what would come of it.
    plan: bool,
    since: Time,
    redirections: u32,
    /// Which of the changes that were asked for it is, once it was.
    number: Option<usize>,
    /// The term in which the server was that is asked.
    term: Term,
}

impl Console {
    /// Whether a request is on its way: what it will make depend on whom is not known yet.
    pub(super) fn is_asking(&self) -> bool {
        self.asking.is_some()
    }
}

impl World {
    /// Where the operator's console is in the network: behind the clients.
    pub(super) fn console_node(&self) -> Node {
        self.servers.len() + self.clients.len()
    }

    /// Asks a leader.
    pub(super) fn ask_console(&mut self, leader: Node, wish: Wish) -> Check {
        let patience = 10 * self.settings.longest_election();
        if self.console.asking.as_ref().is_some_and(|asking| self.now - asking.since < patience) {
            return Ok(());
        }
        let plan = matches!(wish, Wish::Change(_)) && self.randoms.operator.chance(0.1);
        self.dial_console(leader, wish, plan, REDIRECTIONS);
        Ok(())
    }

    /// Nobody asks for anything any more, and what was asked on the way is lost.
    pub(super) fn end_console(&mut self) {
        self.console.asking = None;
        self.network.gone(self.now, self.console_node(), false);
        self.settle_network();
    }

    fn dial_console(&mut self, server: Node, wish: Wish, plan: bool, redirections: u32) {
        let node = self.console_node();
        if let Some(asking) = self.console.asking.take() {
            self.network.close(self.now, node, asking.link);
        }
        self.console.links += 1;
        self.console.tickets += 1;
        let (link, ticket) = (LinkId(self.console.links), self.console.tickets);
        let since = self.now;
        let (number, term) = (None, Term::default());
        let asking = Asking { link, ticket, server, wish, plan, since, redirections, number, term };
        self.console.asking = Some(asking);
        self.network.dial(self.now, node, link, server);
        self.settle_network();
    }

    pub(super) fn tell_console(&mut self, told: Told) -> Check {
        let node = self.console_node();
        let Some(asking) = &self.console.asking else { return Ok(()) };
        let link = asking.link;
        match told {
            Told::Dialed(dialed) if dialed == link => {
                let hello = Hello::of_client(None, BootNonce(self.randoms.operator.next()));
                self.send_frame(node, link, Frame::Hello(hello).encode(GroupId::DEFAULT));
            }
            Told::Closed(closed) if closed == link => self.console.asking = None,
            Told::Frame(from, frame) if from == link => match Frame::decode(&frame) {
                Ok(Frame::Hello(_)) => self.put_request()?,
                Ok(Frame::Response(ClientResponse::Managed(managed))) if managed.ticket == asking.ticket => {
                    self.on_managed(managed.outcome)?;
                }
                // What else a client is told on the way.
                Ok(Frame::Response(response)) if !matches!(response, ClientResponse::Managed(_)) => {}
                _ => {
                    self.console.asking = None;
                    self.network.close(self.now, node, link);
                }
            },
            _ => {}
        }
        self.settle_network();
        Ok(())
    }

    fn put_request(&mut self) -> Check {
        let node = self.console_node();
        let Console { asking: Some(asking), asked, .. } = &mut self.console else { return Ok(()) };
        asking.term = self.servers[asking.server].raft().map(Raft::term).unwrap_or_default();
        if let Wish::Change(change) = &asking.wish
            && !asking.plan
        {
            asking.number = Some(asked.add(change));
        }
        let (link, ticket, server, wish) = (asking.link, asking.ticket, asking.server, asking.wish.clone());
        let action = match &wish {
            Wish::Change(change) if asking.plan => ManageAction::Plan(change.clone()),
            Wish::Change(change) => ManageAction::Change(change.clone()),
            Wish::Transfer(to) => ManageAction::Transfer(*to),
        };
        let plan = asking.plan;
        let request = Frame::Request(ClientRequest::Manage(Manage { ticket, action }));
        self.send_frame(node, link, request.encode(GroupId::DEFAULT));
        match &wish {
            Wish::Transfer(Some(target)) => self.strike_target(server, *target),
            Wish::Change(_) if !plan && self.swarm.has(Class::M3) && self.randoms.operator.chance(0.3) => {
                let (latency, disk) = (self.settings.latency, self.settings.disk_latency);
                let mean = 3 * (latency.0 + latency.1) + disk.0 + disk.1;
                let wait = self.randoms.operator.exponential(mean);
                self.after(wait, Event::Operate(Step::Break(server)));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// How a request ended. What it says is so.
    fn on_managed(&mut self, outcome: ManageOutcome) -> Check {
        let Some(asking) = self.console.asking.take() else { return Ok(()) };
        self.network.close(self.now, self.console_node(), asking.link);
        self.trace.change(self.now, || format!("answer: {outcome:?}"));
        if let (ManageOutcome::ChangeRefused(_), Some(number)) = (&outcome, asking.number) {
            self.console.asked.refused(number);
        }
        match (outcome, &asking.wish) {
            (ManageOutcome::Changed(configuration), Wish::Change(change)) => {
                self.coverage.mark(Mark::ChangeBegun, 1);
                self.checker.membership.check_changed(change, &configuration)?;
                self.count_leader_removed(&asking);
                Ok(())
            }
            (ManageOutcome::Planned(plan), Wish::Change(change)) if plan.refused.is_none() => {
                self.checker.membership.check_planned(change, &plan.configuration)
            }
            (ManageOutcome::Transferred(to), _) => {
                self.coverage.mark(Mark::Transferred, 1);
                self.check_transferred(asking.term, to)
            }
            (
                ManageOutcome::ChangeRefused(ChangeRefused::NotLeader { leader: Some(address) })
                | ManageOutcome::TransferRefused(TransferRefused::NotLeader { leader: Some(address) }),
                _,
            ) if asking.redirections > 0 => {
                if let Some(server) = server_at(&address) {
                    self.dial_console(server, asking.wish, asking.plan, asking.redirections - 1);
                }
                Ok(())
            }
            (ManageOutcome::ChangeRefused(_), _) => {
                self.coverage.mark(Mark::ChangeRefused, 1);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn count_leader_removed(&mut self, asking: &Asking) {
        let Wish::Change(change) = &asking.wish else { return };
        let leader = self.servers[asking.server].id;
        if self.swarm.has(Class::M4) && change.remove.iter().any(|id| Some(*id) == leader) {
            self.coverage.fault(Class::M4);
        }
    }
}
