//! One server with its disk and clients whose frames the test writes itself. Its next process is another leader: of a later term, with
//! nothing but the log.

use std::time::Duration;

use atomix_engine::{Input, Options, Output};
use atomix_protocol::client::{Attach, ClientRequest, ClientResponse, KeepAlive, OpenSession, ReplyOutcome};
use atomix_protocol::session::{CommandHeader, SessionEntry};
use atomix_protocol::{ClientId, Index, LinkId, Sequence, SessionId};
use bytes::Bytes;

use crate::disk::Disk;
use crate::solo::{KEY, Solo, address, client, configuration, incarnation};

/// τ of every session.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(1_000);
const HEARTBEAT: Duration = Duration::from_millis(50);

pub(crate) struct Lone {
    pub(crate) solo: Solo,
    pub(crate) disk: Disk,
    change: fn(&mut Options),
    clients: u64,
}

/// A session, and the last link that it was given.
#[derive(Clone, Copy)]
pub(crate) struct User {
    pub(crate) session: SessionId,
    pub(crate) link: LinkId,
}

impl Lone {
    pub(crate) fn new(change: fn(&mut Options)) -> Self {
        let identity = Some(atomix_protocol::Identity { incarnation: incarnation(1) });
        let mut disk = Disk::default();
        (disk.identity, disk.configuration) = (identity, Some(configuration(1)));
        let solo = Solo::with(disk.recover(), vec![address(1)], change);
        let mut lone = Lone { solo, disk, change, clients: 0 };
        lone.lead();
        lone
    }

    fn lead(&mut self) {
        self.solo.wait(Duration::from_secs(2));
        self.work();
        assert_eq!(self.solo.engine.status(self.solo.now).role, "leader");
    }

    /// Another process, and so another leader.
    pub(crate) fn restart(&mut self) {
        self.solo = Solo::with(self.disk.recover(), vec![address(1)], self.change);
        self.lead();
    }

    /// Does what was asked of the disk, and what follows from that.
    pub(crate) fn work(&mut self) {
        let waits = |output: &Output| {
            !matches!(output, Output::Send(..) | Output::Close(_) | Output::Notice(_) | Output::Dial(..))
        };
        while let Some(place) = self.solo.outputs.iter().position(waits) {
            let output = self.solo.outputs.remove(place);
            for answer in self.disk.carry_out(output) {
                self.solo.step(answer);
            }
        }
    }

    /// Lets time pass, with a keep-alive of each of these users and every heartbeat.
    pub(crate) fn pass(&mut self, duration: Duration, alive: &[User]) {
        let end = self.solo.now + duration;
        while self.solo.now < end {
            for user in alive {
                let contact = self.solo.now.0 / 1_000;
                self.keep_alive(*user, contact, 0);
            }
            self.solo.wait(HEARTBEAT);
            self.work();
        }
    }

    pub(crate) fn ask(&mut self, link: LinkId, request: ClientRequest) {
        self.solo.ask(link, request);
        self.work();
    }

    pub(crate) fn open(&mut self) -> User {
        self.clients += 1;
        let link = self.solo.greeted_by(client(None));
        let timeout_ms = u64::try_from(TIMEOUT.as_millis()).expect("short");
        let client = ClientId(self.clients.into());
        self.ask(link, ClientRequest::Open(OpenSession { client, attempt: 1, key: KEY, timeout_ms }));
        User { session: self.solo.opened(link).expect("a session"), link }
    }

    /// One that is told everything.
    pub(crate) fn watcher(&mut self) -> User {
        let user = self.open();
        self.command(user, 1, "watch");
        user
    }

    /// Gives the session another link, and says which event the client has.
    pub(crate) fn attach(&mut self, user: &mut User, last_event: u64) {
        user.link = self.solo.greeted_by(client(None));
        let (session, last_event) = (user.session, Index(last_event));
        self.ask(
            user.link,
            ClientRequest::Attach(Attach { session, key: KEY, last_event, read_only: false }),
        );
    }

    pub(crate) fn hang_up(&mut self, user: User) {
        self.solo.step(Input::Closed(user.link));
    }

    pub(crate) fn command(&mut self, user: User, sequence: u64, body: &str) -> u64 {
        self.command_having(user, sequence, 0, body)
    }

    /// A command that says which event the client has. Returns the last index.
    pub(crate) fn command_having(&mut self, user: User, sequence: u64, event: u64, body: &str) -> u64 {
        let header = CommandHeader {
            session: user.session,
            sequence: Sequence(sequence),
            lowest_unanswered: Sequence(sequence.saturating_sub(100)),
            acknowledged_event: Index(event),
        };
        let entry = SessionEntry::Command(header, Bytes::copy_from_slice(body.as_bytes()));
        self.ask(user.link, ClientRequest::Command(entry.encode()));
        self.last_index()
    }

    pub(crate) fn acknowledge(&mut self, user: User, event: u64) {
        self.ask(user.link, ClientRequest::Acknowledge { event: Index(event) });
    }

    pub(crate) fn keep_alive(&mut self, user: User, contact: u64, event: u64) {
        let (acknowledged_event, lowest_unanswered) = (Index(event), Sequence::ZERO);
        self.ask(
            user.link,
            ClientRequest::KeepAlive(KeepAlive { contact, acknowledged_event, lowest_unanswered }),
        );
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.solo.engine.status(self.solo.now).last_index.0
    }

    pub(crate) fn marks(&self) -> atomix_engine::Marks {
        *self.solo.engine.marks()
    }

    /// Indexes of what is in a session's outbox.
    pub(crate) fn outbox(&self, user: User) -> Vec<u64> {
        let table = self.solo.engine.table();
        table.events(user.session, Index::ZERO).map(|(index, _)| index.0).collect()
    }

    pub(crate) fn is_open(&self, user: User) -> bool {
        self.solo.engine.table().session(user.session).is_some()
    }

    /// What a user was told on its link: `eI<P:a+b` for events of index I behind P (`E` if atomic), `rS@I` for the reply to sequence S
    /// with last event I, `attached`, `ended`.
    pub(crate) fn told(&self, user: User) -> String {
        let word = |response| match response {
            ClientResponse::Event(header, bytes) => {
                let mut bodies = Vec::new();
                let mut rest = bytes;
                for length in &header.bodies {
                    let body = rest.split_to(*length as usize);
                    bodies.push(match body.len() {
                        0..20 => String::from_utf8_lossy(&body).into_owned(),
                        large => format!("[{large}]"),
                    });
                }
                assert!(rest.is_empty());
                let part = |(_, body): &(_, u32)| bodies[*body as usize].clone();
                let parts: Vec<String> = header.parts.iter().map(part).collect();
                let kind = if header.atomic { 'E' } else { 'e' };
                format!("{kind}{}<{}:{}", header.index, header.previous, parts.join("+"))
            }
            ClientResponse::Reply(header, _) => {
                assert_eq!(header.outcome, ReplyOutcome::Applied);
                format!("r{}@{}", header.sequence, header.event_index)
            }
            ClientResponse::Attached(_) => "attached".into(),
            ClientResponse::Ended { .. } => "ended".into(),
            _ => String::new(),
        };
        let words: Vec<String> = self.solo.told(user.link).into_iter().map(word).collect();
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// The last contact that was confirmed on a user's link.
    pub(crate) fn confirmed(&self, user: User) -> Option<u64> {
        self.solo.told(user.link).into_iter().rev().find_map(|response| match response {
            ClientResponse::Confirmed { contact } => Some(contact),
            _ => None,
        })
    }
}
