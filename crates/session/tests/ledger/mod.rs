//! A state machine that remembers everything that was done to it, and publishes what it is told to.

use std::collections::{BTreeMap, BTreeSet};

use atomix_protocol::{ClusterTime, InstanceId, SessionId, codec};
use atomix_session::{
    Context, KindLevel, QueryContext, RestoreError, Slice, SnapshotSource, StateMachine, TimerId,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What was done, in order.
///
/// Commands that mean something: `own…` adds to what the session owns; `timer N` sets a timer to N; `watch` makes the session a
/// watcher; `tell TEXT` publishes the text to all watchers; `send A,B TEXT` publishes it to sessions A and B, as do more of
/// these behind semicolons; `fill N A,B` does with N bytes. A `!` in front holds the reply (E6). Watchers are also told `fired`
/// by timers and `ended N` when session N has ended. Each event is for the instance with the number of its session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) applied: Vec<Applied>,
    /// Index, time and timer of each firing.
    pub(crate) fired: Vec<(u64, ClusterTime, TimerId)>,
    /// Things that sessions own: each `own` adds one, a slice of clean-up removes two.
    pub(crate) owned: BTreeMap<SessionId, u64>,
    pub(crate) ended: BTreeSet<SessionId>,
    pub(crate) watchers: BTreeSet<SessionId>,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub(crate) index: u64,
    pub(crate) session: SessionId,
    pub(crate) sequence: u64,
    pub(crate) command: Bytes,
}

/// The reply to a command that was applied at `index`.
pub(crate) fn reply(index: u64, command: &[u8]) -> Bytes {
    Bytes::from([format!("{index}:").as_bytes(), command].concat())
}

impl Ledger {
    fn tell(&self, cx: &mut Context<'_>, text: String) {
        cx.publish(self.watchers.iter().map(|session| to(*session)).collect(), text.into());
    }

    fn publish(&self, cx: &mut Context<'_>, order: &str) {
        let (what, rest) = order.split_once(' ').unwrap_or((order, ""));
        match (what, rest.split_once(' ')) {
            ("tell", _) => self.tell(cx, rest.into()),
            ("send", Some((sessions, text))) => cx.publish(named(sessions), text.to_owned().into()),
            ("fill", Some((count, sessions))) => {
                cx.publish(named(sessions), vec![b'x'; count.parse().expect("a number")].into());
            }
            _ => {}
        }
    }
}

fn to(session: SessionId) -> (SessionId, InstanceId) {
    (session, InstanceId(session.0))
}

fn named(sessions: &str) -> Vec<(SessionId, InstanceId)> {
    sessions.split(',').map(|session| to(SessionId(session.parse().expect("a number")))).collect()
}

impl StateMachine for Ledger {
    fn apply(&mut self, cx: &mut Context<'_>, command: &Bytes) -> Bytes {
        let session = cx.session().expect("a command has a session");
        assert!(!self.ended.contains(&session), "S9: a command of session {session} after its end");
        if command.starts_with(b"own") {
            *self.owned.entry(session).or_default() += 1;
        }
        if let Some(deadline) = command.strip_prefix(b"timer ") {
            let deadline = String::from_utf8_lossy(deadline).parse().expect("a deadline");
            cx.timers().set(ClusterTime(deadline));
        }
        if &command[..] == b"watch" {
            self.watchers.insert(session);
        }
        let text = String::from_utf8_lossy(command);
        let orders = text.strip_prefix('!').inspect(|_| cx.hold_reply()).unwrap_or(&text);
        for order in orders.split(';') {
            self.publish(cx, order);
        }
        let index = cx.index().0;
        self.applied.push(Applied { index, session, sequence: cx.sequence().0, command: command.clone() });
        reply(index, command)
    }

    fn query(&self, cx: &QueryContext<'_>, query: &Bytes) -> Bytes {
        reply(cx.index.0, query)
    }

    fn session_ended(&mut self, cx: &mut Context<'_>, session: SessionId) -> Slice {
        if self.ended.insert(session) {
            self.watchers.remove(&session);
            self.tell(cx, format!("ended {session}"));
        }
        let owned = self.owned.remove(&session).unwrap_or(0);
        if owned <= 2 {
            return Slice::Done;
        }
        self.owned.insert(session, owned - 2);
        Slice::More
    }

    fn timer_fired(&mut self, cx: &mut Context<'_>, timer: TimerId) {
        assert_eq!(cx.session(), None);
        self.tell(cx, "fired".into());
        self.fired.push((cx.index().0, cx.time(), timer));
    }

    fn kinds(&self) -> Vec<KindLevel> {
        Vec::new()
    }

    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        Box::new(codec::to_bytes(self))
    }

    fn restore(&mut self, snapshot: Bytes) -> Result<(), RestoreError> {
        *self = codec::from_bytes(&snapshot).map_err(|error| RestoreError(error.to_string()))?;
        Ok(())
    }
}
