//! What a server does for its clients, in its simplest form.

use std::time::Duration;

use atomix_protocol::client::{
    Attach, Attached, ClientRequest, ClientResponse, Consistency, EndReason, NotAnswered, NotLogged, Opened,
    QueryHeader,
};
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::{Hello, MAGIC, Refusal, RefusalReason, Role};
use atomix_protocol::session::{Close, Expire, Open, SessionEntry};
use atomix_protocol::{
    BootNonce, Entry, EntryKind, GroupId, Incarnation, Index, LocalTime, Round, Sequence, SessionId,
};
use atomix_session::deliveries::Deliveries;
use atomix_session::liveness::Liveness;
use atomix_session::table::{Effect, Limits, Lookup, Table};
use atomix_session::{QueryContext, StateMachine};
use bytes::Bytes;

use super::events::{Held, OUTBOX};
use super::machine::Machine;
use super::{Clock, RESERVE, WINDOW, World};

const HEARTBEAT: Duration = Duration::from_millis(50);
const LIMITS: Limits = Limits { sessions: 8, window: WINDOW + RESERVE };

pub(crate) struct Server {
    pub(crate) table: Table,
    pub(crate) machine: Machine,
    pub(crate) paused_until: u64,
    clock: Clock,
    pub(super) liveness: Liveness,
    pub(super) deliveries: Deliveries,
    pub(super) held: Vec<Held>,
    /// The last round begun, and when it completes.
    round: Round,
    completes: Option<u64>,
    reads: Vec<Read>,
}

struct Read {
    wire: (usize, u64),
    session: SessionId,
    header: QueryHeader,
    body: Bytes,
    until: u64,
    /// Linearizable: what was committed when it came.
    after: Index,
}

impl Server {
    pub(super) fn new(clock: Clock) -> Self {
        Server {
            table: Table::new(LIMITS),
            machine: Machine::default(),
            paused_until: 0,
            clock,
            liveness: Liveness::new(HEARTBEAT),
            deliveries: Deliveries::new(OUTBOX),
            held: Vec::new(),
            round: Round::ZERO,
            completes: None,
            reads: Vec::new(),
        }
    }

    pub(super) fn now(&self, real: u64) -> LocalTime {
        self.clock.read(real)
    }

    pub(super) fn apply(&mut self, entry: &Entry) -> Vec<Effect> {
        let effects = self.table.apply(entry, &mut self.machine);
        for (session, _) in self.table.sessions() {
            let replies = self.table.session(session).expect("open").replies as u64;
            assert!(replies <= LIMITS.window, "S4: {replies} replies kept");
        }
        effects
    }

    pub(super) fn elect(&mut self, now: LocalTime) {
        self.liveness.elected(now, &mut self.table.sessions());
        self.round = Round::ZERO;
        self.completes = None;
    }

    pub(super) fn depose(&mut self) {
        self.liveness.deposed();
        self.deliveries.deposed();
        self.held.clear();
    }

    /// A restart from a snapshot of its own.
    fn restart(&mut self) {
        let mut bytes = Vec::new();
        self.table.snapshot(&self.machine).write_to(&mut bytes).expect("written to memory");
        let digest = self.table.digest();
        (self.table, self.machine) = (Table::new(LIMITS), Machine::default());
        self.table.restore(&Bytes::from(bytes), &mut self.machine).expect("its own snapshot");
        assert_eq!(self.table.digest(), digest, "M4");
        self.reads.clear();
    }
}

impl World {
    pub(super) fn servers_act(&mut self) {
        for server in 0..self.servers.len() {
            if self.servers[server].paused_until > self.real {
                continue;
            }
            if server == self.leader {
                self.lead(server);
            } else {
                for _ in 0..self.below(3) {
                    if let Some(entry) = self.next_to_apply(server) {
                        self.servers[server].apply(&entry);
                    }
                }
                if self.weather.pauses > 0 && self.below(500) == 0 {
                    self.met.restarts += 1;
                    self.servers[server].restart();
                }
            }
            self.answer_reads(server);
        }
    }

    fn lead(&mut self, server: usize) {
        let now = self.servers[server].now(self.real);
        for session in self.servers[server].liveness.due(now) {
            let expire = Expire { session, decided_in: self.term };
            self.append(EntryKind::Session, SessionEntry::Expire(expire).encode());
        }
        if self.servers[server].table.is_cleaning() {
            self.append(EntryKind::Session, SessionEntry::Time.encode());
        }
        self.lead_events();
        if self.below(3) == 0 {
            let pending = (self.log.len() - self.committed) as u64;
            let through = self.committed + self.below(pending + 1) as usize;
            self.commit(through);
        }
        let of = &mut self.servers[server];
        if of.completes.is_some_and(|at| at <= self.real) {
            of.completes = None;
            for (session, contact) in of.liveness.confirmed(of.round) {
                self.send_to_session(session, &ClientResponse::Confirmed { contact });
            }
        } else if of.completes.is_none() && self.real.is_multiple_of(20) {
            of.round = of.round.next();
            let takes = self.below(10);
            self.servers[server].completes = Some(self.real + takes);
        }
    }

    /// A frame reaches its server.
    pub(super) fn serve(&mut self, wire: usize, bytes: &Bytes) {
        let frame = Frame::decode(bytes).expect("clients send frames");
        if !self.wires[wire].greeted {
            return self.greet(wire, &frame);
        }
        let Frame::Request(request) = frame else { panic!("not a request: {frame:?}") };
        let (server, read_only) = (self.wires[wire].server, self.wires[wire].read_only);
        match request {
            ClientRequest::Status => return self.send(wire, &ClientResponse::Status(Default::default())),
            ClientRequest::Attach(attach) if attach.read_only => {
                self.wires[wire].read_only = true;
                return self.attach(wire, &attach);
            }
            ClientRequest::Query(header, body) if read_only => return self.take_query(wire, header, body),
            _ => {}
        }
        let binds = matches!(request, ClientRequest::Open(_) | ClientRequest::Attach(_));
        if server != self.leader || (self.wires[wire].session.is_none() && !binds) {
            let leader = (self.below(2) == 0).then(|| super::server_address(self.leader));
            return self.send(wire, &ClientResponse::NotLeader { leader, term: self.term });
        }
        let now = self.servers[server].now(self.real);
        match request {
            ClientRequest::Open(open) => self.take_open(open),
            ClientRequest::Attach(attach) => self.attach(wire, &attach),
            ClientRequest::Command(entry) => self.take_command(wire, entry),
            ClientRequest::Query(header, body) => self.take_query(wire, header, body),
            ClientRequest::KeepAlive(keep_alive) => {
                let session = self.wires[wire].session.expect("attached");
                self.acknowledged(session, keep_alive.acknowledged_event, Some(keep_alive.lowest_unanswered));
                self.judge_contacts();
                let server = &mut self.servers[server];
                server.liveness.contact(now, session, Some(keep_alive.contact), server.round);
            }
            ClientRequest::Acknowledge { event } => {
                self.met.acknowledgements += 1;
                let session = self.wires[wire].session.expect("attached");
                self.acknowledged(session, event, None);
            }
            ClientRequest::Close => {
                let session = self.wires[wire].session.expect("attached");
                self.append(EntryKind::Session, SessionEntry::Close(Close { session }).encode());
            }
            ClientRequest::Status | ClientRequest::Manage(_) => panic!("answered before, or not asked"),
        }
    }

    fn greet(&mut self, wire: usize, frame: &Frame) {
        let Frame::Hello(hello) = frame else { panic!("I5: the first frame is a hello, not {frame:?}") };
        assert_eq!((hello.magic, hello.role), (MAGIC, Role::Client));
        self.wires[wire].greeted = true;
        if hello.cluster.is_some_and(|cluster| cluster != self.cluster) && self.below(2) == 0 {
            let refusal = Refusal { reason: RefusalReason::ForeignCluster, detail: String::new() };
            return self.push(wire, &Frame::Refusal(refusal));
        }
        let hello = Hello {
            role: Role::Server,
            incarnation: Incarnation(1),
            ..Hello::of_client(Some(self.cluster), BootNonce(1))
        };
        self.push(wire, &Frame::Hello(hello));
    }

    fn take_open(&mut self, open: atomix_protocol::client::OpenSession) {
        let open = Open {
            client: open.client,
            attempt: open.attempt,
            key: open.key,
            principal: String::new(),
            timeout_ms: open.timeout_ms,
        };
        self.append(EntryKind::Session, SessionEntry::Open(open).encode());
    }

    fn attach(&mut self, wire: usize, attach: &Attach) {
        let session = attach.session;
        let info = self.servers[self.wires[wire].server].table.session(session);
        let response = match info {
            Some(info) if info.key == attach.key => {
                self.wires[wire].session = Some(session);
                if !attach.read_only && !self.wires[wire].cut {
                    self.attach_events(session, attach.last_event);
                }
                let timeout_ms = info.timeout.as_millis() as u64;
                ClientResponse::Attached(Attached { session, timeout_ms, last_sequence: info.last_sequence })
            }
            Some(_) => ClientResponse::Ended { session, reason: EndReason::WrongKey },
            None => ClientResponse::Ended { session, reason: EndReason::Unknown },
        };
        self.send(wire, &response);
    }

    fn take_command(&mut self, wire: usize, payload: Bytes) {
        let (header, skip) = match SessionEntry::decode(&payload) {
            Ok(SessionEntry::Command(header, _)) => (header, false),
            Ok(SessionEntry::Skip(header)) => (header, true),
            other => panic!("not a command: {other:?}"),
        };
        let session = self.wires[wire].session.expect("attached");
        assert_eq!(session, header.session);
        match self.servers[self.leader].table.lookup(session, header.sequence) {
            Lookup::Kept(header, body, atomic) => {
                self.met.answered_from_table += 1;
                return self.send_reply(session, header, body, atomic);
            }
            Lookup::NoSession(reason) => return self.send(wire, &ClientResponse::Ended { session, reason }),
            Lookup::New => {}
        }
        let expected = self.next_to_log(session);
        if header.sequence > expected {
            self.met.gaps_before_the_log += 1;
            // Now and then the server does not look, and the table has to.
            if self.below(4) > 0 {
                return self.send(wire, &ClientResponse::Gap { expected });
            }
        }
        let share = if skip { self.weather.refusals / 2 } else { self.weather.refusals };
        if header.sequence >= expected && self.per_mille(share) {
            self.met.refused += 1;
            self.note_refused(session, header.sequence);
            let sequence = header.sequence;
            return self.send(wire, &ClientResponse::NotLogged { sequence, reason: NotLogged::Busy });
        }
        self.append(EntryKind::Session, payload);
    }

    fn note_refused(&mut self, session: SessionId, sequence: Sequence) {
        for client in self.clients.iter_mut().filter(|client| client.session == Some(session)) {
            if let Some(command) = client.commands.get_mut(&sequence) {
                command.refused = true;
            }
        }
    }

    /// The sequence after the last one that is applied or in the log.
    fn next_to_log(&self, session: SessionId) -> Sequence {
        let applied = self.servers[self.leader].table.session(session).map(|info| info.last_sequence);
        let mut next = applied.unwrap_or(Sequence::ZERO).next();
        for entry in &self.log[self.committed..] {
            if let Ok(SessionEntry::Command(header, _) | SessionEntry::Skip(header)) =
                SessionEntry::decode(&entry.payload)
                && header.session == session
                && header.sequence == next
            {
                next = next.next();
            }
        }
        next
    }

    fn take_query(&mut self, wire: usize, header: QueryHeader, body: Bytes) {
        let server = self.wires[wire].server;
        let leads = server == self.leader;
        if !leads && (header.consistency == Consistency::Linearizable || self.below(6) == 0) {
            self.met.redirected_reads += 1;
            let ticket = header.ticket;
            let reason = NotAnswered::Redirect(None);
            return self.send(wire, &ClientResponse::NotAnswered { ticket, reason });
        }
        let after = match header.consistency {
            Consistency::Linearizable => Index(self.committed as u64),
            _ => Index::ZERO,
        };
        let session = self.wires[wire].session.expect("attached");
        let wire = (self.wires[wire].client, self.wires[wire].link);
        let until = self.real + 100;
        self.servers[server].reads.push(Read { wire, session, header, body, until, after });
    }

    fn answer_reads(&mut self, server: usize) {
        for read in std::mem::take(&mut self.servers[server].reads) {
            let of = &self.servers[server];
            let (index, time) = of.table.applied();
            let info = of.table.session(read.session);
            let last = info.as_ref().map(|info| info.last_sequence);
            let header = read.header;
            let ready = index >= header.after_index.max(read.after) && last >= Some(header.after_sequence);
            let mut response = None;
            if ready && (header.consistency != Consistency::Linearizable || server == self.leader) {
                let context = QueryContext { index, time, session: read.session, levels: of.table.levels() };
                let body = of.machine.query(&context, &read.body);
                let event_index = info.map_or(Index::ZERO, |info| info.event_index);
                let (client, link) = read.wire;
                let wire = self.wire(client, atomix_protocol::LinkId(link));
                let on_read_link = wire.is_some_and(|wire| self.wires[wire].read_only);
                self.met.answers_ahead += u64::from(on_read_link && event_index > self.last_event(client));
                let ticket = header.ticket;
                let header = atomix_protocol::client::AnswerHeader { ticket, index, event_index };
                response = Some(ClientResponse::Answer(header, body));
            } else if read.until <= self.real {
                self.met.late_reads += 1;
                let (ticket, reason) = (header.ticket, NotAnswered::TimedOut);
                response = Some(ClientResponse::NotAnswered { ticket, reason });
            }
            let (client, link) = read.wire;
            match (response, self.wire(client, atomix_protocol::LinkId(link))) {
                (Some(response), Some(wire)) => self.send(wire, &response),
                (None, Some(_)) => self.servers[server].reads.push(read),
                (_, None) => {}
            }
        }
    }

    /// The leader tells clients what an entry meant to them.
    pub(super) fn tell(&mut self, effect: Effect) {
        let now = self.servers[self.leader].now(self.real);
        match effect {
            Effect::Opened { session, client, attempt, timeout, .. } => {
                self.servers[self.leader].liveness.opened(now, session, timeout);
                let timeout_ms = timeout.as_millis() as u64;
                let opened = ClientResponse::Opened(Opened { attempt, session, timeout_ms });
                for wire in 0..self.wires.len() {
                    let of = &mut self.wires[wire];
                    let mine = of.client as u128 + 1 == client.0 && of.server == self.leader;
                    if mine && of.greeted && !of.read_only && !of.cut {
                        of.session = Some(session);
                        self.send(wire, &opened);
                        self.attach_events(session, Index::ZERO);
                    }
                }
            }
            Effect::OpenRefused { .. } => {}
            Effect::Reply { session, header, body, kept, atomic } => {
                self.met.answered_from_table += u64::from(kept);
                self.send_reply(session, header, body, atomic);
            }
            Effect::Published { .. } | Effect::Trimmed { .. } => self.judge_contacts(),
            Effect::GivenUp { .. } => {
                self.met.given_up += 1;
                self.judge_contacts();
            }
            Effect::Gap { session, expected } => {
                self.met.gaps_at_apply += 1;
                self.send_to_session(session, &ClientResponse::Gap { expected });
            }
            Effect::Ended { session, reason, new } => {
                self.met.closed += u64::from(new && reason == EndReason::Closed);
                self.servers[self.leader].liveness.ended(session);
                self.servers[self.leader].deliveries.ended(session);
                self.send_to_session(session, &ClientResponse::Ended { session, reason });
            }
        }
    }

    pub(super) fn send_to_session(&mut self, session: SessionId, response: &ClientResponse) {
        for wire in 0..self.wires.len() {
            let of = &self.wires[wire];
            if of.session == Some(session) && of.server == self.leader && !of.read_only && !of.cut {
                self.send(wire, response);
            }
        }
    }

    fn send(&mut self, wire: usize, response: &ClientResponse) {
        self.push(wire, &Frame::Response(response.clone()));
    }

    fn push(&mut self, wire: usize, frame: &Frame) {
        if !self.wires[wire].cut {
            self.wires[wire].to_client.push_back(frame.encode(GroupId::DEFAULT));
        }
    }
}
