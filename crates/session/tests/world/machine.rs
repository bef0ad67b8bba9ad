//! The ledger, reached through instances.

use atomix_protocol::envelope::Envelope;
use atomix_protocol::{InstanceId, SessionId};
use atomix_session::{
    Context, KindLevel, QueryContext, RestoreError, Slice, SnapshotSource, StateMachine, TimerId,
};
use bytes::Bytes;

use crate::ledger::Ledger;

/// A ledger whose commands may come in the envelope of an instance (M1).
#[derive(Clone, Default)]
pub(crate) struct Machine(pub(crate) Ledger);

/// A command for the ledger, in the envelope of an instance; zero for none.
pub(crate) fn command_of(instance: u64, body: &Bytes) -> Bytes {
    if instance == 0 {
        return body.clone();
    }
    let operation = atomix_protocol::envelope::Operation { instance: InstanceId(instance), number: 1 };
    Envelope::Operation(operation, body.clone()).encode()
}

impl StateMachine for Machine {
    fn apply(&mut self, cx: &mut Context<'_>, command: &Bytes) -> Bytes {
        match Envelope::decode(command) {
            Ok(Envelope::Operation(_, body)) => self.0.apply(cx, &body),
            _ => self.0.apply(cx, command),
        }
    }

    fn query(&self, cx: &QueryContext<'_>, query: &Bytes) -> Bytes {
        self.0.query(cx, query)
    }

    fn session_ended(&mut self, cx: &mut Context<'_>, session: SessionId) -> Slice {
        self.0.session_ended(cx, session)
    }

    fn timer_fired(&mut self, cx: &mut Context<'_>, timer: TimerId) {
        self.0.timer_fired(cx, timer);
    }

    fn kinds(&self) -> Vec<KindLevel> {
        self.0.kinds()
    }

    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        self.0.snapshot()
    }

    fn restore(&mut self, snapshot: Bytes) -> Result<(), RestoreError> {
        self.0.restore(snapshot)
    }
}
