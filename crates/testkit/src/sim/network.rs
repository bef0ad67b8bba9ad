//! Connections between nodes: ordered streams of frames in each direction, as TCP is, over a network that can be cut.
//!
//! What is in flight waits while its direction is blocked and comes in a burst when it opens again; a connection that waits too
//! long breaks, with the loss of what is in flight, and perhaps only one end learns of it. Bare consensus uses only the map of
//! what is blocked, and loses, doubles and reorders single messages.

use std::collections::{BTreeMap, VecDeque};

use atomix_protocol::LinkId;
use bytes::Bytes;

use super::random::{Component, Random};
use super::settings::{MILLISECOND, SECOND, Settings, Time};

/// Servers come first, then clients.
pub(super) type Node = usize;
pub(super) type ConnectionId = u64;

/// Most frames that wait for one end: a full buffer that does not drain breaks the connection.
const BACKLOG: usize = 4_096;

/// Something that happens to a connection later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// The dialler's first packet arrives.
    Syn,
    /// The acceptor's answer arrives.
    Ack,
    /// The next thing in the queue towards that end arrives.
    Arrive(usize),
    /// The wait of that end's queue has lasted long.
    Stalled(usize),
    /// That end learns that the connection is no more.
    Broken(usize),
    /// The dialler has waited long enough.
    DialTimeout,
}

/// What a node is told.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Dialed(LinkId),
    Accepted(ConnectionId),
    Closed(LinkId),
    Frame(LinkId, Bytes),
}

/// How a node can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The process is there, even if it sleeps.
    Up,
    /// The machine refuses: there is no process.
    Refuses,
    /// The machine is off.
    Silent,
}

#[derive(Debug)]
enum Item {
    Frame(Bytes),
    Fin,
}

#[derive(Debug)]
struct End {
    node: Node,
    link: Option<LinkId>,
    /// Whether this end's process still has it.
    open: bool,
    /// Towards this end.
    queue: VecDeque<Item>,
    last_arrival: Time,
    stalled: bool,
    breaking: bool,
}

#[derive(Debug)]
struct Connection {
    ends: [End; 2],
    /// Nothing arrives any more.
    dead: bool,
}

/// The network.
#[derive(Debug)]
pub(super) struct Network {
    nodes: usize,
    blocked: Vec<u32>,
    connections: BTreeMap<ConnectionId, Connection>,
    links: Vec<BTreeMap<LinkId, (ConnectionId, usize)>>,
    next: ConnectionId,
    random: Random,
    latency: (Time, Time),
    /// Probability that a packet is lost and comes again much later (N1).
    loss: f64,
    /// Nodes whose links take so much longer.
    slow: BTreeMap<Node, Time>,
    later: Vec<(Time, ConnectionId, Signal)>,
    pub(super) delayed: u64,
    /// Connections that were broken.
    pub(super) resets: u64,
}

impl Network {
    pub(super) fn new(seed: u64, nodes: usize, settings: &Settings, loss: f64) -> Self {
        Network {
            nodes,
            blocked: vec![0; nodes * nodes],
            connections: BTreeMap::new(),
            links: vec![BTreeMap::new(); nodes],
            next: 0,
            random: Random::stream(seed, Component::Network, 0),
            latency: settings.latency,
            loss,
            slow: BTreeMap::new(),
            later: Vec::new(),
            delayed: 0,
            resets: 0,
        }
    }

    /// What has to be scheduled since the last call.
    pub(super) fn take_later(&mut self) -> Vec<(Time, ConnectionId, Signal)> {
        std::mem::take(&mut self.later)
    }

    pub(super) fn is_blocked(&self, from: Node, to: Node) -> bool {
        self.blocked[from * self.nodes + to] > 0
    }

    pub(super) fn block(&mut self, from: Node, to: Node) {
        self.blocked[from * self.nodes + to] += 1;
    }

    /// Lifts one block; what waited comes in a burst.
    pub(super) fn unblock(&mut self, now: Time, from: Node, to: Node) {
        let count = &mut self.blocked[from * self.nodes + to];
        *count = count.saturating_sub(1);
        if *count > 0 {
            return;
        }
        let Network { connections, later, random, .. } = self;
        for (id, connection) in connections.iter_mut() {
            for end in 0..2 {
                let from_node = connection.ends[1 - end].node;
                let at = &mut connection.ends[end];
                if at.stalled && at.node == to && from_node == from {
                    at.stalled = false;
                    // The sender tries again after a pause of its own.
                    let mut time = now + random.exponential(50 * MILLISECOND);
                    for _ in 0..at.queue.len() {
                        time += 1;
                        later.push((time, *id, Signal::Arrive(end)));
                    }
                    at.last_arrival = at.last_arrival.max(time);
                }
            }
        }
    }

    /// Lifts all blocks.
    pub(super) fn heal(&mut self, now: Time) {
        for from in 0..self.nodes {
            for to in 0..self.nodes {
                let count = &mut self.blocked[from * self.nodes + to];
                if *count > 0 {
                    *count = 1;
                    self.unblock(now, from, to);
                }
            }
        }
        self.loss = 0.0;
    }

    /// How long one packet takes, and whether it was lost on the way and sent again.
    pub(super) fn delay(&mut self) -> Time {
        let delay = self.latency.0 + self.random.exponential(self.latency.1);
        if self.loss > 0.0 && self.random.chance(self.loss) {
            self.delayed += 1;
            return delay + self.random.range(20 * MILLISECOND, 400 * MILLISECOND);
        }
        delay
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.nodes
    }

    /// All links of a node take so much longer, or no longer.
    pub(super) fn slow(&mut self, node: Node, extra: Option<Time>) {
        match extra {
            Some(extra) => self.slow.insert(node, extra),
            None => self.slow.remove(&node),
        };
    }

    /// How much longer than usual something takes from one node to another.
    pub(super) fn extra(&self, from: Node, to: Node) -> Time {
        let of = |node| self.slow.get(node).copied().unwrap_or(0);
        of(&from).max(of(&to))
    }

    pub(super) fn dial(&mut self, now: Time, node: Node, link: LinkId, to: Node) {
        let id = self.next;
        self.next += 1;
        let end = |node, link| End {
            node,
            link,
            open: true,
            queue: VecDeque::new(),
            last_arrival: now,
            stalled: false,
            breaking: false,
        };
        self.connections.insert(id, Connection { ends: [end(node, Some(link)), end(to, None)], dead: false });
        self.links[node].insert(link, (id, 0));
        let delay = self.delay();
        self.later.push((now + delay, id, Signal::Syn));
    }

    pub(super) fn send(&mut self, now: Time, node: Node, link: LinkId, frame: Bytes, peer: Reach) {
        let Some((id, end)) = self.links[node].get(&link).copied() else { return };
        self.push(now, id, 1 - end, Item::Frame(frame), peer);
    }

    fn push(&mut self, now: Time, id: ConnectionId, end: usize, item: Item, peer: Reach) {
        let Some((from, to)) = self.nodes_of(id) else { return };
        let delay = self.delay() + self.extra(from, to);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.dead || !connection.ends[end].open {
            self.bounce(now, id, 1 - end, peer);
            return;
        }
        let at = &mut connection.ends[end];
        at.queue.push_back(item);
        if at.queue.len() > BACKLOG {
            self.reset(now, id, false);
            return;
        }
        at.last_arrival = at.last_arrival.max(now + delay) + 1;
        if !at.stalled {
            self.later.push((at.last_arrival, id, Signal::Arrive(end)));
        }
    }

    /// Something was sent into nothing: the sender learns of it soon if the machine is there, late if not.
    fn bounce(&mut self, now: Time, id: ConnectionId, end: usize, peer: Reach) {
        let delay = self.delay();
        let late = self.random.range(SECOND / 2, 3 * SECOND);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (from, to) = (connection.ends[end].node, connection.ends[1 - end].node);
        let open = self.blocked[from * self.nodes + to] == 0 && self.blocked[to * self.nodes + from] == 0;
        let at = &mut connection.ends[end];
        if at.open && !at.breaking {
            at.breaking = true;
            let wait = if open && peer != Reach::Silent { delay } else { late };
            self.later.push((now + wait, id, Signal::Broken(end)));
        }
    }

    /// The process gives the link up; the other end learns of it after what was sent.
    pub(super) fn close(&mut self, now: Time, node: Node, link: LinkId) {
        let Some((id, end)) = self.links[node].remove(&link) else { return };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.ends[end].open = false;
        }
        self.push(now, id, 1 - end, Item::Fin, Reach::Up);
        self.forget(id);
    }

    /// A connection breaks with the loss of what is in flight. If `half`, only one end learns of it by itself.
    pub(super) fn reset(&mut self, now: Time, id: ConnectionId, half: bool) {
        let (first, second) =
            (self.random.exponential(5 * MILLISECOND), self.random.exponential(5 * MILLISECOND));
        let spared = if half { self.random.below(2) as usize } else { 2 };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.dead = true;
        self.resets += 1;
        for (end, wait) in [(0, first), (1, second)] {
            let at = &mut connection.ends[end];
            at.queue.clear();
            if end != spared && at.open && !at.breaking {
                at.breaking = true;
                self.later.push((now + wait, id, Signal::Broken(end)));
            }
        }
    }

    /// Who is at the other end of a link.
    pub(super) fn other_end(&self, node: Node, link: LinkId) -> Option<Node> {
        let (id, end) = self.links[node].get(&link)?;
        Some(self.connections.get(id)?.ends[1 - end].node)
    }

    /// The other end's name of a link that works: both ends have it, and nothing is lost or waits for long.
    pub(super) fn stands(&self, node: Node, link: LinkId) -> Option<(Node, LinkId)> {
        let (id, end) = self.links[node].get(&link)?;
        let connection = self.connections.get(id)?;
        let whole = |end: &End| end.open && !end.stalled && !end.breaking;
        let other = &connection.ends[1 - end];
        (!connection.dead && connection.ends.iter().all(whole)).then_some((other.node, other.link?))
    }

    /// The connection that a link is one end of.
    pub(super) fn connection_of(&self, node: Node, link: LinkId) -> Option<ConnectionId> {
        self.links[node].get(&link).map(|(id, _)| *id)
    }

    /// Connections of a node, to be broken one by one.
    pub(super) fn connections_of(&self, node: Node) -> Vec<ConnectionId> {
        self.links[node].values().map(|(id, _)| *id).collect()
    }

    /// A node's process is gone. Unless the machine is gone too, the others are told.
    pub(super) fn gone(&mut self, now: Time, node: Node, silent: bool) {
        for (id, end) in std::mem::take(&mut self.links[node]).into_values() {
            let delay = self.delay();
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            connection.dead = true;
            connection.ends[end].open = false;
            let from = node;
            let other = &mut connection.ends[1 - end];
            other.queue.clear();
            let blocked = self.blocked[from * self.nodes + other.node] > 0;
            if other.open && !silent && !blocked && !other.breaking {
                other.breaking = true;
                self.later.push((now + delay, id, Signal::Broken(1 - end)));
            }
            self.forget(id);
        }
    }

    fn forget(&mut self, id: ConnectionId) {
        let over = |connection: &Connection| {
            connection.ends.iter().all(|end| !end.open)
                && connection.ends.iter().all(|end| end.queue.is_empty())
        };
        if self.connections.get(&id).is_some_and(over) {
            self.connections.remove(&id);
        }
    }

    /// The acceptor has given the connection a name.
    pub(super) fn accepted(&mut self, id: ConnectionId, link: LinkId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let node = connection.ends[1].node;
            connection.ends[1].link = Some(link);
            self.links[node].insert(link, (id, 1));
        }
    }

    /// Something happens to a connection: which node is told what.
    pub(super) fn signal(
        &mut self,
        now: Time,
        id: ConnectionId,
        signal: Signal,
        reach: impl Fn(Node) -> Reach,
    ) -> Option<(Node, Told)> {
        match signal {
            Signal::Syn => self.syn(now, id, reach),
            Signal::Ack => self.ack(now, id),
            Signal::Arrive(end) => self.arrive(now, id, end),
            Signal::Stalled(end) => {
                self.stalled(now, id, end);
                None
            }
            Signal::Broken(end) => self.broken(id, end),
            Signal::DialTimeout => self.broken(id, 0),
        }
    }

    fn nodes_of(&self, id: ConnectionId) -> Option<(Node, Node)> {
        let connection = self.connections.get(&id)?;
        Some((connection.ends[0].node, connection.ends[1].node))
    }

    fn dial_fails(&mut self, now: Time, id: ConnectionId, refused: bool) {
        let wait = if refused { self.delay() } else { self.random.range(SECOND / 4, 2 * SECOND) };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.dead = true;
            connection.ends[1].open = false;
            connection.ends[0].breaking = true;
            self.later.push((now + wait, id, Signal::DialTimeout));
        }
    }

    fn syn(&mut self, now: Time, id: ConnectionId, reach: impl Fn(Node) -> Reach) -> Option<(Node, Told)> {
        let (from, to) = self.nodes_of(id)?;
        if !self.connections[&id].ends[0].open {
            self.connections.remove(&id);
            return None;
        }
        let lost = self.is_blocked(from, to) || reach(to) == Reach::Silent;
        if lost || reach(to) == Reach::Refuses || self.is_blocked(to, from) {
            self.dial_fails(now, id, !lost && !self.is_blocked(to, from));
            return None;
        }
        let delay = self.delay();
        self.later.push((now + delay, id, Signal::Ack));
        Some((to, Told::Accepted(id)))
    }

    fn ack(&mut self, now: Time, id: ConnectionId) -> Option<(Node, Told)> {
        let connection = self.connections.get(&id)?;
        let end = &connection.ends[0];
        let link = end.link?;
        if !end.open || end.breaking {
            return None;
        }
        if connection.dead {
            self.dial_fails(now, id, false);
            return None;
        }
        Some((end.node, Told::Dialed(link)))
    }

    fn arrive(&mut self, now: Time, id: ConnectionId, end: usize) -> Option<(Node, Told)> {
        let (a, b) = self.nodes_of(id)?;
        let (from, to) = if end == 1 { (a, b) } else { (b, a) };
        let blocked = self.is_blocked(from, to);
        let patience = self.random.range(SECOND / 4, 3 * SECOND);
        let connection = self.connections.get_mut(&id)?;
        let at = &mut connection.ends[end];
        if connection.dead || at.stalled {
            return None;
        }
        if blocked {
            at.stalled = true;
            self.later.push((now + patience, id, Signal::Stalled(end)));
            return None;
        }
        let item = at.queue.pop_front()?;
        let told = match (item, at.link) {
            (Item::Frame(frame), Some(link)) if at.open => Some((to, Told::Frame(link, frame))),
            (Item::Fin, Some(link)) if at.open => {
                at.open = false;
                connection.dead = true;
                self.links[to].remove(&link);
                Some((to, Told::Closed(link)))
            }
            _ => None,
        };
        self.forget(id);
        told
    }

    fn stalled(&mut self, now: Time, id: ConnectionId, end: usize) {
        let still = self.connections.get(&id).is_some_and(|c| c.ends[end].stalled && !c.dead);
        if still {
            // The sender gives up; whether the receiver ever hears of it is another matter.
            self.reset(now, id, true);
        }
    }

    fn broken(&mut self, id: ConnectionId, end: usize) -> Option<(Node, Told)> {
        let connection = self.connections.get_mut(&id)?;
        connection.dead = true;
        let at = &mut connection.ends[end];
        let told = at.open.then_some((at.node, at.link));
        at.open = false;
        let (node, link) = told?;
        let link = link?;
        self.links[node].remove(&link);
        self.forget(id);
        Some((node, Told::Closed(link)))
    }
}
