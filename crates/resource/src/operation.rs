//! Operations: what can be asked of a resource, each a type of its own that names its own reply.
//!
//! A resource's operations are listed once, by [`operations!`](crate::operations). From the list come the numbers on the wire,
//! the resource's level (M3), and the way from bytes to typed calls and back, which is total (M2): a body that does not decode, a
//! number that is not in the list, a query's number on a command, all end in a refusal, the same on every replica, before the
//! state was touched. The compiler holds the state to the list: what is listed and not implemented does not compile.

use std::fmt;

use atomix_protocol::codec;
use atomix_protocol::envelope::OperationStatus;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::{CommandContext, QueryContext};

/// A command or a query. Implemented by [`operations!`](crate::operations).
///
/// Its bytes on the wire are its postcard form. A released operation never changes its number, its fields or its reply; what is
/// wanted anew gets a new number.
pub trait Operation: Serialize + DeserializeOwned {
    /// Its number, unique among the commands and queries of its resource.
    const NUMBER: u16;
    /// What it answers. A resource that can refuse says so here, with a type of its own (S5).
    type Reply: Serialize + DeserializeOwned;
}

/// A state that takes a command. Deterministic: nothing but the state, the command and the context decides.
pub trait Apply<O: Operation> {
    /// Takes the command.
    fn apply(&mut self, cx: &mut CommandContext<'_>, command: O) -> O::Reply;
}

/// A state that answers a query.
pub trait Answer<O: Operation> {
    /// Answers from the state as it is.
    fn answer(&self, cx: &QueryContext, query: O) -> O::Reply;
}

/// All operations of a resource with the state `S`: from number and body to reply. Implemented by
/// [`operations!`](crate::operations).
pub trait Operations<S> {
    /// The highest number (M3).
    const LEVEL: u16;

    /// Decodes a command, has the state take it, encodes the reply.
    fn apply(state: &mut S, cx: &mut CommandContext<'_>, number: u16, body: &Bytes) -> Reply;

    /// Decodes a query, has the state answer it, encodes the answer.
    fn answer(state: &S, cx: &QueryContext, number: u16, body: &Bytes) -> Reply;
}

/// An encoded reply: an [`OperationStatus`], and if it is `Ok` the operation's own reply.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply(Bytes);

impl Reply {
    /// The operation was carried out.
    ///
    /// # Panics
    /// If the reply's own `Serialize` refuses: a mistake of the resource's author, and the command has already been applied.
    #[must_use]
    pub fn ok<T: Serialize + ?Sized>(reply: &T) -> Self {
        Reply(codec::to_bytes(&(OperationStatus::Ok, reply)))
    }

    /// The operation was refused, and the state not touched.
    #[must_use]
    pub fn refused(status: OperationStatus) -> Self {
        Reply(codec::to_bytes(&status))
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({} bytes)", self.0.len())
    }
}

/// Decodes a command and has the state take it. Used by [`operations!`](crate::operations).
#[doc(hidden)]
pub fn apply<S: Apply<O>, O: Operation>(state: &mut S, cx: &mut CommandContext<'_>, body: &Bytes) -> Reply {
    match codec::from_bytes(body) {
        Ok(command) => Reply::ok(&state.apply(cx, command)),
        Err(_) => Reply::refused(OperationStatus::Malformed),
    }
}

/// Decodes a query and has the state answer it. Used by [`operations!`](crate::operations).
#[doc(hidden)]
pub fn answer<S: Answer<O>, O: Operation>(state: &S, cx: &QueryContext, body: &Bytes) -> Reply {
    match codec::from_bytes(body) {
        Ok(query) => Reply::ok(&state.answer(cx, query)),
        Err(_) => Reply::refused(OperationStatus::Malformed),
    }
}

/// The highest of a list of operation numbers. Evaluated while compiling, where a number used twice is an error.
#[doc(hidden)]
#[must_use]
pub const fn level(numbers: &[u16]) -> u16 {
    let mut highest = 0;
    let mut i = 0;
    while i < numbers.len() {
        assert!(numbers[i] != 0, "operation numbers begin at 1");
        let mut j = 0;
        while j < i {
            assert!(numbers[i] != numbers[j], "two operations have the same number");
            j += 1;
        }
        if numbers[i] > highest {
            highest = numbers[i];
        }
        i += 1;
    }
    highest
}

/// Lists the operations of a resource: number, type, reply.
///
/// Numbers are part of the wire format: they are only ever added, never changed, never reused. Leave room between commands and
/// queries. The types are structs of the caller's, in scope by a single name, that derive `Serialize` and `Deserialize`. A third
/// list, `fenced`, gives commands a second form that only the present holder of a lock can use (see [`fencing`](crate::fencing)).
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// /// Adds; the reply is the sum.
/// #[derive(Debug, Serialize, Deserialize)]
/// pub struct Add(pub u64);
/// /// The sum.
/// #[derive(Debug, Serialize, Deserialize)]
/// pub struct Sum;
///
/// atomix_resource::operations! {
///     /// What can be asked of a counter.
///     pub struct CounterOperations;
///     commands { 1: Add -> u64 }
///     queries { 32: Sum -> u64 }
/// }
/// ```
///
/// A number that is used twice does not compile:
///
/// ```compile_fail
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Serialize, Deserialize)]
/// # pub struct Add(pub u64);
/// # #[derive(Debug, Serialize, Deserialize)]
/// # pub struct Sum;
/// atomix_resource::operations! {
///     /// What can be asked of a counter.
///     pub struct CounterOperations;
///     commands { 1: Add -> u64 }
///     queries { 1: Sum -> u64 }
/// }
/// ```
#[macro_export]
macro_rules! operations {
    (
        $(#[$meta:meta])*
        $visibility:vis struct $name:ident;
        commands { $($command_number:literal : $command:ident -> $command_reply:ty),* $(,)? }
        queries { $($query_number:literal : $query:ident -> $query_reply:ty),* $(,)? }
        $(fenced { $($fenced_number:literal : $fenced:ident),* $(,)? })?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        $visibility struct $name;

        const _: u16 =
            $crate::operation::level(&[$($command_number,)* $($query_number,)* $($($fenced_number),*)?]);

        $($(
            impl $crate::fencing::Fenceable for $fenced {
                const FENCED_NUMBER: u16 = $fenced_number;
            }
        )*)?

        $(
            impl $crate::Operation for $command {
                const NUMBER: u16 = $command_number;
                type Reply = $command_reply;
            }
        )*
        $(
            impl $crate::Operation for $query {
                const NUMBER: u16 = $query_number;
                type Reply = $query_reply;
            }
        )*

        impl<S> $crate::Operations<S> for $name
        where
            $(S: $crate::Apply<$command>,)*
            $(S: $crate::Answer<$query>,)*
            $($(S: $crate::Apply<$crate::fencing::Fenced<$fenced>>,)*)?
        {
            const LEVEL: u16 =
                $crate::operation::level(&[$($command_number,)* $($query_number,)* $($($fenced_number),*)?]);

            #[allow(unused_variables, reason = "a resource may have no commands")]
            fn apply(
                state: &mut S,
                cx: &mut $crate::CommandContext<'_>,
                number: u16,
                body: &$crate::Bytes,
            ) -> $crate::Reply {
                match number {
                    $($command_number => $crate::operation::apply::<S, $command>(state, cx, body),)*
                    $($($fenced_number => {
                        $crate::operation::apply::<S, $crate::fencing::Fenced<$fenced>>(state, cx, body)
                    })*)?
                    _ => $crate::Reply::refused($crate::OperationStatus::UnknownOperation),
                }
            }

            #[allow(unused_variables, reason = "a resource may have no queries")]
            fn answer(
                state: &S,
                cx: &$crate::QueryContext,
                number: u16,
                body: &$crate::Bytes,
            ) -> $crate::Reply {
                match number {
                    $($query_number => $crate::operation::answer::<S, $query>(state, cx, body),)*
                    _ => $crate::Reply::refused($crate::OperationStatus::UnknownOperation),
                }
            }
        }
    };
}
