//! Requests of clients: command, keep-alive, close, status (S2–S6).

use std::collections::{BTreeMap, BTreeSet};

use atomix_protocol::client::{
    ClientRequest, ClientResponse, EndReason, KeepAlive, NotAnswered, NotLogged, Servers,
};
use atomix_protocol::codec::Frame;
use atomix_protocol::mutant::Mutant;
use atomix_protocol::session::{Close, CommandHeader, SessionEntry};
use atomix_protocol::{
    Address, ClientId, EntryKind, LinkId, LocalTime, MemberKind, Sequence, ServerId, SessionId, SessionKey,
    Term,
};
use atomix_raft::{Refused, Role};
use atomix_session::table::Lookup;
use bytes::Bytes;

use crate::engine::Engine;

/// A link from a client.
#[derive(Debug, Default)]
pub(crate) struct ClientLink {
    /// The session whose commands come on this link. Only at a leader.
    pub(crate) session: Option<SessionId>,
    /// The session that only reads on this link.
    pub(crate) reads_as: Option<SessionId>,
    /// It was attached, and was told that it no longer is: what was under way since then means nothing.
    pub(crate) detached: bool,
    /// What waits for this leader to be established, or for the session to become known here.
    pub(crate) parked: Option<ClientRequest>,
    /// Reads that wait.
    pub(crate) reads: usize,
}

impl ClientLink {
    /// Whether a session depends on it.
    pub(crate) fn is_served(&self) -> bool {
        self.session.is_some() || self.reads_as.is_some() || self.detached || self.parked.is_some()
    }
}

/// A session, as its leader serves it.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) link: Option<LinkId>,
    /// The last sequence that is in this leader's log. Invariant: all before it are too, or were applied.
    pub(crate) logged: Sequence,
    /// The newest sequence that came since a gap was answered: one that is not newer begins another attempt (S3).
    pub(crate) since_gap: Option<Sequence>,
    /// Something came while this leader was handing over, and was dropped: everything behind it is too, until it is known who leads.
    pub(crate) dropped: bool,
    pub(crate) closing: bool,
}

/// What a leader knows of its clients. Empty on other servers, but for what is parked.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    pub(crate) attachments: BTreeMap<SessionId, Attachment>,
    /// Openings in this leader's log, and who waits for them.
    pub(crate) opening: BTreeMap<(ClientId, u64), (LinkId, SessionKey)>,
    pub(crate) parked: BTreeSet<LinkId>,
    /// Whether any session's commands were dropped while this leader was handing over.
    pub(crate) dropped: bool,
}

impl Engine {
    pub(crate) fn on_request(&mut self, now: LocalTime, id: LinkId, request: ClientRequest) {
        let Some(client) = self.links.client_mut(id) else { return };
        let (session, reads_as, detached) = (client.session, client.reads_as, client.detached);
        if let Some(session) = session {
            self.hear(now, session, None);
        }
        match (request, session) {
            (ClientRequest::Status, _) => {
                let status = self.status(now);
                self.respond(id, ClientResponse::Status(Box::new(status)));
            }
            (ClientRequest::Manage(manage), _) => self.on_manage(now, id, manage),
            (ClientRequest::Open(open), _) => self.open(now, id, open),
            (ClientRequest::Attach(attach), _) if attach.read_only => self.attach_to_read(now, id, attach),
            (ClientRequest::Attach(attach), _) => self.attach(now, id, attach),
            (ClientRequest::Command(payload), Some(session)) => self.command(now, id, session, payload),
            (ClientRequest::KeepAlive(alive), Some(session)) => self.keep_alive(now, session, alive),
            (ClientRequest::Close, Some(session)) => self.close_session(now, id, session),
            (ClientRequest::Query(header, query), _) => match session.or(reads_as) {
                Some(session) => self.query(now, id, session, header, query),
                None if detached => {
                    let reason = NotAnswered::Redirect(self.leader_address());
                    self.respond(id, ClientResponse::NotAnswered { ticket: header.ticket, reason });
                }
                None => self.turn_away(now, id, "no session is attached to this link"),
            },
            (ClientRequest::Acknowledge { event }, Some(session)) => {
                self.acknowledge(now, session, event, None);
            }
            // Contacts count at the leader, and acknowledgements are folded into the log there.
            (ClientRequest::KeepAlive(_) | ClientRequest::Acknowledge { .. }, _) => {}
            (ClientRequest::Command(_) | ClientRequest::Close, None) if detached => {}
            (ClientRequest::Command(_) | ClientRequest::Close, None) => {
                self.turn_away(now, id, "no session is attached to this link");
            }
        }
    }

    pub(crate) fn respond(&mut self, id: LinkId, response: ClientResponse) {
        self.send(id, &Frame::Response(response));
    }

    /// Tells clients where the cluster is: those they were started with may all be gone one day. So does a server that was removed.
    pub(crate) fn tell_servers(&mut self, links: &[LinkId]) {
        let Some(configuration) = self.members.committed.as_ref().or(self.configuration()) else { return };
        let of_kind = |kind| configuration.members.iter().filter(move |member| member.kind == kind);
        // Reserve members do not know who leads.
        let members = of_kind(MemberKind::Voter).chain(of_kind(MemberKind::Learner));
        let addresses = members.map(|member| member.client_address.clone()).collect();
        let servers = ClientResponse::Servers(Servers { configuration: configuration.index, addresses });
        links.iter().for_each(|id| self.respond(*id, servers.clone()));
    }

    /// Refuses what no well-behaved client sends.
    pub(crate) fn turn_away(&mut self, now: LocalTime, id: LinkId, detail: &str) {
        self.respond(id, ClientResponse::Refused { detail: detail.into() });
        self.reject(now, id, detail.into());
    }

    /// Where clients reach the leader, if this server knows one that leads for sure or is thought to.
    pub(crate) fn leader_address(&self) -> Option<Address> {
        if let Some(failed) = self.failed() {
            return failed.leader.clone();
        }
        let raft = self.raft.as_ref()?;
        let leader = raft.leader().filter(|leader| *leader != raft.server() || self.is_established())?;
        raft.configuration().member(leader).map(|member| member.client_address.clone())
    }

    pub(crate) fn not_leader(&self) -> ClientResponse {
        let term = match (&self.raft, self.failed()) {
            (Some(raft), _) => raft.term(),
            (None, failed) => failed.map_or(Term::ZERO, |failed| failed.status.term),
        };
        ClientResponse::NotLeader { leader: self.leader_address(), term }
    }

    /// Whether this server leads, knows all that was committed before its term, and has set up for it.
    pub(crate) fn is_established(&self) -> bool {
        match (&self.raft, &self.leading) {
            (Some(raft), Some(leading)) => {
                (raft.is_established() || Mutant::C02.active()) && raft.term() == leading.term
            }
            _ => false,
        }
    }

    /// Says whether sessions can be served here now. A leader that is about to be established lets the request wait: that is a
    /// matter of one round, and a client that is sent away takes longer to come back.
    pub(crate) fn leads_or_parks(&mut self, id: LinkId, request: impl FnOnce() -> ClientRequest) -> bool {
        if self.is_established() {
            return true;
        }
        if self.raft.as_ref().is_some_and(|raft| raft.role() == Role::Leader) {
            self.park(id, request());
        } else {
            let response = self.not_leader();
            self.respond(id, response);
        }
        false
    }

    pub(crate) fn park(&mut self, id: LinkId, request: ClientRequest) {
        if let Some(client) = self.links.client_mut(id) {
            client.parked = Some(request);
            self.clients.parked.insert(id);
        }
    }

    /// Takes up what was parked, as far as it can be decided now.
    pub(crate) fn answer_parked(&mut self, now: LocalTime) {
        for id in self.clients.parked.iter().copied().collect::<Vec<_>>() {
            let parked = self.links.client_mut(id).and_then(|client| client.parked.take());
            self.clients.parked.remove(&id);
            if let Some(request) = parked {
                self.on_request(now, id, request);
            }
        }
    }

    fn command(&mut self, now: LocalTime, id: LinkId, session: SessionId, payload: Bytes) {
        let (header, body) = match SessionEntry::decode(&payload) {
            Ok(SessionEntry::Command(header, body)) if header.session == session => (header, Some(body)),
            Ok(SessionEntry::Skip(header)) if header.session == session => (header, None),
            _ => {
                self.turn_away(now, id, "not a command of this link's session");
                return;
            }
        };
        self.acknowledge(now, session, header.acknowledged_event, Some(header.lowest_unanswered));
        match self.table.lookup(session, header.sequence) {
            Lookup::New => self.log_command(now, id, header, body.as_ref(), payload),
            Lookup::Kept(reply, body, atomic) => {
                self.counters.answered_from_table += 1;
                self.mark_retry(reply.index);
                self.answer(session, reply, body, atomic && !Mutant::C05.active());
            }
            Lookup::NoSession(reason) => self.respond(id, ClientResponse::Ended { session, reason }),
        }
    }

    fn log_command(
        &mut self,
        now: LocalTime,
        id: LinkId,
        header: CommandHeader,
        body: Option<&Bytes>,
        payload: Bytes,
    ) {
        let Some(attachment) = self.clients.attachments.get_mut(&header.session) else { return };
        let (sequence, expected) = (header.sequence, attachment.logged.next());
        if sequence < expected {
            // It is in this leader's log already: its reply comes when it is applied.
            return;
        }
        if attachment.dropped {
            return;
        }
        if sequence > expected {
            // Once per attempt: what follows a hole in one go would only repeat the answer.
            let another = attachment.since_gap.is_none_or(|newest| sequence <= newest);
            attachment.since_gap = Some(sequence);
            if another {
                self.marks.gaps += 1;
                self.respond(id, ClientResponse::Gap { expected });
            }
            return;
        }
        attachment.since_gap = None;
        let room = sequence.since(header.lowest_unanswered) < self.options.window;
        let refused = if body.is_some_and(|body| body.len() > self.options.command_bytes) {
            Some(NotLogged::TooLarge)
        } else if let Some(reason) = body.and_then(|body| self.lacks_level(body)) {
            Some(reason)
        } else if body.is_some() && self.refuses_for_room() {
            self.marks.full_refused += 1;
            Some(NotLogged::Full)
        } else if room {
            match self.propose_payload(now, payload, None) {
                Ok(()) => None,
                // The change of role is about to be told to all links.
                Err(Refused::NotLeader { .. } | Refused::StaleTerm) => return,
                Err(Refused::HandingOver) => {
                    self.clients.dropped = true;
                    if let Some(attachment) = self.clients.attachments.get_mut(&header.session) {
                        attachment.dropped = true;
                    }
                    return;
                }
                Err(_) => Some(NotLogged::Busy),
            }
        } else {
            Some(NotLogged::Busy)
        };
        match (refused, self.clients.attachments.get_mut(&header.session)) {
            (Some(reason), _) => {
                self.marks.not_logged += 1;
                self.respond(id, ClientResponse::NotLogged { sequence, reason });
            }
            (None, Some(attachment)) => attachment.logged = sequence,
            (None, None) => {}
        }
    }

    fn keep_alive(&mut self, now: LocalTime, session: SessionId, alive: KeepAlive) {
        if Mutant::C01.active()
            && let Some(id) = self.link_of(session)
        {
            self.respond(id, ClientResponse::Confirmed { contact: alive.contact });
        }
        // First: what it acknowledges may be what kept its contacts from counting (E6).
        self.acknowledge(now, session, alive.acknowledged_event, Some(alive.lowest_unanswered));
        self.hear(now, session, Some(alive.contact));
    }

    fn close_session(&mut self, now: LocalTime, id: LinkId, session: SessionId) {
        match self.clients.attachments.get(&session) {
            Some(attachment) if !attachment.closing => {}
            _ => return,
        }
        match self.propose(now, &SessionEntry::Close(Close { session }), None) {
            Ok(()) => {
                if let Some(attachment) = self.clients.attachments.get_mut(&session) {
                    attachment.closing = true;
                }
            }
            Err(Refused::NotLeader { .. }) => {
                let response = self.not_leader();
                self.respond(id, response);
            }
            // The client asks again.
            Err(_) => {}
        }
    }

    pub(crate) fn propose(
        &mut self,
        now: LocalTime,
        entry: &SessionEntry,
        decided_in: Option<Term>,
    ) -> Result<(), Refused> {
        self.propose_payload(now, entry.encode(), decided_in)
    }

    fn propose_payload(
        &mut self,
        now: LocalTime,
        payload: Bytes,
        decided_in: Option<Term>,
    ) -> Result<(), Refused> {
        let Some(raft) = &mut self.raft else { return Err(Refused::NotLeader { leader: None::<ServerId> }) };
        raft.propose(now, EntryKind::Session, payload, decided_in).map(|_| ())
    }

    /// The link on which a session's replies leave.
    pub(crate) fn link_of(&self, session: SessionId) -> Option<LinkId> {
        self.clients.attachments.get(&session)?.link
    }

    /// The log holds a command out of sequence: what follows it is not taken to be there.
    pub(crate) fn on_gap(&mut self, session: SessionId, expected: Sequence) {
        let Some(attachment) = self.clients.attachments.get_mut(&session) else { return };
        attachment.logged = expected.previous();
        attachment.since_gap = None;
        if let Some(id) = attachment.link {
            self.marks.gaps += 1;
            self.respond(id, ClientResponse::Gap { expected });
        }
    }

    /// This server leads on after all: whoever's commands it dropped sends them again.
    pub(crate) fn resume_commands(&mut self) {
        let mut dropped = Vec::new();
        for attachment in self.clients.attachments.values_mut() {
            if core::mem::take(&mut attachment.dropped) {
                attachment.since_gap = None;
                dropped.extend(attachment.link.map(|id| (id, attachment.logged.next())));
            }
        }
        for (id, expected) in dropped {
            self.marks.resumed_after_hand_over += 1;
            self.respond(id, ClientResponse::Gap { expected });
        }
    }

    /// A session is over: its link may say so, and carry another.
    pub(crate) fn on_ended(&mut self, session: SessionId, reason: EndReason) {
        let Some(attachment) = self.clients.attachments.remove(&session) else { return };
        let Some(id) = attachment.link else { return };
        if let Some(client) = self.links.client_mut(id) {
            client.session = None;
            client.detached = true;
        }
        self.respond(id, ClientResponse::Ended { session, reason });
    }

    /// This server leads no more. Whoever waits for it is told to go elsewhere. Says whether anybody did wait.
    pub(crate) fn detach_all(&mut self) -> bool {
        let clients = core::mem::take(&mut self.clients);
        let mut waited = !clients.opening.is_empty();
        let response = self.not_leader();
        for (session, attachment) in clients.attachments {
            let applied = self.table.session(session).map_or(attachment.logged, |info| info.last_sequence);
            waited |= attachment.logged > applied || attachment.closing;
            let Some(id) = attachment.link else { continue };
            if let Some(client) = self.links.client_mut(id) {
                client.session = None;
                client.detached = true;
                waited |= client.reads > 0;
            }
            self.redirect_reads(id);
            self.respond(id, response.clone());
        }
        for (id, _) in clients.opening.into_values() {
            self.respond(id, response.clone());
        }
        // What is parked is looked at again right after this.
        self.clients.parked = clients.parked;
        waited
    }
}
