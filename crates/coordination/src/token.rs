//! Which grant it was, and whose.

use std::fmt;

use atomix_resource::{Index, SessionId};
use serde::{Deserialize, Serialize};

/// Names a grant: its place in the log (L1). Of two grants of the same lock the later has the greater token, for as long as the
/// cluster lives.
///
/// It goes along with whatever the holder does, so that what is guarded can refuse a holder that is one no more (see
/// [`Fence`](crate::Fence)).
///
/// ```
/// use atomix_coordination::Token;
///
/// let (earlier, later) = (Token::from(7), Token::from(12));
/// assert!(earlier < later);
/// assert_eq!(later.to_string(), "12"); // as in the environment of a child process
/// assert_eq!(u64::from(later), 12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(u64);

impl Token {
    /// Smaller than that of every grant.
    pub(crate) const NONE: Token = Token(0);
}

impl From<u64> for Token {
    fn from(token: u64) -> Self {
        Token(token)
    }
}

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        token.0
    }
}

impl From<Index> for Token {
    fn from(index: Index) -> Self {
        Token(index.0)
    }
}

impl From<Token> for Index {
    fn from(token: Token) -> Self {
        Index(token.0)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Who has what was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The session.
    pub session: SessionId,
    /// Which grant.
    pub token: Token,
}
