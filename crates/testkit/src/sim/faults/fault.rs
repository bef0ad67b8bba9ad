//! Single faults, and how a line of a plan says them.

use super::super::decay::{Harm, Part, When, Which};
use super::super::loss::Loss;
use super::super::settings::Time;
use super::super::storage::Moment;
use super::super::strays::Way;
use super::Class;

/// Whom a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum Target {
    Server(usize),
    /// Whoever leads when it strikes, if anyone does; else that server.
    Leader(usize),
}

/// The shape of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum Shape {
    /// One server alone.
    Isolate,
    /// Two sides.
    Split,
    /// The victim and as many others as are no majority; then one of these alone, while the leader of the rest sleeps.
    Moving,
    /// The victim is heard by nobody.
    Mute,
    /// The victim hears nobody.
    Deaf,
    /// Some directed links.
    Directed,
    /// Some pairs.
    Pairs,
    /// Two sides and one server that sees both.
    Bridge,
    /// Each server sees only its neighbours, which with it are a majority where that can be.
    Ring,
}

/// What a line of a plan says in one word.
pub(in crate::sim) trait Word: Sized {
    fn say(&self) -> String;
    fn read(word: &str) -> Option<Self>;
}

macro_rules! plain_words {
    ($($kind:ty)*) => {
        $(impl Word for $kind {
            fn say(&self) -> String {
                self.to_string()
            }
            fn read(word: &str) -> Option<Self> {
                word.parse().ok()
            }
        })*
    };
}

// Floating-point numbers are printed so that they are read back exactly.
plain_words!(u16 u64 usize bool f64);

macro_rules! words {
    ($kind:ident: $($name:ident $word:literal),*) => {
        impl Word for $kind {
            fn say(&self) -> String {
                match self {
                    $($kind::$name => $word.into(),)*
                }
            }
            fn read(word: &str) -> Option<Self> {
                match word {
                    $($word => Some($kind::$name),)*
                    _ => None,
                }
            }
        }
    };
}

words!(Loss: Process "process", Power "power");
words!(Moment: Write "write", Roll "roll", Compact "compact", Publish "publish", Snapshot "snapshot");
words!(Part: Log "log", Snapshot "snapshot", Manifest "manifest", Mark "mark");
words!(Harm: Bit "bit", Zeros "zeros", Noise "noise");
words!(Way: Elsewhere "elsewhere", Nowhere "nowhere", InPart "in_part");
words!(When: Down "down", Running "running", Read "read");
words!(Which: First "first", Middle "middle", Last "last");
words!(Shape: Isolate "isolate", Split "split", Moving "moving", Mute "mute", Deaf "deaf", Directed "directed",
    Pairs "pairs", Bridge "bridge", Ring "ring");

impl Word for Target {
    fn say(&self) -> String {
        match self {
            Target::Server(server) => server.to_string(),
            Target::Leader(otherwise) => format!("leader/{otherwise}"),
        }
    }

    fn read(word: &str) -> Option<Self> {
        match word.strip_prefix("leader/") {
            Some(otherwise) => otherwise.parse().ok().map(Target::Leader),
            None => word.parse().ok().map(Target::Server),
        }
    }
}

impl<T: Word> Word for Option<T> {
    fn say(&self) -> String {
        self.as_ref().map_or_else(|| "none".into(), Word::say)
    }

    fn read(word: &str) -> Option<Self> {
        if word == "none" { Some(None) } else { T::read(word).map(Some) }
    }
}

/// The words of a fault after its kind: `name=value`, in the order in which they were written.
pub(in crate::sim) struct Words<'a> {
    words: std::str::SplitAsciiWhitespace<'a>,
}

impl<'a> Words<'a> {
    pub(in crate::sim) fn of(text: &'a str) -> Self {
        Words { words: text.split_ascii_whitespace() }
    }

    pub(in crate::sim) fn next(&mut self, name: &str) -> Result<&'a str, String> {
        self.words.next().ok_or(format!("{name} is missing"))
    }

    pub(in crate::sim) fn take<T: Word>(&mut self, name: &str) -> Result<T, String> {
        let word = self.next(name)?;
        let value = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
        value.and_then(T::read).ok_or(format!("`{word}` is no {name}"))
    }

    pub(in crate::sim) fn end(&mut self) -> Result<(), String> {
        self.words.next().map_or(Ok(()), |word| Err(format!("what is `{word}`?")))
    }
}

macro_rules! faults {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $kind:ty),* };)*) => {
        /// One fault. Times are spans in microseconds.
        #[derive(Clone, Debug, PartialEq)]
        pub(in crate::sim) enum Fault {
            $($(#[$meta])* $name { $($field: $kind),* },)*
        }

        impl Fault {
            /// Its kind and everything about it, as words.
            pub(in crate::sim) fn say(&self) -> String {
                match self {
                    $(Fault::$name { $($field),* } => {
                        let mut text = String::from(stringify!($name));
                        $(text.push_str(&format!(" {}={}", stringify!($field), $field.say()));)*
                        text
                    })*
                }
            }

            pub(in crate::sim) fn read(words: &mut Words<'_>) -> Result<Fault, String> {
                match words.next("the kind of fault")? {
                    $(stringify!($name) => Ok(Fault::$name { $($field: words.take(stringify!($field))?),* }),)*
                    other => Err(format!("no fault is called `{other}`")),
                }
            }
        }
    };
}

faults! {
    /// Links are cut.
    Cut { shape: Shape, victim: Target, with_clients: bool, lasts: Time };
    /// Connections of a server break.
    Reset { victim: Target, half_open: bool };
    /// A link stalls.
    Clog { victim: Target, lasts: Time };
    /// A process dies; if `armed`, in the middle of its next write.
    Crash { victim: Target, loss: Loss, silent: bool, armed: bool, down: Time };
    /// All processes die.
    CrashAll { loss: Loss, down: Time, stagger: Time };
    /// A process stands still, and its disk with it if it is the machine that does.
    Pause { victim: Target, machine: bool, lasts: Time };
    /// A disk is slower, or hangs.
    Disk { victim: Target, slower: Option<u64>, lasts: Time };
    /// A clock runs at another rate.
    Drift { victim: Target, rate: f64 };
    /// A server comes back with an empty directory.
    Wipe { victim: Target, down: Time };
    /// A client's connections break.
    CutClient { client: usize };
    /// A client's process dies.
    KillClient { client: usize, down: Time };
    /// A client stands still; half the time one that holds a lock.
    PauseClient { client: usize, lasts: Time };
    /// A process dies in the middle of its next write of that kind.
    CrashAt { victim: Target, moment: Moment, loss: Loss, silent: bool, down: Time };
    /// The next call to a disk of the class's kind fails, and the process stops.
    Fail { victim: Target, loss: Loss, down: Time };
    /// A state machine panics on the next entry.
    Panic { victim: Target, down: Time };
    /// All links of a server take longer.
    Slow { victim: Target, extra: Time, lasts: Time };
    /// One storage thread is slower than the others.
    Lane { victim: Target, lane: usize, slower: u64, lasts: Time };
    /// A process is started again, and takes a snapshot whenever so many bytes were logged.
    Snapshots { victim: Target, bytes: u64, down: Time };
    /// A machine is started again: its clock begins anew, at so much.
    Reboot { victim: Target, shown: Time, down: Time };
    /// A server comes back with a greater term.
    Inflate { victim: Target, terms: u64, down: Time };
    /// A process ends and comes back as the newest version; if it is that already, the next one.
    Upgrade { victim: Target, down: Time };
    /// A process ends and comes back as an earlier version, with so much of each kind.
    Downgrade { victim: Target, map: u16, lock: u16, down: Time };
    /// Something in a file goes bad: while the process is down for that long, or under its feet, and it ends after that long.
    Rot { victim: Target, part: Part, harm: Harm, when: When, loss: Loss, down: Time };
    /// Both copies of the manifest go bad while the process is down.
    Amnesia { victim: Target, harm: Harm, down: Time };
    /// A file is gone when the process comes up again.
    Lose { victim: Target, part: Part, which: Which, loss: Loss, down: Time };
    /// The next write to a file of that kind goes wrong; after that long the process ends.
    Astray { victim: Target, part: Part, way: Way, down: Time };
    /// A disk has room for so many bytes more.
    Fill { victim: Target, more: u64, lasts: Time };
    /// A process comes up with the directory of a server of another cluster.
    Exchange { victim: Target, lasts: Time, down: Time };
    /// A client stands still, and the leader goes when its session is about to expire.
    NearExpiry { client: usize, after: Time, lasts: Time };
}

/// A fault and when it strikes.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::sim) struct Planned {
    pub(in crate::sim) at: Time,
    pub(in crate::sim) class: Class,
    /// Of everything that is drawn while it strikes: it shifts nothing else.
    pub(in crate::sim) seed: u64,
    pub(in crate::sim) fault: Fault,
}

impl Fault {
    /// The same for half the time, if that is worth a try.
    pub(in crate::sim) fn shorter(&self) -> Option<Fault> {
        let mut shorter = self.clone();
        match &mut shorter {
            Fault::Cut { lasts, .. }
            | Fault::Clog { lasts, .. }
            | Fault::Pause { lasts, .. }
            | Fault::Disk { lasts, .. }
            | Fault::Slow { lasts, .. }
            | Fault::Lane { lasts, .. }
            | Fault::Fill { lasts, .. }
            | Fault::Exchange { lasts, .. }
            | Fault::PauseClient { lasts, .. }
            | Fault::NearExpiry { lasts, .. } => *lasts /= 2,
            Fault::Crash { down, .. }
            | Fault::CrashAll { down, .. }
            | Fault::CrashAt { down, .. }
            | Fault::Fail { down, .. }
            | Fault::Panic { down, .. }
            | Fault::Snapshots { down, .. }
            | Fault::Reboot { down, .. }
            | Fault::Inflate { down, .. }
            | Fault::Rot { down, .. }
            | Fault::Amnesia { down, .. }
            | Fault::Lose { down, .. }
            | Fault::Astray { down, .. }
            | Fault::Wipe { down, .. }
            | Fault::Upgrade { down, .. }
            | Fault::Downgrade { down, .. }
            | Fault::KillClient { down, .. } => *down /= 2,
            Fault::Reset { .. } | Fault::Drift { .. } | Fault::CutClient { .. } => return None,
        }
        Some(shorter)
    }
}
