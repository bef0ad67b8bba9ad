//! One server with its disk; clients, peers and time are the history's.

use std::time::Duration;

use atomix_engine::{Engine, Input, Options, Output, Recovered};
use atomix_protocol::client::{Attach, ClientRequest, ClientResponse, KeepAlive, OpenSession};
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::{Hello, Role};
use atomix_protocol::peer::{
    AppendEntries, AppendEntriesReply, AppendOutcome, PeerMessage, PreVoteReply, RequestVoteReply,
};
use atomix_protocol::session::{CommandHeader, Expire, Open, SessionEntry};
use atomix_protocol::{
    BootNonce, ClientId, ClusterTime, Entry, EntryId, EntryKind, GroupId, Identity, Index, InstanceId,
    LinkId, LocalTime, Round, Sequence, SessionId, SessionKey, Term,
};
use atomix_raft::Raft;
use atomix_session::{
    Context, KindLevel, QueryContext, RestoreError, Slice, SnapshotSource, StateMachine, TimerId,
};
use bytes::Bytes;

use super::super::cast::{CLUSTER, address, configuration, incarnation, peer};

const KEY: SessionKey = SessionKey(9);
pub(super) const TIMEOUT_MS: u64 = 1_000;

/// What server 3 does. Server 2 is down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Silent,
    /// Votes, and answers rounds, but its disk takes nothing.
    Votes,
    /// Votes, and takes what it is sent.
    Follows,
}

/// A session and its link.
#[derive(Clone, Copy)]
pub(super) struct User {
    pub(super) session: SessionId,
    pub(super) link: LinkId,
}

/// Server 1 of a cluster.
pub(super) struct Server {
    members: u64,
    pub(super) engine: Engine,
    pub(super) now: LocalTime,
    disk: Recovered,
    /// Asked of the disk.
    writes: Vec<Output>,
    sent: Vec<(LinkId, Frame)>,
    /// Links dialled to server 3 that do not stand yet.
    dialed: Vec<LinkId>,
    pub(super) peer: Peer,
    /// The link that server 3 dialled.
    from_peer: Option<LinkId>,
}

impl Server {
    pub(super) fn new(members: u64) -> Self {
        let disk = Recovered {
            identity: Some(Identity { incarnation: incarnation(1) }),
            configuration: Some(configuration(members)),
            ..Recovered::default()
        };
        let (engine, now) = (start(members, disk.clone()), LocalTime::from_millis(1));
        let mut server = Server {
            members,
            engine,
            now,
            disk,
            writes: Vec::new(),
            sent: Vec::new(),
            dialed: Vec::new(),
            peer: Peer::Silent,
            from_peer: None,
        };
        server.drain();
        server
    }

    /// Another process on the same disk.
    pub(super) fn restart(&mut self) {
        let disk = self.disk.clone();
        *self = Server { engine: start(self.members, disk.clone()), disk, ..Server::new(self.members) };
        self.drain();
    }

    fn drain(&mut self) {
        for output in self.engine.drain(self.now) {
            match output {
                Output::Send(link, bytes) => {
                    self.sent.extend(Frame::decode(&bytes).ok().map(|frame| (link, frame)))
                }
                Output::Dial(link, to) if to == address(3) => self.dialed.push(link),
                Output::Write(..) => self.writes.push(output),
                _ => {}
            }
        }
    }

    fn step(&mut self, input: Input) {
        self.engine.step(self.now, input);
        self.drain();
    }

    fn hear(&mut self, link: LinkId, frame: &Frame) {
        self.step(Input::Frame(link, frame.encode(GroupId::DEFAULT)));
    }

    /// Makes durable what was asked for, and what follows from that.
    pub(super) fn work(&mut self) {
        while !self.writes.is_empty() {
            let Output::Write(token, batch) = self.writes.remove(0) else { continue };
            self.disk.hard_state = batch.hard_state.unwrap_or(self.disk.hard_state);
            if let Some(after) = batch.truncate_after {
                self.disk.entries.retain(|entry| entry.id.index <= after.index);
            }
            self.disk.entries.extend(batch.entries);
            self.step(Input::Written(token));
        }
    }

    /// To the next deadline, without any work of the disk.
    pub(super) fn tick(&mut self) -> Result<(), String> {
        let deadline = self.engine.next_deadline().ok_or("nothing is due any more")?;
        self.now = self.now.max(deadline);
        self.step(Input::Tick);
        Ok(())
    }

    pub(super) fn pass(&mut self, duration: Duration) -> Result<(), String> {
        let end = self.now + duration;
        while self.engine.next_deadline().is_some_and(|at| at <= end) {
            self.tick()?;
            self.work();
            self.play_peer();
        }
        self.now = end;
        Ok(())
    }

    pub(super) fn lead(&mut self) -> Result<(), String> {
        self.pass_until(|server| server.raft().is_some_and(Raft::is_established))
    }

    pub(super) fn pass_until(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        for _ in 0..100 {
            self.pass(Duration::from_millis(50))?;
            if done(self) {
                return Ok(());
            }
        }
        Err("it does not lead".into())
    }

    pub(super) fn raft(&self) -> Option<&Raft> {
        self.engine.raft()
    }

    /// Server 3 answers what it was sent, on the link that it dialled.
    fn play_peer(&mut self) {
        for link in std::mem::take(&mut self.dialed) {
            self.step(Input::Dialed(link));
            self.hear(link, &Frame::Hello(peer(3)));
        }
        let asks = |(_, frame): &(LinkId, Frame)| matches!(frame, Frame::Peer(_) | Frame::Ping(_));
        while let Some(place) = self.sent.iter().position(asks) {
            match self.sent.remove(place) {
                (link, Frame::Ping(token)) => self.hear(link, &Frame::Pong(token)),
                (_, Frame::Peer(message)) => {
                    if let Some(answer) = self.answer_of_peer(message) {
                        self.say_as_peer(answer);
                        self.work();
                    }
                }
                _ => {}
            }
        }
    }

    fn say_as_peer(&mut self, message: PeerMessage) {
        let link = match self.from_peer {
            Some(link) => link,
            None => {
                let link = self.greeted_by(peer(3));
                *self.from_peer.insert(link)
            }
        };
        self.hear(link, &Frame::Peer(message));
    }

    fn answer_of_peer(&self, message: PeerMessage) -> Option<PeerMessage> {
        match (message, self.peer) {
            (_, Peer::Silent) => None,
            (PeerMessage::PreVote(asked), _) => Some(PeerMessage::PreVoteReply(PreVoteReply {
                asked: asked.term,
                granted: true,
                current: asked.term.previous(),
                sticky: false,
            })),
            (PeerMessage::RequestVote(asked), _) => Some(PeerMessage::RequestVoteReply(RequestVoteReply {
                term: asked.term,
                asked: asked.term,
                granted: true,
            })),
            (PeerMessage::AppendEntries(append), peer) => {
                let taken = if peer == Peer::Follows { append.entries.len() as u64 } else { 0 };
                let outcome = AppendOutcome::Durable(append.prev.index.plus(taken));
                let (term, round) = (append.term, append.round);
                Some(PeerMessage::AppendEntriesReply(AppendEntriesReply {
                    term,
                    round,
                    room: true,
                    abstains: false,
                    outcome,
                }))
            }
            _ => None,
        }
    }

    /// Follows server 3, which committed the opening of a session and then has its expiry replicated.
    pub(super) fn follow(&mut self, session: SessionId) {
        let open = Open {
            client: ClientId(1),
            attempt: 1,
            key: KEY,
            principal: String::new(),
            timeout_ms: TIMEOUT_MS,
        };
        let expire = Expire { session, decided_in: Term(1) };
        let entries = [SessionEntry::Open(open), SessionEntry::Expire(expire)];
        let entry = |(index, entry): (u64, &SessionEntry)| Entry {
            id: EntryId::new(Term(1), Index(index)),
            time: ClusterTime(1),
            kind: EntryKind::Session,
            payload: entry.encode(),
        };
        self.say_as_peer(PeerMessage::AppendEntries(AppendEntries {
            term: Term(1),
            prev: EntryId::ZERO,
            leader_commit: Index(1),
            last_index: Index(0),
            time: ClusterTime(1),
            promise_ms: 0,
            round: Round(1),
            entries: (1..).zip(&entries).map(entry).collect(),
        }));
        self.work();
    }

    fn greeted_by(&mut self, hello: Hello) -> LinkId {
        let link = self.engine.accept();
        self.step(Input::Accepted(link));
        self.hear(link, &Frame::Hello(hello));
        link
    }

    pub(super) fn ask(&mut self, link: LinkId, request: ClientRequest) {
        self.hear(link, &Frame::Request(request));
        self.work();
        self.play_peer();
    }

    pub(super) fn open(&mut self, client: u128) -> Result<User, String> {
        let link = self.greeted_by(Hello { role: Role::Client, server: None, ..peer(9) });
        let open = OpenSession { client: ClientId(client), attempt: 1, key: KEY, timeout_ms: TIMEOUT_MS };
        self.ask(link, ClientRequest::Open(open));
        let opened = self.sent.iter().find_map(|(to, frame)| match frame {
            Frame::Response(ClientResponse::Opened(opened)) if *to == link => Some(opened.session),
            _ => None,
        });
        opened.map(|session| User { session, link }).ok_or_else(|| "no session was opened".into())
    }

    pub(super) fn attach(&mut self, user: &mut User) {
        user.link = self.greeted_by(Hello { role: Role::Client, server: None, ..peer(9) });
        let (session, last_event) = (user.session, Index::ZERO);
        self.ask(
            user.link,
            ClientRequest::Attach(Attach { session, key: KEY, last_event, read_only: false }),
        );
    }

    pub(super) fn command_unwritten(&mut self, user: User, sequence: u64, body: &'static str) {
        let header = CommandHeader {
            session: user.session,
            sequence: Sequence(sequence),
            lowest_unanswered: Sequence(1),
            acknowledged_event: Index::ZERO,
        };
        let entry = SessionEntry::Command(header, Bytes::from_static(body.as_bytes()));
        self.hear(user.link, &Frame::Request(ClientRequest::Command(entry.encode())));
    }

    pub(super) fn command(&mut self, user: User, sequence: u64, body: &'static str) {
        self.command_unwritten(user, sequence, body);
        self.work();
    }

    pub(super) fn keep_alive(&mut self, user: User) {
        let (acknowledged_event, lowest_unanswered) = (Index::ZERO, Sequence(1));
        let alive = KeepAlive { contact: 1, acknowledged_event, lowest_unanswered };
        self.ask(user.link, ClientRequest::KeepAlive(alive));
    }

    pub(super) fn told(&self, link: LinkId, what: impl Fn(&ClientResponse) -> bool) -> bool {
        self.sent
            .iter()
            .any(|(to, frame)| *to == link && matches!(frame, Frame::Response(told) if what(told)))
    }

    pub(super) fn last_index(&self) -> Index {
        self.engine.status(self.now).last_index
    }

    pub(super) fn lines(&self) -> String {
        let (index, time) = self.engine.table().applied();
        let levels = self.engine.table().levels();
        let context = QueryContext { index, time, session: SessionId(0), levels };
        String::from_utf8_lossy(&self.engine.machine().query(&context, &Bytes::new())).into_owned()
    }
}

fn start(members: u64, disk: Recovered) -> Engine {
    let list = (1..=members).map(address).collect();
    let mut options = Options::new(address(1), list);
    options.boot_nonce = BootNonce(1);
    options.fresh_cluster = CLUSTER;
    options.fresh_incarnation = incarnation(1);
    let machine = Box::new(Journal::default());
    Engine::new(options, disk, machine, LocalTime::from_millis(1)).expect("there is no snapshot")
}

/// Remembers every command. `watch` makes the session a watcher, `tell` tells all of them atomically.
#[derive(Default)]
struct Journal {
    lines: Vec<String>,
    watchers: Vec<SessionId>,
}

impl StateMachine for Journal {
    fn apply(&mut self, cx: &mut Context<'_>, command: &Bytes) -> Bytes {
        match &command[..] {
            b"watch" => self.watchers.extend(cx.session()),
            b"tell" => {
                cx.hold_reply();
                cx.publish(
                    self.watchers.iter().map(|session| (*session, InstanceId(1))).collect(),
                    command.clone(),
                );
            }
            _ => {}
        }
        self.lines.push(String::from_utf8_lossy(command).into_owned());
        Bytes::new()
    }

    fn query(&self, _cx: &QueryContext<'_>, _query: &Bytes) -> Bytes {
        Bytes::from(self.lines.join(","))
    }

    fn session_ended(&mut self, _cx: &mut Context<'_>, _session: SessionId) -> Slice {
        Slice::Done
    }

    fn timer_fired(&mut self, _cx: &mut Context<'_>, _timer: TimerId) {}

    fn kinds(&self) -> Vec<KindLevel> {
        Vec::new()
    }

    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        Box::new(Bytes::new())
    }

    fn restore(&mut self, _snapshot: Bytes) -> Result<(), RestoreError> {
        Err(RestoreError("these histories take no snapshots".into()))
    }
}
