//! One link to a server, from dialling to the end.

use std::time::Duration;

use atomix_protocol::{Address, ClusterId, LinkId, LocalTime};

/// How far a link has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The driver dials.
    Dialing,
    /// Our hello is sent.
    Greeting,
    /// The session is opened or attached to.
    Binding,
    /// In use.
    Bound,
}

/// One link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) to: Address,
    pub(super) stage: Stage,
    /// The cluster that the server said it belongs to.
    pub(super) cluster: Option<ClusterId>,
    /// Until bound: when to give up this stage.
    pub(super) give_up: LocalTime,
    /// Since when something asked for was not followed by any frame.
    pub(super) silent_since: Option<LocalTime>,
    /// A contact was sent since: a server that lives answers it, also while it has to hold back what was asked for (E6).
    probed: bool,
    /// A contact was confirmed on it: its server leads, and a quorum follows.
    pub(super) confirmed: bool,
}

impl Link {
    pub(super) fn new(id: LinkId, to: Address, give_up: LocalTime) -> Self {
        Link {
            id,
            to,
            stage: Stage::Dialing,
            cluster: None,
            give_up,
            silent_since: None,
            probed: false,
            confirmed: false,
        }
    }

    pub(super) fn is_bound(&self) -> bool {
        self.stage == Stage::Bound
    }

    /// Something that wants an answer was sent.
    pub(super) fn asked(&mut self, now: LocalTime) {
        self.silent_since.get_or_insert(now);
    }

    /// A contact was sent.
    pub(super) fn probed(&mut self) {
        self.probed = true;
    }

    /// A frame arrived; `awaits` more.
    pub(super) fn heard(&mut self, now: LocalTime, awaits: bool) {
        self.silent_since = awaits.then_some(now);
        self.probed = false;
    }

    /// When to send a contact, so that its answer arrives before the link is given up.
    pub(super) fn probe_at(&self, patience: Duration) -> Option<LocalTime> {
        self.silent_since.filter(|_| self.is_bound() && !self.probed).map(|since| since + patience / 2)
    }

    /// When the link is given up if nothing more arrives.
    pub(super) fn deadline(&self, patience: Duration) -> Option<LocalTime> {
        match self.stage {
            Stage::Bound => self.silent_since.map(|since| since + patience),
            _ => Some(self.give_up),
        }
    }
}
