//! A state machine that remembers every command it was given, in order.

use atomix_protocol::{ClusterTime, Index, InstanceId, SessionId};
use atomix_session::{
    Context, KindLevel, Levels, QueryContext, RestoreError, Slice, SnapshotSource, StateMachine, TimerId,
};
use bytes::Bytes;

/// Replies to each command with its place. `timer N` also sets a timer N milliseconds ahead, which adds a line of its own. `watch`
/// makes the session a watcher: `tell TEXT` publishes the text to all of them, `fill N` a body of N bytes. A `!` in front holds the
/// reply (E6).
#[derive(Default)]
pub(crate) struct Journal {
    lines: Vec<String>,
    /// Sessions whose clean-up is half done.
    leaving: Vec<SessionId>,
    watchers: Vec<SessionId>,
    /// What it claims to know (M3).
    kinds: Vec<KindLevel>,
}

impl Journal {
    /// One of a binary that knows these kinds through these operations.
    pub(crate) fn of_kinds(kinds: &[(&str, u16)]) -> Self {
        let known = |(kind, level): &(&str, u16)| KindLevel { kind: (*kind).into(), level: *level };
        Journal { kinds: kinds.iter().map(known).collect(), ..Journal::default() }
    }

    /// All lines, as a query sees them.
    pub(crate) fn lines_of(machine: &dyn StateMachine) -> String {
        let (index, time, levels) = (Index::ZERO, ClusterTime::default(), &Levels::default());
        let context = QueryContext { index, time, session: SessionId(0), levels };
        String::from_utf8_lossy(&machine.query(&context, &Bytes::new())).into_owned()
    }
}

impl StateMachine for Journal {
    fn apply(&mut self, cx: &mut Context<'_>, command: &Bytes) -> Bytes {
        let line = String::from_utf8_lossy(command).into_owned();
        if let Some(millis) = line.strip_prefix("timer ").and_then(|millis| millis.parse().ok()) {
            let deadline = cx.time().plus(std::time::Duration::from_millis(millis));
            cx.timers().set(deadline);
        }
        let order = line.strip_prefix('!').inspect(|_| cx.hold_reply()).unwrap_or(&line);
        let watchers = || self.watchers.iter().map(|session| (*session, InstanceId(session.0))).collect();
        match order.split_once(' ') {
            Some(("tell", text)) => cx.publish(watchers(), text.to_owned().into()),
            Some(("fill", count)) => {
                cx.publish(watchers(), vec![b'x'; count.parse().expect("a number")].into())
            }
            _ if order == "watch" => self.watchers.extend(cx.session()),
            _ => {}
        }
        self.lines.push(line);
        Bytes::from(self.lines.len().to_string())
    }

    fn query(&self, _cx: &QueryContext<'_>, _query: &Bytes) -> Bytes {
        Bytes::from(self.lines.join(","))
    }

    fn session_ended(&mut self, _cx: &mut Context<'_>, session: SessionId) -> Slice {
        if let Some(place) = self.leaving.iter().position(|leaving| *leaving == session) {
            self.leaving.remove(place);
            self.lines.push("left".into());
            return Slice::Done;
        }
        self.watchers.retain(|watcher| *watcher != session);
        self.leaving.push(session);
        Slice::More
    }

    fn timer_fired(&mut self, _cx: &mut Context<'_>, _timer: TimerId) {
        self.lines.push("fired".into());
    }

    fn kinds(&self) -> Vec<KindLevel> {
        self.kinds.clone()
    }

    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        let ids = |sessions: &[SessionId]| -> String {
            sessions.iter().map(|session| session.0.to_string()).collect::<Vec<_>>().join(",")
        };
        let (leaving, watchers) = (ids(&self.leaving), ids(&self.watchers));
        Box::new(Bytes::from(format!("{leaving}\n{watchers}\n{}", self.lines.join(","))))
    }

    fn restore(&mut self, snapshot: Bytes) -> Result<(), RestoreError> {
        let text = String::from_utf8_lossy(&snapshot);
        let [leaving, watchers, lines] = text.splitn(3, '\n').collect::<Vec<_>>()[..] else {
            return Err(RestoreError("no journal".into()));
        };
        let parts = |text: &str| text.split(',').filter(|part| !part.is_empty()).map(String::from).collect();
        self.lines = parts(lines);
        let ids = |text| -> Vec<SessionId> {
            let parts: Vec<String> = parts(text);
            parts.iter().filter_map(|id| id.parse().ok().map(SessionId)).collect()
        };
        (self.leaving, self.watchers) = (ids(leaving), ids(watchers));
        Ok(())
    }

    /// Only where there is an even number of lines, so that both ways of restoring are met.
    fn fresh(&self) -> Option<Box<dyn StateMachine>> {
        let fresh = Journal { kinds: self.kinds.clone(), ..Journal::default() };
        self.lines.len().is_multiple_of(2).then(|| Box::new(fresh) as Box<dyn StateMachine>)
    }
}
