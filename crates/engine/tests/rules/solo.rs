//! One server by itself, its links held by the test.

use std::time::Duration;

use atomix_engine::{Engine, Input, Options, Output, Recovered};
use atomix_protocol::client::{ClientRequest, ClientResponse, OpenSession};
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::{Hello, Role};
use atomix_protocol::session::{CommandHeader, SessionEntry};
use atomix_protocol::{
    Address, BootNonce, ClientId, ClusterId, Configuration, GroupId, Identity, Incarnation, Index, LinkId,
    LocalTime, Member, MemberKind, Sequence, ServerId, SessionId, SessionKey,
};
use bytes::Bytes;

use crate::journal::Journal;

pub(crate) const CLUSTER: ClusterId = ClusterId(7);
pub(crate) const KEY: SessionKey = SessionKey(6);

pub(crate) fn incarnation(server: u64) -> Incarnation {
    Incarnation(u128::from(server) << 100)
}

pub(crate) fn address(server: u64) -> Address {
    Address::new(format!("server-{server}"))
}

/// Servers 1 to `count`.
pub(crate) fn configuration(count: u64) -> Configuration {
    let member = |server| Member {
        id: ServerId(server),
        incarnation: incarnation(server),
        peer_address: address(server),
        client_address: address(server),
        kind: MemberKind::Voter,
        priority: 0,
    };
    let members = (1..=count).map(member).collect();
    Configuration { cluster: CLUSTER, members, next_server_id: count + 1, ..Configuration::default() }
}

/// The directory of server 1 of `count`.
pub(crate) fn on_disk(count: u64) -> Recovered {
    Recovered {
        identity: Some(Identity { incarnation: incarnation(1) }),
        configuration: Some(configuration(count)),
        ..Recovered::default()
    }
}

pub(crate) struct Solo {
    pub(crate) engine: Engine,
    pub(crate) now: LocalTime,
    pub(crate) outputs: Vec<Output>,
}

impl Solo {
    /// Server 1 of `count`, on a directory in use, with the list given.
    pub(crate) fn member(count: u64) -> Self {
        Solo::listed(count, (1..=count).map(address).collect())
    }

    pub(crate) fn listed(count: u64, list: Vec<Address>) -> Self {
        Solo::recovered(on_disk(count), list)
    }

    /// A server with an incarnation, and nothing else.
    pub(crate) fn empty(count: u64) -> Self {
        let identity = Some(Identity { incarnation: incarnation(1) });
        Solo::recovered(Recovered { identity, ..Recovered::default() }, (1..=count).map(address).collect())
    }

    pub(crate) fn recovered(recovered: Recovered, list: Vec<Address>) -> Self {
        Solo::with(recovered, list, |_| ())
    }

    pub(crate) fn with(recovered: Recovered, list: Vec<Address>, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::new(address(1), list);
        options.boot_nonce = BootNonce(1);
        options.fresh_cluster = CLUSTER;
        options.fresh_incarnation = incarnation(1);
        change(&mut options);
        let now = LocalTime::from_millis(1);
        let engine = Engine::new(options, recovered, Box::new(Journal::default()), now).expect("no snapshot");
        let mut solo = Solo { engine, now, outputs: Vec::new() };
        solo.drain();
        solo
    }

    fn drain(&mut self) {
        let outputs = self.engine.drain(self.now);
        self.outputs.extend(outputs);
    }

    pub(crate) fn step(&mut self, input: Input) {
        self.engine.step(self.now, input);
        self.drain();
    }

    pub(crate) fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.engine.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step(Input::Tick);
        }
        self.now = end;
    }

    pub(crate) fn accept(&mut self) -> LinkId {
        let link = self.engine.accept();
        self.step(Input::Accepted(link));
        link
    }

    pub(crate) fn hear(&mut self, link: LinkId, frame: &Frame) {
        self.step(Input::Frame(link, frame.encode(GroupId::DEFAULT)));
    }

    pub(crate) fn hear_bytes(&mut self, link: LinkId, bytes: &[u8]) {
        self.step(Input::Frame(link, Bytes::copy_from_slice(bytes)));
    }

    /// An accepted link whose other end said this.
    pub(crate) fn greeted_by(&mut self, hello: Hello) -> LinkId {
        let link = self.accept();
        self.hear(link, &Frame::Hello(hello));
        link
    }

    /// The link that this server dialled to that address, standing.
    pub(crate) fn dialed(&mut self, to: &Address) -> LinkId {
        let dial = |output: &Output| match output {
            Output::Dial(link, address) if address == to => Some(*link),
            _ => None,
        };
        let link = self.outputs.iter().rev().find_map(dial).expect("it dials");
        self.step(Input::Dialed(link));
        link
    }

    /// What was sent on a link so far.
    pub(crate) fn sent(&self, link: LinkId) -> Vec<Frame> {
        let frame = |output: &Output| match output {
            Output::Send(to, bytes) if *to == link => Some(Frame::decode(bytes).expect("a frame")),
            _ => None,
        };
        self.outputs.iter().filter_map(frame).collect()
    }

    pub(crate) fn is_closed(&self, link: LinkId) -> bool {
        self.outputs.iter().any(|output| matches!(output, Output::Close(closed) if *closed == link))
    }

    /// Makes the next write durable. Says whether there was one.
    pub(crate) fn write_one(&mut self) -> bool {
        let Some(place) = self.outputs.iter().position(|output| matches!(output, Output::Write(..))) else {
            return false;
        };
        if let Output::Write(token, _) = self.outputs.remove(place) {
            self.step(Input::Written(token));
        }
        true
    }

    /// Makes all writes durable, and what follows from that.
    pub(crate) fn write(&mut self) {
        while self.write_one() {}
    }
}

/// What server `server` says first.
pub(crate) fn peer(server: u64) -> Hello {
    Hello {
        role: Role::Peer,
        server: Some(ServerId(server)),
        incarnation: incarnation(server),
        ..Hello::of_client(Some(CLUSTER), BootNonce(server * 10))
    }
}

/// What a client says first.
pub(crate) fn client(cluster: Option<ClusterId>) -> Hello {
    Hello { role: Role::Client, cluster, server: None, incarnation: Incarnation(0), ..peer(99) }
}

/// A leader of one, with a session on a link.
pub(crate) fn leader() -> (Solo, LinkId, SessionId) {
    leader_with(|_| ())
}

/// The same, with other options.
pub(crate) fn leader_with(change: impl FnOnce(&mut Options)) -> (Solo, LinkId, SessionId) {
    let mut solo = Solo::with(on_disk(1), vec![address(1)], change);
    solo.wait(Duration::from_secs(2));
    solo.write();
    let link = solo.greeted_by(client(None));
    solo.ask(link, ClientRequest::Open(open(1)));
    solo.write();
    let session = solo.opened(link).expect("a session");
    (solo, link, session)
}

/// Of one client, by attempt.
pub(crate) fn open(attempt: u64) -> OpenSession {
    OpenSession { client: ClientId(5), attempt, key: KEY, timeout_ms: 1_000 }
}

pub(crate) fn entry(session: SessionId, sequence: u64, body: &'static [u8]) -> SessionEntry {
    SessionEntry::Command(header(session, sequence), Bytes::from_static(body))
}

pub(crate) fn header(session: SessionId, sequence: u64) -> CommandHeader {
    CommandHeader {
        session,
        sequence: Sequence(sequence),
        lowest_unanswered: Sequence(1),
        acknowledged_event: Index::ZERO,
    }
}

pub(crate) fn command(session: SessionId, sequence: u64) -> Frame {
    Frame::Request(ClientRequest::Command(entry(session, sequence, b"x").encode()))
}

impl Solo {
    pub(crate) fn ask(&mut self, link: LinkId, request: ClientRequest) {
        self.hear(link, &Frame::Request(request));
    }

    /// What a client was told on a link so far, but for where the servers are.
    pub(crate) fn told(&self, link: LinkId) -> Vec<ClientResponse> {
        let response = |frame| match frame {
            Frame::Response(ClientResponse::Servers(_)) => None,
            Frame::Response(response) => Some(response),
            _ => None,
        };
        self.sent(link).into_iter().filter_map(response).collect()
    }

    pub(crate) fn opened(&self, link: LinkId) -> Option<SessionId> {
        self.told(link).into_iter().rev().find_map(|response| match response {
            ClientResponse::Opened(opened) => Some(opened.session),
            _ => None,
        })
    }
}
