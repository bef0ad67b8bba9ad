//! Writes that only the present holder of a lock can make.
//!
//! A holder that was paused may wake up after its lock has passed to another, and not know it yet. What it then writes must not be
//! taken. A guard of a lock names the lock and its token ([`Fencing`]); a resource that is guarded keeps the greatest token that it
//! has seen of each lock ([`Fences`]) and refuses a write with a smaller one, in the same entry of the log ([`Fenced`]).
//!
//! ```
//! use atomix_resource::{Operation, operations};
//! use serde::{Deserialize, Serialize};
//!
//! /// Adds; the reply is the sum.
//! #[derive(Debug, Serialize, Deserialize)]
//! pub struct Add(pub u64);
//!
//! operations! {
//!     /// What can be asked of a counter.
//!     pub struct CounterOperations;
//!     commands { 1: Add -> u64 }
//!     queries {}
//!     fenced { 64: Add }
//! }
//! // The state then has an `atomix_resource::fencing::Fences` and implements `Guarded`; `Fenced<Add>` comes from `Add`.
//! ```

use atomix_protocol::{Index, ResourceId};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::context::{CommandContext, Context};
use crate::operation::{Apply, Operation};

/// Most locks whose tokens one resource keeps.
const MOST_LOCKS: usize = 1_024;

/// What proves that its bearer holds a lock, unless somebody with a greater token of the same lock has been here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencingToken {
    /// The lock.
    pub lock: ResourceId,
    /// Index of the entry that granted it: greater than that of every earlier holder (L1).
    pub token: Index,
}

/// A guard, or whatever else was granted with a token.
pub trait Fencing {
    /// The lock and the token.
    fn fencing_token(&self) -> FencingToken;
}

/// A token that was passed on speaks for itself.
impl Fencing for FencingToken {
    fn fencing_token(&self) -> FencingToken {
        *self
    }
}

/// An operation that has a fenced form. Implemented by [`operations!`](crate::operations).
pub trait Fenceable: Operation {
    /// The number of the fenced form.
    const FENCED_NUMBER: u16;
}

/// An operation that is carried out only if the token is not out of date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced<O> {
    /// What proves the right to it.
    pub token: FencingToken,
    /// The operation.
    pub operation: O,
}

impl<O: Fenceable> Operation for Fenced<O> {
    const NUMBER: u16 = O::FENCED_NUMBER;
    type Reply = Result<O::Reply, FenceRefusal>;
}

/// A state that can be guarded by locks.
pub trait Guarded {
    /// The tokens that it has seen.
    fn fences(&mut self) -> &mut Fences;
}

impl<S: Guarded + Apply<O>, O: Fenceable> Apply<Fenced<O>> for S {
    fn apply(&mut self, cx: &mut CommandContext<'_>, fenced: Fenced<O>) -> Result<O::Reply, FenceRefusal> {
        self.fences().pass(cx, fenced.token)?;
        Ok(self.apply(cx, fenced.operation))
    }
}

/// Why a fenced operation was refused. It changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FenceRefusal {
    /// A later holder of the lock has been here.
    #[error("token {token} is out of date: a holder with token {greatest} has been here")]
    OutOfDate {
        /// The token.
        token: Index,
        /// The greatest seen.
        greatest: Index,
    },
    /// The lock was deleted: nobody holds it.
    #[error("the lock was deleted")]
    NoSuchLock,
    /// No lock has granted this yet.
    #[error("not a token")]
    NotAToken,
    /// Too many locks guard this resource.
    #[error("too many locks guard this resource")]
    TooManyLocks,
}

/// The greatest token seen of each lock. Part of the state of what is guarded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fences {
    /// Invariant: grows only; a lock that was deleted is forgotten, and all its tokens refused.
    #[serde(with = "crate::ordered")]
    greatest: OrdMap<ResourceId, Index>,
}

impl Fences {
    /// Lets a token pass, and from then on none that is smaller.
    ///
    /// # Errors
    /// If it is out of date, or was never granted.
    pub fn pass(&mut self, cx: &Context<'_>, token: FencingToken) -> Result<(), FenceRefusal> {
        let FencingToken { lock, token } = token;
        if !cx.exists(lock) {
            self.greatest.remove(&lock);
            return Err(FenceRefusal::NoSuchLock);
        }
        if token >= cx.index() || token.0 <= lock.0 {
            return Err(FenceRefusal::NotAToken);
        }
        match self.greatest.get(&lock).copied() {
            Some(greatest) if token < greatest => {
                return Err(FenceRefusal::OutOfDate { token, greatest });
            }
            Some(_) => {}
            None => self.make_room(cx)?,
        }
        self.greatest.insert(lock, token);
        Ok(())
    }

    fn make_room(&mut self, cx: &Context<'_>) -> Result<(), FenceRefusal> {
        if self.greatest.len() >= MOST_LOCKS {
            self.greatest =
                self.greatest.iter().filter(|(lock, _)| cx.exists(**lock)).map(|(l, t)| (*l, *t)).collect();
        }
        if self.greatest.len() < MOST_LOCKS { Ok(()) } else { Err(FenceRefusal::TooManyLocks) }
    }
}
