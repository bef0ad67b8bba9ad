//! A desk with one seat: who sits there is told when to go, and everybody who watches sees who comes.

#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use atomix_resource::fencing::{Fences, Guarded};
use atomix_resource::{
    Answer, Apply, BadConfiguration, Caller, CommandContext, Context, Deletion, Handle, QueryContext,
    Registry, Resource, Session, SessionId, Sharing, Slice, TimerId, operations,
};
use atomix_testkit::loopback::ready;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Desk {
    seated: Option<Caller>,
    watching: BTreeSet<Caller>,
    fences: Fences,
    notes: u64,
    reminders: u64,
    going: bool,
}

/// Sits down; the reply is whether the seat was free.
#[derive(Serialize, Deserialize)]
pub struct Sit;
/// Gets up.
#[derive(Serialize, Deserialize)]
pub struct Leave;
/// Wants to see who comes.
#[derive(Serialize, Deserialize)]
pub struct Watch;
/// Leaves a note; the reply is how many there are.
#[derive(Serialize, Deserialize)]
pub struct Note;
/// Asks to be reminded after so many milliseconds.
#[derive(Serialize, Deserialize)]
pub struct Remind(pub u64);
/// How many notes and reminders there are.
#[derive(Serialize, Deserialize)]
pub struct Look;

operations! {
    /// What can be asked of a desk.
    pub struct DeskOperations;
    commands { 1: Sit -> bool, 2: Leave -> (), 3: Watch -> (), 4: Note -> u64, 5: Remind -> () }
    queries { 32: Look -> (u64, u64) }
    fenced { 64: Note }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DeskEvent {
    Came(SessionId),
    Went(SessionId),
    Reminded,
}

impl Resource for Desk {
    const KIND: &'static str = "test/desk";
    type Operations = DeskOperations;
    type Configuration = ();
    type Event = DeskEvent;

    fn create((): ()) -> Result<Self, BadConfiguration> {
        Ok(Desk::default())
    }

    fn session_ended(&mut self, cx: &mut Context<'_>, session: SessionId) -> Slice {
        self.watching.retain(|caller| caller.session != session);
        if self.seated.is_some_and(|caller| caller.session == session) {
            self.leave(cx);
        }
        Slice::Done
    }

    fn timer_fired(&mut self, cx: &mut Context<'_>, _: TimerId) {
        self.reminders += 1;
        cx.publish(self.watching.iter().copied(), &DeskEvent::Reminded);
    }

    fn deletion_asked(&mut self, _: &mut Context<'_>, force: bool) -> Deletion {
        match self.seated {
            None => Deletion::Now,
            Some(_) if !force => Deletion::InUse,
            Some(_) => {
                self.going = true;
                Deletion::Later
            }
        }
    }
}

impl Desk {
    fn leave(&mut self, cx: &mut Context<'_>) {
        let Some(gone) = self.seated.take() else { return };
        cx.publish(self.watching.iter().copied(), &DeskEvent::Went(gone.session));
        if self.going {
            cx.finish_deletion();
        }
    }
}

impl Guarded for Desk {
    fn fences(&mut self) -> &mut Fences {
        &mut self.fences
    }
}

impl Apply<Sit> for Desk {
    fn apply(&mut self, cx: &mut CommandContext<'_>, Sit: Sit) -> bool {
        let free = self.seated.is_none() && !self.going;
        if free {
            self.seated = Some(cx.caller());
            let came = DeskEvent::Came(cx.caller().session);
            cx.publish(self.watching.iter().copied(), &came);
        }
        free
    }
}

impl Apply<Leave> for Desk {
    fn apply(&mut self, cx: &mut CommandContext<'_>, Leave: Leave) {
        self.leave(cx);
    }
}

impl Apply<Watch> for Desk {
    fn apply(&mut self, cx: &mut CommandContext<'_>, Watch: Watch) {
        self.watching.insert(cx.caller());
    }
}

impl Apply<Note> for Desk {
    fn apply(&mut self, _: &mut CommandContext<'_>, Note: Note) -> u64 {
        self.notes += 1;
        self.notes
    }
}

impl Apply<Remind> for Desk {
    fn apply(&mut self, cx: &mut CommandContext<'_>, Remind(millis): Remind) {
        cx.set_timer_after(Duration::from_millis(millis));
    }
}

impl Answer<Look> for Desk {
    fn answer(&self, _: &QueryContext, Look: Look) -> (u64, u64) {
        (self.notes, self.reminders)
    }
}

pub fn registry() -> Registry {
    Registry::new().with::<Desk>()
}

/// The desk at a path, shared in its session.
pub fn handle(session: &Arc<dyn Session>, path: &str) -> Handle<Desk> {
    ready(Handle::open(session, path, &(), Sharing::Shared)).expect("a desk")
}
