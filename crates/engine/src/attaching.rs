//! From a link to the link of a session: open and attach (S1, E4).

use core::time::Duration;

use atomix_protocol::client::{
    Attach, Attached, ClientRequest, ClientResponse, EndReason, OpenSession, Opened,
};
use atomix_protocol::session::{Open, SessionEntry};
use atomix_protocol::{ClientId, Index, LinkId, LocalTime, Sequence, SessionId, SessionKey, Term};
use atomix_raft::Refused;
use atomix_session::table::{Lookup, SessionInfo};

use crate::clients::{Attachment, ClientLink};
use crate::engine::Engine;

/// How long an attachment for reads waits at a server that has not applied the session's opening yet.
const ATTACH_WAIT: Duration = Duration::from_millis(500);

impl Engine {
    pub(crate) fn open(&mut self, now: LocalTime, id: LinkId, open: OpenSession) {
        if !self.leads_or_parks(id, || ClientRequest::Open(open.clone())) {
            return;
        }
        if let Some(session) = self.table.opened_by(open.client, open.attempt) {
            self.finish_opening(now, id, open.attempt, session, open.key);
            return;
        }
        let attempt = (open.client, open.attempt);
        if self.refuses_for_room() && !self.clients.opening.contains_key(&attempt) {
            self.marks.full_refused += 1;
            return self.turn_away(now, id, "the disks of the servers are full");
        }
        let waits = self.clients.opening.insert(attempt, (id, open.key));
        if waits.is_some() {
            return;
        }
        let (least, most) = self.options.session_timeouts;
        let timeout_ms = open.timeout_ms.clamp(millis(least), millis(most));
        let (client, attempt, key) = (open.client, open.attempt, open.key);
        let entry = SessionEntry::Open(Open { client, attempt, key, principal: String::new(), timeout_ms });
        if let Err(refused) = self.propose(now, &entry, None) {
            self.clients.opening.remove(&(client, attempt));
            match refused {
                Refused::NotLeader { .. } => {
                    let response = self.not_leader();
                    self.respond(id, response);
                }
                // It is taken up again as soon as it is known who leads.
                Refused::HandingOver => self.park(id, ClientRequest::Open(open)),
                _ => self.turn_away(now, id, "busy"),
            }
        }
    }

    /// A session stands that was opened, or found open: whoever waits for it is attached.
    pub(crate) fn on_opened(&mut self, now: LocalTime, client: ClientId, attempt: u64, session: SessionId) {
        if let Some((id, key)) = self.clients.opening.remove(&(client, attempt)) {
            self.finish_opening(now, id, attempt, session, key);
        }
    }

    pub(crate) fn on_open_refused(&mut self, now: LocalTime, client: ClientId, attempt: u64) {
        if let Some((id, _)) = self.clients.opening.remove(&(client, attempt)) {
            self.turn_away(now, id, "too many sessions, or a later session of this client took its place");
        }
    }

    fn finish_opening(
        &mut self,
        now: LocalTime,
        id: LinkId,
        attempt: u64,
        session: SessionId,
        key: SessionKey,
    ) {
        // The client may be gone by now: it will ask again, or the session ends for silence.
        let (Some(info), Some(_)) = (self.table.session(session), self.links.client_mut(id)) else { return };
        if info.key != key {
            self.turn_away(now, id, "that attempt opened a session with another key");
            return;
        }
        self.bind(now, id, session, &info);
        let timeout_ms = millis(info.timeout);
        self.respond(id, ClientResponse::Opened(Opened { attempt, session, timeout_ms }));
        self.go_on(now, session, Index::ZERO);
    }

    pub(crate) fn attach(&mut self, now: LocalTime, id: LinkId, attach: Attach) {
        if !self.leads_or_parks(id, || ClientRequest::Attach(attach.clone())) {
            return;
        }
        let session = attach.session;
        if self.table.applied().0.0 < session.0 {
            // Opened by a later leader that this one has not heard of yet: what it does not know has not ended (S7).
            let term = self.raft.as_ref().map_or(Term::ZERO, atomix_raft::Raft::term);
            self.respond(id, ClientResponse::NotLeader { leader: None, term });
            return;
        }
        match self.open_session(session, attach.key) {
            Ok(info) => {
                self.bind(now, id, session, &info);
                self.respond(id, ClientResponse::Attached(attached(session, &info)));
                self.go_on(now, session, attach.last_event);
            }
            Err(reason) => self.respond(id, ClientResponse::Ended { session, reason }),
        }
    }

    fn open_session(&self, session: SessionId, key: SessionKey) -> Result<SessionInfo, EndReason> {
        match self.table.session(session) {
            Some(info) if info.key == key => Ok(info),
            Some(_) => Err(EndReason::WrongKey),
            None => match self.table.lookup(session, Sequence::ZERO) {
                Lookup::NoSession(reason) => Err(reason),
                Lookup::New | Lookup::Kept(..) => Err(EndReason::Unknown),
            },
        }
    }

    /// Any server serves reads of a session that it knows. A session is named by the index that opened it: once that is applied,
    /// the table's word is final.
    pub(crate) fn attach_to_read(&mut self, now: LocalTime, id: LinkId, attach: Attach) {
        if self.failed().is_some() {
            let response = self.not_leader();
            return self.respond(id, response);
        }
        let session = attach.session;
        if self.table.applied().0.0 < session.0 {
            if self.links.link(id).is_some_and(|link| !link.has_deadline()) {
                self.links.set_deadline(id, Some(now + ATTACH_WAIT));
            }
            self.park(id, ClientRequest::Attach(attach));
            return;
        }
        self.links.set_deadline(id, None);
        match self.open_session(session, attach.key) {
            Ok(info) => {
                if let Some(client) = self.links.client_mut(id) {
                    client.reads_as = Some(session);
                }
                self.respond(id, ClientResponse::Attached(attached(session, &info)));
            }
            Err(reason) => self.respond(id, ClientResponse::Ended { session, reason }),
        }
    }

    /// The session did not become known here in time.
    pub(crate) fn on_attach_deadline(&mut self, id: LinkId) {
        let parked = self.links.client_mut(id).and_then(|client| client.parked.take());
        if self.clients.parked.remove(&id) && parked.is_some() {
            let response = self.not_leader();
            self.respond(id, response);
        }
    }

    /// Makes this link the session's. An earlier one is of no use to the client any more.
    fn bind(&mut self, now: LocalTime, id: LinkId, session: SessionId, info: &SessionInfo) {
        self.unbind(id);
        let attachment = self.clients.attachments.entry(session).or_insert(Attachment {
            link: None,
            logged: info.last_sequence,
            since_gap: None,
            dropped: false,
            closing: false,
        });
        attachment.logged = attachment.logged.max(info.last_sequence);
        attachment.since_gap = None;
        let before = attachment.link.replace(id).filter(|before| *before != id);
        if let Some(client) = self.links.client_mut(id) {
            client.session = Some(session);
            client.detached = false;
        }
        if let Some(before) = before {
            self.marks.links_replaced += 1;
            self.close(now, before);
        }
    }

    /// A link that turns to another session, or ends, leaves the one it had.
    fn unbind(&mut self, id: LinkId) {
        if let Some(session) = self.links.client_mut(id).and_then(|client| client.session.take()) {
            self.detach(id, session);
        }
    }

    fn detach(&mut self, id: LinkId, session: SessionId) {
        if let Some(attachment) = self.clients.attachments.get_mut(&session)
            && attachment.link == Some(id)
        {
            attachment.link = None;
            self.deliveries.detached(session);
        }
    }

    pub(crate) fn on_client_gone(&mut self, id: LinkId, client: &ClientLink) {
        self.clients.parked.remove(&id);
        if let Some(session) = client.session {
            self.detach(id, session);
        }
        if client.reads > 0 {
            self.reads.forget(id);
        }
    }
}

fn attached(session: SessionId, info: &SessionInfo) -> Attached {
    Attached { session, timeout_ms: millis(info.timeout), last_sequence: info.last_sequence }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
