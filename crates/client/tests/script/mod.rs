//! A server by script: enough of one for the driver, and it tells what is left on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use atomix_client::ClientOptions;
use atomix_protocol::client::{
    AnswerHeader, Attached, ClientRequest, ClientResponse, EndReason, EventHeader, Opened, ReplyHeader,
    ReplyOutcome,
};
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::Role;
use atomix_protocol::session::SessionEntry;
use atomix_protocol::{ClusterId, GroupId, Index, InstanceId, Sequence, ServerId, SessionId};
use atomix_transport::{LinkEvent, LinkLimits, Links, MemoryNetwork, Transport};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

/// The first session that a server opens; the next one is the next number.
pub(crate) const SESSION: SessionId = SessionId(7);

/// How a server treats commands and queries.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Script {
    /// Replies to each with its own body, a command at an index of its own.
    Echo,
    /// Says nothing to any, nor to a close.
    Silent,
}

/// A server that serves until its runtime ends.
pub(crate) struct Server {
    /// Sessions that were opened and not closed.
    pub(crate) sessions: watch::Receiver<BTreeSet<SessionId>>,
    /// What was acknowledged in a frame of its own.
    pub(crate) acknowledged: watch::Receiver<Index>,
    publications: mpsc::UnboundedSender<Publication>,
}

struct Publication {
    instances: Vec<u64>,
    body: Bytes,
    atomic: bool,
}

impl Server {
    pub(crate) async fn start(network: &MemoryNetwork, address: &str, script: Script) -> Server {
        let listener = network.listen(address).await.expect("the address is free");
        let mut links = Links::new(Arc::new(network.clone()), LinkLimits::default());
        links.serve(listener);
        let (sessions, open) = watch::channel(BTreeSet::new());
        let (acknowledge, acknowledged) = watch::channel(Index::ZERO);
        let (publications, published) = mpsc::unbounded_channel();
        let state = State {
            script,
            links,
            bound: BTreeMap::new(),
            sessions,
            acknowledge,
            last_session: SESSION.0 - 1,
            applied: SESSION.0,
            last_event: Index::ZERO,
        };
        tokio::spawn(state.run(published));
        Server { sessions: open, acknowledged, publications }
    }

    /// Publishes an event to instances, at an index of its own.
    pub(crate) fn publish(&self, instances: &[u64], body: &str) {
        self.send(instances, body, false);
    }

    /// Publishes one for whose acknowledgement somebody waits.
    pub(crate) fn publish_atomic(&self, instances: &[u64], body: &str) {
        self.send(instances, body, true);
    }

    fn send(&self, instances: &[u64], body: &str, atomic: bool) {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let publication = Publication { instances: instances.to_vec(), body, atomic };
        self.publications.send(publication).unwrap_or_else(|_| panic!("the server is gone"));
    }
}

struct State {
    script: Script,
    links: Links,
    bound: BTreeMap<u64, SessionId>,
    sessions: watch::Sender<BTreeSet<SessionId>>,
    acknowledge: watch::Sender<Index>,
    last_session: u64,
    applied: u64,
    last_event: Index,
}

impl State {
    async fn run(mut self, mut published: mpsc::UnboundedReceiver<Publication>) {
        let mut last_link = 0;
        loop {
            let event = tokio::select! {
                event = self.links.next() => event,
                Some(publication) = published.recv() => {
                    self.applied += 1;
                    self.publish(&publication);
                    self.links.flush();
                    continue;
                }
            };
            match event {
                LinkEvent::Accepted(connection) => {
                    last_link += 1;
                    self.links.adopt(last_link, connection);
                }
                LinkEvent::Frames(link, frames) => {
                    for frame in frames {
                        match Frame::decode(&frame).expect("clients speak the protocol") {
                            Frame::Hello(mut hello) => {
                                hello.role = Role::Server;
                                hello.cluster = Some(ClusterId(1));
                                hello.server = Some(ServerId(1));
                                self.links.send(link, Frame::Hello(hello).encode(GroupId::DEFAULT));
                            }
                            Frame::Request(request) => self.serve(link, request),
                            other => panic!("not a request: {other:?}"),
                        }
                    }
                }
                LinkEvent::Closed(link, _) => {
                    self.bound.remove(&link);
                }
                LinkEvent::Dialed(_) => {}
            }
            self.links.flush();
        }
    }

    fn serve(&mut self, link: u64, request: ClientRequest) {
        let response = match request {
            ClientRequest::Open(open) => {
                self.last_session += 1;
                let session = SessionId(self.last_session);
                self.bound.insert(link, session);
                self.sessions.send_modify(|sessions| {
                    sessions.insert(session);
                });
                ClientResponse::Opened(Opened { attempt: open.attempt, session, timeout_ms: open.timeout_ms })
            }
            ClientRequest::Attach(attach) => {
                self.bound.insert(link, attach.session);
                let (session, last_sequence) = (attach.session, Sequence::ZERO);
                ClientResponse::Attached(Attached { session, timeout_ms: 5_000, last_sequence })
            }
            ClientRequest::Close => {
                let session = self.bound[&link];
                self.sessions.send_modify(|sessions| {
                    sessions.remove(&session);
                });
                if self.script == Script::Silent {
                    return;
                }
                ClientResponse::Ended { session, reason: EndReason::Closed }
            }
            ClientRequest::KeepAlive(alive) => ClientResponse::Confirmed { contact: alive.contact },
            ClientRequest::Acknowledge { event } => {
                self.acknowledge.send_replace(event);
                return;
            }
            ClientRequest::Status => ClientResponse::Status(Default::default()),
            ClientRequest::Manage(_) => panic!("nobody manages here"),
            _ if self.script == Script::Silent => return,
            ClientRequest::Command(entry) => self.apply(&entry),
            ClientRequest::Query(header, body) => {
                let index = Index(self.applied).max(header.after_index);
                let (ticket, event_index) = (header.ticket, self.last_event);
                ClientResponse::Answer(AnswerHeader { ticket, index, event_index }, body)
            }
        };
        self.send(link, response);
    }

    /// A command that begins with "publish" publishes itself to the instances 5 and 6.
    fn apply(&mut self, entry: &Bytes) -> ClientResponse {
        let Ok(SessionEntry::Command(header, body)) = SessionEntry::decode(entry) else {
            panic!("not a command");
        };
        self.applied += 1;
        if body.starts_with(b"publish") {
            self.publish(&Publication { instances: vec![5, 6], body: body.clone(), atomic: false });
        }
        let (index, event_index) = (Index(self.applied), self.last_event);
        let (sequence, outcome) = (header.sequence, ReplyOutcome::Applied);
        ClientResponse::Reply(ReplyHeader { sequence, index, event_index, outcome }, body)
    }

    fn publish(&mut self, publication: &Publication) {
        let index = Index(self.applied);
        let header = EventHeader {
            index,
            previous: std::mem::replace(&mut self.last_event, index),
            atomic: publication.atomic,
            bodies: vec![publication.body.len() as u32],
            parts: publication.instances.iter().map(|instance| (InstanceId(*instance), 0)).collect(),
        };
        for link in self.bound.keys().copied().collect::<Vec<_>>() {
            self.send(link, ClientResponse::Event(header.clone(), publication.body.clone()));
        }
    }

    fn send(&mut self, link: u64, response: ClientResponse) {
        self.links.send(link, Frame::Response(response).encode(GroupId::DEFAULT));
    }
}

/// Options that leave time for a busy machine.
pub(crate) fn options(servers: &[&str]) -> ClientOptions {
    let mut options = ClientOptions::new(servers.iter().copied());
    options.connect_timeout = Duration::from_secs(60);
    options
}
