//! One resource as the registry sees it: its type erased.

use std::io::{self, Write};
use std::sync::Arc;

use atomix_protocol::{SessionId, codec};
use atomix_session::{RestoreError, Slice, TimerId};
use bytes::Bytes;

use crate::context::{CommandContext, Context, QueryContext};
use crate::operation::{Operations, Reply};
use crate::resource::{BadConfiguration, Deletion, Resource};
use crate::snapshot;

/// A resource of any kind. Shared with the snapshots that still have it to write.
pub(crate) type AnyMachine = Arc<dyn Machine>;

/// What a resource of any kind does.
pub(crate) trait Machine: Send + Sync {
    fn command(&mut self, cx: &mut CommandContext<'_>, number: u16, body: &Bytes) -> Reply;
    fn query(&self, cx: &QueryContext, number: u16, body: &Bytes) -> Reply;
    fn end_session(&mut self, cx: &mut Context<'_>, session: SessionId) -> Slice;
    fn fire_timer(&mut self, cx: &mut Context<'_>, timer: TimerId);
    fn delete(&mut self, cx: &mut Context<'_>, force: bool) -> Deletion;
    fn version(&self) -> u16;
    fn write(&self, out: &mut dyn Write) -> io::Result<()>;
    fn copied(&self) -> AnyMachine;
}

impl<R: Resource> Machine for R {
    fn command(&mut self, cx: &mut CommandContext<'_>, number: u16, body: &Bytes) -> Reply {
        R::Operations::apply(self, cx, number, body)
    }

    fn query(&self, cx: &QueryContext, number: u16, body: &Bytes) -> Reply {
        R::Operations::answer(self, cx, number, body)
    }

    fn end_session(&mut self, cx: &mut Context<'_>, session: SessionId) -> Slice {
        self.session_ended(cx, session)
    }

    fn fire_timer(&mut self, cx: &mut Context<'_>, timer: TimerId) {
        self.timer_fired(cx, timer);
    }

    fn delete(&mut self, cx: &mut Context<'_>, force: bool) -> Deletion {
        self.deletion_asked(cx, force)
    }

    fn version(&self) -> u16 {
        R::VERSION
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        snapshot::write_value(self, out)
    }

    fn copied(&self) -> AnyMachine {
        Arc::new(self.clone())
    }
}

/// The machine to change. A snapshot that is being written still holds the old one: then a copy takes its place.
pub(crate) fn unshared(machine: &mut AnyMachine) -> &mut dyn Machine {
    if Arc::get_mut(machine).is_none() {
        *machine = machine.copied();
    }
    Arc::get_mut(machine).expect("a copy that was just made is not shared")
}

/// How a kind's resources come into being.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) level: u16,
    pub(crate) create: fn(&Bytes) -> Result<AnyMachine, BadConfiguration>,
    pub(crate) restore: fn(u16, &Bytes) -> Result<AnyMachine, RestoreError>,
}

impl Kind {
    pub(crate) fn of<R: Resource>() -> Self {
        // A kind without operations has a level too: level zero is that of a kind which must not be created (M3).
        let level = R::Operations::LEVEL.max(1);
        Kind { name: R::KIND, level, create: create::<R>, restore: restore::<R> }
    }
}

fn create<R: Resource>(configuration: &Bytes) -> Result<AnyMachine, BadConfiguration> {
    let configuration = if configuration.is_empty() {
        R::Configuration::default()
    } else {
        codec::from_bytes(configuration).map_err(|_| BadConfiguration)?
    };
    Ok(Arc::new(R::create(configuration)?))
}

fn restore<R: Resource>(version: u16, state: &Bytes) -> Result<AnyMachine, RestoreError> {
    Ok(Arc::new(R::restore(version, state)?))
}
